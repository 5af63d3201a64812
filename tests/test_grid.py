"""Grid: every combination once, named and configured; what cannot be is refused in one sentence."""

import itertools
import json

import pytest

from graphdyn.errors import InputError
from graphdyn.grid import TUNING_SEED, Study, Tune, slug_of

TOML = """
seeds = {count = 3, first = 4}
baseline = {method = "plain", dataset = "cora"}
target = 0.7

[budget]
edges = 1_000_000
evaluations = 12

[base]
hidden = 32
model_options = {cached = true}

[grid]
dataset = ["cora", "citeseer"]
norm = ["none", "batch"]
"model_options.alpha" = [0.1, 0.2]

[[methods]]
name = "plain"

[[methods]]
name = "ten"
sampler = "neighbor"
fanouts = [10, 10]
sampler_options = {estimator = "hajek"}

[[exclude]]
dataset = "citeseer"
method = ["ten", "other"]

[[override]]
when = {dataset = "citeseer", norm = "batch"}
set = {hidden = 128, "model_options.cached" = false}

[tune]
trials = 4
lr = [0.001, 0.1]
batch_size = [32, 64]
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    return Study.from_toml(path)


def test_cells_are_all_combinations_but_the_excluded(study):
    cells = study.expand()
    expected = [
        f"{dataset}/gcn/norm={norm}/alpha={alpha}/{method}"
        for dataset, norm, alpha in itertools.product(
            ["cora", "citeseer"], ["none", "batch"], [0.1, 0.2]
        )
        for method in ["plain", "ten"]
        if not (dataset == "citeseer" and method == "ten")
    ]
    assert [cell.name for cell in cells] == expected
    assert len({cell.slug for cell in cells}) == len(cells) == 12
    assert cells[0].labels == {
        "dataset": "cora", "model": "gcn", "norm": "none", "model_options.alpha": 0.1,
        "method": "plain",
    }  # fmt: skip


def test_a_cell_has_base_axis_method_budget_and_override(study):
    cells = {cell.name: cell.config for cell in study.expand()}
    ten = cells["cora/gcn/norm=batch/alpha=0.2/ten"]
    assert (ten.dataset, ten.norm, ten.hidden, ten.sampler) == ("cora", "batch", 32, "neighbor")
    assert ten.fanouts == "10,10"
    assert ten.sampler_options == {"estimator": "hajek"}
    assert ten.model_options == {"cached": True, "alpha": 0.2}
    assert (ten.max_edges, ten.evaluations, ten.last_epoch) == (1_000_000, 12, None)
    assert (ten.threads, ten.workers) == (1, 0)
    special = cells["citeseer/gcn/norm=batch/alpha=0.1/plain"]
    assert (special.hidden, special.model_options) == (128, {"cached": False, "alpha": 0.1})
    assert cells["citeseer/gcn/norm=none/alpha=0.1/plain"].hidden == 32


def test_the_rest_of_the_file(study):
    assert study.name == "mine"
    assert list(study.seed_numbers) == [4, 5, 6]
    assert study.tune == Tune(4, (0.001, 0.1), (32, 64))
    cells = study.expand()
    assert study.reference(cells).name == "cora/gcn/norm=none/alpha=0.1/plain"


def test_a_study_survives_json(study):
    again = Study.from_dict(json.loads(json.dumps(study.plain())))
    assert again.expand() == study.expand()
    assert again.tune == study.tune
    assert again.plain() == study.plain()


def test_python_gives_the_same_as_a_file(study):
    grid = {
        "dataset": ["cora", "citeseer"],
        "norm": ["none", "batch"],
        "model_options.alpha": [0.1, 0.2],
    }
    options = {"estimator": "hajek"}
    ten = {"name": "ten", "sampler": "neighbor", "fanouts": [10, 10], "sampler_options": options}
    made = Study(
        name="mine",
        seeds={"count": 3, "first": 4},
        budget={"edges": 1_000_000, "evaluations": 12},
        base={"hidden": 32, "model_options": {"cached": True}},
        grid=grid,
        methods=[{"name": "plain"}, ten],
        exclude=[{"dataset": "citeseer", "method": ["ten", "other"]}],
        override=[
            {
                "when": {"dataset": "citeseer", "norm": "batch"},
                "set": {"hidden": 128, "model_options.cached": False},
            }
        ],
        baseline={"method": "plain", "dataset": "cora"},
        target=0.7,
        tune=Tune(4, (0.001, 0.1), (32, 64)),
    )
    assert made.expand() == study.expand()
    assert made == study


def test_cells_of_their_own_stand_beside_the_grid():
    study = Study(
        grid={"dataset": ["csbm"], "sampler": ["full", "neighbor"]},
        cells=[
            {"dataset": "csbm", "preset": "gas"},
            {"dataset": "csbm", "preset": "gas", "lr": 0.1, "name": "gas, fast"},
        ],
    )
    cells = study.expand()
    assert [cell.name for cell in cells] == [
        "csbm/gcn/full", "csbm/gcn/neighbor", "csbm/gcn/gas", "csbm/gcn/gas, fast",
    ]  # fmt: skip
    assert cells[3].config.lr == 0.1


def test_without_an_axis_of_samplers_the_method_is_named_all_the_same():
    cells = Study(base={"preset": "gas"}, grid={"lr": [0.1, 0.2]}).expand()
    assert [c.name for c in cells] == ["cora/gcn/lr=0.1/gas", "cora/gcn/lr=0.2/gas"]
    assert cells[0].labels["preset"] == "gas"


NAMES = [
    "a/b", "a__b", "A/b", "a b", "a-b", "a/b/", "ä/b", "a/B", "a:b", "x" * 120, "x" * 121, "a", "a_b",
]  # fmt: skip


def test_slugs_are_different_and_safe():
    slugs = [slug_of(name) for name in NAMES]
    assert len({s.lower() for s in slugs}) == len(NAMES)
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789._=,+-")
    assert all(set(s) <= allowed and len(s) < 120 for s in slugs)
    assert slug_of("cora/gcn/norm=none/neighbor") == "cora__gcn__norm=none__neighbor"


WRONG = [
    ({"gird": {}}, "unknown table of a study 'gird'; did you mean grid?"),
    ({}, "the study has no cell"),
    ({"grid": {"layer": [1]}}, r"unknown field in \[grid\] 'layer'; did you mean layers"),
    ({"grid": {"layers": 2}}, r"\[grid\] layers is 2; expected a list"),
    ({"grid": {"layers": []}}, r"\[grid\] layers is \[\]; expected a list"),
    ({"grid": {"layers": [0]}}, "layers is 0; it must be at least 1"),
    ({"grid": {"layers.x": [1]}}, "layers holds no options"),
    ({"base": {"seeds": 3}}, r"\[base\] has seeds, which belongs under \[seeds\]"),
    ({"base": {"max_steps": 3}}, r"has max_steps, which belongs under \[budget\]"),
    ({"budget": {"hours": 3}}, r"unknown \[budget\] entry 'hours'"),
    ({"seeds": 0}, "seeds is 0; give at least one"),
    ({"seeds": {"count": 1, "first": TUNING_SEED}}, "all of them in 0..999999"),
    ({"methods": [{"sampler": "full"}]}, "has no name"),
    ({"grid": {"lr": [0.1]}, "exclude": [{"lr": 0.2}]}, "matches no cell"),
    ({"grid": {"lr": [0.1]}, "exclude": [{"lrr": 0.1}]}, "unknown label or field 'lrr'"),
    ({"grid": {"lr": [0.1]}, "exclude": [{"lr": 0.1}]}, "the study has no cell"),
    ({"grid": {"lr": [0.1]}, "override": [{"when": {}}]}, "needs when and set; got when"),
    (
        {"grid": {"lr": [0.1]}, "override": [{"when": {"lr": 0.2}, "set": {"hidden": 3}}]},
        "matches no cell",
    ),
    ({"grid": {"lr": [0.1]}, "override": [{"when": {}, "set": {"lr": 3}}]}, "which is an axis"),
    ({"grid": {"lr": [0.1, 0.1]}}, "two cells are called cora/gcn/lr=0.1/full"),
    (
        {"methods": [{"name": "a"}, {"name": "b", "sampler": None}]},
        "cora/gcn/a and cora/gcn/b are the same configuration",
    ),
    ({"tune": {"lr": [0.1, 0.01]}}, r"\[tune\] lr is \[0.1, 0.01\]"),
    ({"tune": {"lr": None}}, "searches for nothing"),
    ({"tune": {"trial": 3}}, r"unknown \[tune\] entry 'trial'"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Study.from_dict(values).expand()


def test_a_baseline_that_is_no_cell_is_refused():
    study = Study(grid={"lr": [0.1]}, baseline={"lr": 0.3})
    with pytest.raises(InputError, match=r"no cell has the labels of the baseline \{'lr': 0.3\}"):
        study.reference(study.expand())


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        Study.from_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(InputError, match="is not valid TOML"):
        Study.from_toml(tmp_path / "bad.toml")
