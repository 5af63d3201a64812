"""Published figures: every recipe can be built, verdicts are right, results are kept beside others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphdyn as gd
from graphdyn.assembly import method_of, model_of
from graphdyn.cli import main
from graphdyn.config import Config
from graphdyn.data import card
from graphdyn.data.loader import resolve_split
from graphdyn.errors import InputError, RecordError
from graphdyn.parallel import World
from graphdyn.reproduce import Row, Terms, chosen, judge, note, read_recipe, reproduce, rows
from graphdyn.verdict import paired_gain, within

RECIPES = Path(__file__).parents[1] / "experiments" / "accuracy"
NAMES = tuple(rows())
TOY = Config(dataset="csbm", hidden=4, layers=1, epochs=5, seeds=3, threads=1)


@pytest.fixture
def toys(monkeypatch):
    """Three rows: one by itself, one paired with it, one whose raw files cannot be had."""
    known = {
        "toy": Row(TOY, "90", "nobody", (0.0, 100.0)),
        "toy-deep": Row(replace(TOY, layers=2), "91", "nobody", (99.9, 100.0), "toy", gain=-100.0),
        "toy-absent": Row(replace(TOY, dataset="cora"), "92", "nobody"),
    }
    monkeypatch.setattr("graphdyn.reproduce.rows", lambda: known)

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("graphdyn.data.download.fetch", offline)
    return known


def test_names_are_unique_over_all_recipes():
    every = [name for path in RECIPES.glob("*.py") for name in read_recipe(path)]
    assert len(every) == len(set(every)) == len(NAMES) > 60


def test_a_name_that_two_recipes_have_is_refused(tmp_path, monkeypatch):
    text = "from graphdyn import Config\nfrom graphdyn.reproduce import Row\nROWS = {'one': Row(Config(), '', '')}\n"
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("graphdyn.reproduce._folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"b\.py names a row 'one'"):
        rows.__wrapped__()


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_can_be_built(name):
    """On a small graph in place of its own: model, sampler, memories and regularizer take their options."""
    config, graph = rows()[name].config, gd.load("csbm")
    assert resolve_split(card(config.dataset), config.split, seed=0) is not None
    model = model_of(config, graph, 0)
    method = method_of(config, graph, World())
    gd.check_fit(method.sampler, model)
    method.check(model)
    if config.regularizer is not None:
        from graphdyn.regularizers import build

        build(config.regularizer, **config.regularizer_options).check(model, method, graph)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_says_what_it_is_compared_with(name):
    row = rows()[name]
    assert row.published
    assert row.source
    assert row.config.out is None
    assert row.config.data_root is None
    if row.band is not None:
        low, high = row.band
        assert low < float(row.published.split()[0]) < high
    assert row.gain is None or row.against is not None
    if row.against is not None:
        ours, theirs = row.config, rows()[row.against].config
        for field in ("dataset", "features", "split", "seeds", "first_seed", "select", "epochs"):
            assert getattr(ours, field) == getattr(theirs, field)


def test_rows_of_the_table_are_there():
    """The checks that were promised, with their bands."""
    bands = {
        "graphmix-gcn-cora": (83.0, 84.5),
        "graphmix-gcn-citeseer": (73.9, 75.2),
        "graphmix-gcn-pubmed": (80.2, 81.5),
    }
    assert {name: rows()[name].band for name in bands} == bands
    assert rows()["graphmix-gcn-cora"].gain == 1.2
    assert {rows()[name].against for name in bands} == {
        f"plain-gcn-{name}" for name in ("cora", "citeseer", "pubmed")
    }


@pytest.mark.parametrize(
    ("value", "band", "verdict"),
    [
        (81.0, (81.0, 82.3), "inside"),
        (82.3, (81.0, 82.3), "inside"),
        (80.99, (81.0, 82.3), "OUTSIDE"),
        (82.31, (81.0, 82.3), "OUTSIDE"),
        (50.0, None, "reported"),
    ],
)
def test_a_band_includes_its_ends(value, band, verdict):
    assert within(value, band) == verdict


def test_a_gain_is_the_mean_paired_difference_with_its_interval():
    generator = np.random.default_rng(0)
    theirs = generator.normal(80.0, 5.0, 40)
    ours = theirs + generator.normal(2.0, 0.5, 40)
    found = paired_gain(list(ours), list(theirs), 1.2)
    gaps = ours - theirs
    error = gaps.std(ddof=1) / np.sqrt(40)
    assert found["mean"] == round(gaps.mean(), 2)
    # Percentiles of a bootstrap are near the normal interval; unpaired it would be 20 times as wide.
    assert found["low"] == pytest.approx(gaps.mean() - 1.96 * error, abs=0.3 * error)
    assert found["high"] == pytest.approx(gaps.mean() + 1.96 * error, abs=0.3 * error)
    assert found["verdict"] == "inside"


@pytest.mark.parametrize(
    ("least", "verdict"), [(2.0, "inside"), (2.01, "OUTSIDE"), (None, "reported")]
)
def test_a_gain_has_its_own_verdict(least, verdict):
    found = paired_gain([82.0, 84.0], [80.0, 82.0], least)
    assert (found["mean"], found["verdict"]) == (2.0, verdict)


def test_one_seed_has_a_gain_without_interval():
    found = paired_gain([82.0], [80.0], 1.0)
    assert (found["mean"], found["low"], found["high"]) == (2.0, None, None)


def summary(values, seeds=(0, 1), split=("public",)):
    """A run's summary made by hand."""
    test = {"mean": float(np.mean(values)), "std": 0.01, "n": len(values), "values": list(values)}
    facts = {"metric": "accuracy", "epochs": [5, 5], "best_epoch": [3, 4], "device": "abacus"}
    rest = {"seconds": {"total": 12.34}, "versions": {"torch": "2"}, "id": "0123"}
    return {"test": test, "validation": test, "seeds": [*seeds], "split": [*split], **facts, **rest}


def test_a_result_says_what_was_measured_and_how():
    row = Row(replace(TOY, seeds=2), "81.5", "somebody", (81.0, 82.0), note="careful")
    result = judge(row, Terms(), summary([0.8, 0.82005]))
    assert (result["mean"], result["std"], result["n"]) == (81.0, 1.0, 2)
    assert result["values"] == [80.0, 82.005]
    assert (result["verdict"], result["band"], result["run"]) == ("inside", [81.0, 82.0], "")
    assert (result["split"], result["seeds"]) == (["public"], [0, 1])
    assert (result["seconds"], result["machine"]["device"]) == (12.3, "abacus")
    assert (result["versions"], result["id"], result["note"]) == ({"torch": "2"}, "0123", "careful")
    assert "gain" not in result
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_mean_is_judged_as_it_is_printed():
    row = Row(TOY, "81.5", "somebody", (81.01, 82.0))
    result = judge(row, Terms(), summary([0.810051, 0.810053]))
    assert (result["mean"], result["verdict"]) == (81.01, "inside")


def test_fewer_seeds_are_said_and_lie_apart():
    row, terms = Row(TOY, "81.5", "somebody", (81.0, 82.0)), Terms(seeds=2)
    assert judge(row, terms, summary([0.8, 0.82]))["run"] == "2 of 3 seeds"
    assert terms.config("x", row).seeds == 2
    assert terms.key("x", row) == "x-2-seeds"
    assert Terms(seeds=3).key("x", row) == Terms().key("x", row) == "x"


def test_a_tiny_run_is_not_judged():
    row = Row(TOY, "81.5", "somebody", (81.0, 82.0), "toy", 1.0)
    terms = Terms(tiny=True)
    other = judge(row, terms, summary([0.8, 0.81]))
    result = judge(row, terms, summary([0.8, 0.82]), other)
    assert result["verdict"] == result["gain"]["verdict"] == "not judged"
    assert terms.key("x", row) == "x-tiny"
    config = terms.config("x", replace(row, config=replace(TOY, layers=64)))
    assert (config.seeds, config.epochs, config.layers) == (2, 3, 4)


@pytest.mark.parametrize("differs", [{"seeds": (1, 2)}, {"split": ("random-seed1",)}])
def test_a_gain_over_other_seeds_or_splits_is_refused(differs):
    row = Row(TOY, "81.5", "somebody", None, "toy")
    other = judge(row, Terms(), summary([0.8, 0.81], **differs))
    with pytest.raises(InputError, match="paired with toy"):
        judge(row, Terms(), summary([0.8, 0.82]), other)


def test_results_are_merged_by_row(tmp_path):
    note(tmp_path, {"a": {"mean": 1.0}, "b": {"mean": 2.0}})
    note(tmp_path, {"b": {"mean": 3.0}, "c": {"mean": 4.0}})
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {"a": {"mean": 1.0}, "b": {"mean": 3.0}, "c": {"mean": 4.0}}


def test_a_damaged_file_of_results_is_not_overwritten(tmp_path):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(RecordError, match="is damaged"):
        note(tmp_path, {"a": {}})
    assert (tmp_path / "results.json").read_text() == "{"


def test_a_partner_runs_first(toys):
    assert list(chosen(["toy-deep"])) == ["toy", "toy-deep"]
    assert list(chosen(["toy-deep", "toy"])) == ["toy", "toy-deep"]
    with pytest.raises(InputError, match="did you mean toy-deep"):
        chosen(["toy-deeep"])


def test_rows_run_resume_and_are_noted_although_one_has_no_data(toys, tmp_path, monkeypatch):
    told = []
    terms = Terms(tmp_path / "out", data_root=tmp_path / "nowhere")
    results = reproduce(["toy-absent", "toy-deep"], terms, told=told.append)
    assert [line.split(":")[0] for line in told] == ["toy-absent"]
    assert "download it by hand" in told[0]
    assert str(terms.data_root) in told[0]
    assert list(results) == ["toy", "toy-deep"]
    assert results["toy"]["verdict"] == "inside"
    assert results["toy-deep"]["gain"]["verdict"] == "inside"
    assert json.loads((terms.out / "results.json").read_text()) == results
    seeds = json.loads((terms.out / "toy" / "summary.json").read_text())["seeds"]
    assert results["toy"]["seeds"] == seeds == [0, 1, 2]

    def trains(*_, **__):
        raise AssertionError("a finished run is run again")

    monkeypatch.setattr("graphdyn.runner.Job.train", trains)
    assert reproduce(["toy"], terms) == {"toy": results["toy"]}


def test_the_command_prints_verdicts_and_ends_in_0_whatever_they_are(toys, tmp_path, capsys):
    words = ["reproduce", "toy-deep", "--seeds", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "OUTSIDE (1 of 3" in printed
    assert "over toy" in printed
    assert "1 seed(s), split random-20x500x1000-seed0, epoch of the best validation" in printed
    assert (tmp_path / "toy-deep-1-seeds" / "summary.json").exists()
    table = (tmp_path / "results.md").read_text()
    assert table.splitlines()[0].count("|") == table.splitlines()[-1].count("|") == 8
    assert "| 99.9-100 | OUTSIDE (1 of 3 seeds) | toy: " in table
    assert "at least -100: inside" in table


def test_the_command_says_which_row_has_no_data_and_ends_in_1(toys, tmp_path, capsys):
    words = ["reproduce", "toy-absent", "toy", "--tiny", "--out", str(tmp_path)]
    assert main([*words, "--data-root", str(tmp_path / "nowhere")]) == 1
    captured = capsys.readouterr()
    assert "download it by hand" in captured.out
    assert "not judged" in captured.out
    assert "1 of 2 rows have no result" in captured.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["graphmix-gcn-coar"], "unknown row 'graphmix-gcn-coar'; did you mean graphmix-gcn-cora"),
        ([], "needs the name of a row"),
        (["gcn-cora", "--seeds", "0"], "seeds is 0"),
    ],
)
def test_bad_input_ends_in_2(words, sentence, capsys):
    assert main(["reproduce", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_the_list_has_every_row(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["reproduce", "--list", "--data-root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    words = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.strip()}
    assert words["gcn-cora"] == ["cora", "-", "81.5", "81-82.3"]
