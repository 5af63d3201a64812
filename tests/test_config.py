"""Config: the same run from flags, TOML and Python; one identity; refusals in one sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graphdyn.cli import parse_config
from graphdyn.config import Config
from graphdyn.errors import InputError

FLAGS = [
    "--dataset",
    "cora",
    "--model",
    "gat",
    "--norm",
    "batch",
    "--skip",
    "identity",
    "--hidden",
    "8",
    "--layers",
    "3",
    "--seeds",
    "10",
    "--lr",
    "0.005",
    "--model-options",
    "heads",
    "8",
    "--weight-decay-for",
    "first",
    "0.0005",
    "out",
    "0.0",
    "--patience",
    "100",
    "--sampler",
    "neighbor",
    "--batch-size",
    "64",
    "--fanouts",
    "15,10,5",
    "--sampler-options",
    "estimator",
    "hajek",
    "--statistics",
    "running",
]

TOML = """
dataset = "cora"
model = "gat"
norm = "batch"
skip = "identity"
hidden = 8
layers = 3
seeds = 10
lr = 0.005
model_options = {heads = 8}
weight_decay_for = {first = 0.0005, out = 0.0}
patience = 100
sampler = "neighbor"
batch_size = 64
fanouts = [15, 10, 5]
sampler_options = {estimator = "hajek"}
statistics = "running"
"""

PYTHON = Config(
    dataset="cora",
    model="gat",
    norm="batch",
    skip="identity",
    hidden=8,
    layers=3,
    seeds=10,
    lr=0.005,
    model_options={"heads": 8},
    weight_decay_for={"first": 0.0005, "out": 0.0},
    patience=100,
    sampler="neighbor",
    batch_size=64,
    fanouts=(15, 10, 5),
    sampler_options={"estimator": "hajek"},
    statistics="running",
)


def test_flags_toml_and_python_give_the_same_run(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML)

    assert parse_config(FLAGS) == PYTHON
    assert Config.from_toml(path) == PYTHON
    assert parse_config(FLAGS).id == Config.from_toml(path).id == PYTHON.id


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML)

    config = parse_config(["--config", str(path), "--layers", "5"])

    assert (config.layers, config.hidden) == (5, 8)


def test_identity_ignores_where_it_is_written_and_nothing_else(tmp_path):
    where = {"out": tmp_path, "checkpoint_seconds": 1.0, "data_root": tmp_path}
    assert Config(**where, workers=0, prefetch=9, sinks="tensorboard").id == Config().id
    assert Config(workers=0).differences(Config(prefetch=1).canonical()) == []
    changed = {
        "layers": 3,
        "lr": 0.1,
        "threads": 1,
        "select": "loss",
        "model_options": {"heads": 1},
        "sampler": "neighbor",
        "batch_size": 7,
        "fanouts": "5",
        "sampler_options": {"replace": True},
        "statistics": "running",
        "evaluate_chunk": 10,
    }
    ids = {Config(**{name: value}).id for name, value in changed.items()}
    assert len(ids | {Config().id}) == len(changed) + 1


@pytest.mark.parametrize(
    ("given", "text"),
    [("15,10,5", "15,10,5"), ((15, 10, 5), "15,10,5"), ([15, -1], "15,-1"), (7, "7"), (None, None)],
)
def test_fan_outs_have_one_form_whoever_gives_them(given, text):
    assert Config(fanouts=given).fanouts == text
    assert Config.from_dict({"fanouts": given}).id == Config(fanouts=text).id


@pytest.mark.parametrize("words", [["15,10,5"], ["15", "10", "5"]])
def test_fan_outs_on_the_command_line(words):
    assert parse_config(["--fanouts", *words]).fanouts == "15,10,5"
    assert parse_config(["--fanouts=-1,5"]).fanouts == "-1,5"


def test_canonical_form_survives_json():
    document = json.loads(json.dumps(PYTHON.canonical()))
    assert PYTHON.differences(document) == []
    assert Config.from_dict(document) == replace(PYTHON, epochs=200)
    assert Config(layers=9).differences(Config().canonical()) == ["layers: 2 -> 9"]
    # Written before there was such a field: it has the default.
    assert Config(max_steps=7).differences({"layers": 2, "epochs": None}) == [
        "max_steps: None -> 7"
    ]
    assert Config().differences({}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 0}, "layers is 0; it must be at least 1"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must lie in \[0, 1\)"),
        ({"lr": -1.0}, "lr is -1.0; it must be positive"),
        ({"patience": 0}, "patience is 0"),
        ({"select": "best"}, "unknown select 'best'"),
        ({"hidden": "64"}, "hidden is '64'; expected int"),
        ({"hidden": True}, "hidden is True; expected int"),
        ({"model_options": 3}, "model_options is 3"),
        ({"hiden": 64}, "unknown configuration field 'hiden'; did you mean hidden"),
        ({"first_seed": -1}, "first_seed is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1, or absent"),
        ({"batch_size": 1.5}, "batch_size is 1.5; expected int"),
        ({"evaluate_chunk": 0}, "evaluate_chunk is 0"),
        ({"workers": -1}, "workers is -1; it must be at least 0"),
        ({"prefetch": 0}, "prefetch is 0; it must be at least 1"),
        ({"fanouts": True}, "fanouts is True; expected str"),
        ({"fanouts": 2.5}, "fanouts is 2.5; expected str"),
        ({"statistics": "batch"}, "unknown statistics 'batch'"),
        ({"sampler": 3}, "sampler is 3; expected str"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(values, message):
    with pytest.raises(InputError, match=message):
        Config.from_dict(values)


def test_bad_files_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        Config.from_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("layers = ")
    with pytest.raises(InputError, match="not valid TOML"):
        Config.from_toml(tmp_path / "bad.toml")


def test_flags_are_never_abbreviated():
    with pytest.raises(SystemExit) as stop:
        parse_config(["--seed", "3"])
    assert stop.value.code == 2


def test_the_help_of_sampler_names_them_all():
    from graphdyn.samplers import SAMPLERS

    text = (Path(__file__).parents[1] / "graphdyn" / "config.py").read_text()
    told = text.split("sampler: str | None = ")[1].split('"""')[1]
    assert all(name in told for name in SAMPLERS)
