"""What is read of a study folder is what was written, and every other run has its reason."""

import json
import shutil

import numpy as np
import pytest
from report.study.studies import Truth, write_study

from graphdyn.errors import RecordError
from graphdyn.report.study import is_study
from graphdyn.report.study.data import method_names, read_study


def test_scores_curves_and_costs_are_those_of_the_runs(folder, truth):
    study = read_study(folder)
    assert study.datasets == ["cora", "citeseer"]
    assert study.methods == ["full", "neighbor", "gas"]
    assert (study.metric, study.part) == ("accuracy", "test")
    for (dataset, method), cell in study.cells.items():
        _, _, edges, _, size, _ = truth.methods[method]
        for seed, run in cell.runs.items():
            assert run.score == truth.score(dataset, method, seed)
            steps = np.arange(1, 21) * 10
            expected = [truth.curve(dataset, method, seed, s) for s in steps]
            assert run.curve.value.tolist() == expected
            assert run.curve.at["steps"].tolist() == steps.tolist()
            assert run.curve.at["bytes"].tolist() == (steps * size).tolist()
            assert run.cost["edges"] == 200 * edges
            # of the clock: computing, memories and waiting, which are 0.8, 0.1 and 0.1 of it
            assert run.cost["seconds"] == pytest.approx(run.curve.at["seconds"][-1])
    assert study.axes == ["steps", "edges", "seconds", "bytes"]


def test_runs_without_a_result_have_their_reason(folder, truth):
    study = read_study(folder)
    found = {
        (d, m, x.seed): (x.kind, x.reason) for (d, m), c in study.cells.items() for x in c.missing
    }
    assert {at: kind for at, (kind, _) in found.items()} == {
        ("citeseer", "gas", 3): "failed",
        ("cora", "full", 2): "diverged",
        ("cora", "gas", 1): "unfinished",
        ("citeseer", "full", 5): "not started",
    }
    assert found["citeseer", "gas", 3][1] == "MemoryError: no memory <left> & lost. (2 attempts)"
    assert len(study.runs) + len(found) == study.planned == 36
    assert sum(x.lost for c in study.cells.values() for x in c.missing) == 2


def test_pairs_are_of_seeds_that_both_have(folder, truth):
    study = read_study(folder)
    gap = study.cells["cora", "full"].paired(study.cells["cora", "gas"])
    expected = [
        truth.score("cora", "full", s) - truth.score("cora", "gas", s) for s in (0, 3, 4, 5)
    ]
    assert gap.tolist() == expected


def test_the_baseline_is_the_studys_or_else_the_first(folder, tmp_path):
    assert (read_study(folder).baseline, read_study(folder).chosen) == ("neighbor", True)
    other = shutil.copytree(folder, tmp_path / "other")
    document = json.loads((other / "study.json").read_text())
    (other / "study.json").write_text(json.dumps({**document, "baseline": None}))
    assert (read_study(other).baseline, read_study(other).chosen) == ("full", False)


def test_a_study_that_has_not_begun(tmp_path):
    nothing = tuple((d, m, s) for d in ("cora",) for m in ("full", "gas") for s in range(2))
    truth = Truth(seeds=2, absent=nothing, failed=(), baseline=None)
    truth.datasets, truth.methods = {"cora": 0.8}, {m: truth.methods[m] for m in ("full", "gas")}
    study = read_study(write_study(tmp_path / "study", truth))
    assert study.runs == []
    assert study.whole == ["cora"]  # nobody is alive, so nobody is missing
    assert study.axes == []


def test_folders_without_a_study(tmp_path):
    assert not is_study(tmp_path)
    with pytest.raises(RecordError, match="holds no study"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text("{")
    assert is_study(tmp_path)
    with pytest.raises(RecordError, match="damaged"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(RecordError, match="cells"):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (  # what is the same everywhere is left out
            [
                {"dataset": "cora", "model": "gcn", "sampler": "full"},
                {"dataset": "cora", "model": "gcn", "sampler": "labor"},
            ],
            [("cora", "full"), ("cora", "labor")],
        ),
        (  # numbers and "none" say nothing alone
            [
                {"dataset": "cora", "sampler": "labor", "layers": 2, "norm": "none"},
                {"dataset": "cora", "sampler": "labor", "layers": 4, "norm": "batch"},
            ],
            [("cora", "layers 2 · norm none"), ("cora", "layers 4 · norm batch")],
        ),
        (  # one method on two data sets
            [
                {"dataset": "cora", "model": "gcn", "sampler": "full"},
                {"dataset": "pubmed", "model": "gcn", "sampler": "full"},
            ],
            [("cora", "gcn · full"), ("pubmed", "gcn · full")],
        ),
        (  # a bundle's model adds nothing; what varies within a bundle does, behind it
            [
                {"dataset": "cora", "model": "gcn", "norm": "none", "method": "plain"},
                {"dataset": "cora", "model": "gcn", "norm": "batch", "method": "plain"},
                {"dataset": "cora", "model": "gat", "norm": "none", "method": "attention"},
            ],
            [
                ("cora", "plain · norm none"),
                ("cora", "plain · norm batch"),
                ("cora", "attention · norm none"),
            ],
        ),
        (  # labels that do not tell cells apart: their own names
            [{"dataset": "cora", "model": "gcn"}, {"dataset": "cora", "model": "gcn"}],
            [("cora", "0"), ("cora", "1")],
        ),
    ],
)
def test_methods_are_named_by_what_varies(labels, expected):
    named = {str(i): own for i, own in enumerate(labels)}
    assert list(method_names(named).values()) == expected
