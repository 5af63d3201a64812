"""table.csv and table.md: the numbers of the study, once more by numpy."""

import csv
import io

import numpy as np
import pytest
from report.study.studies import imagined
from scipy import stats

from graphdyn.report.study.accuracy import score
from graphdyn.report.study.data import read_study
from graphdyn.report.study.tables import comma, markdown, rows, summary
from graphdyn.report.study.times import hit


@pytest.fixture(scope="module")
def study(folder):
    return read_study(folder)


def test_csv_holds_every_number(study, truth):
    table = list(csv.DictReader(io.StringIO(comma(study, score(study), hit(study)))))
    assert len(table) == 3 + 6  # methods over all data sets, then cells
    found = next(r for r in table if (r["dataset"], r["method"]) == ("cora", "gas"))
    runs = 100 * np.array([truth.score("cora", "gas", s) for s in (0, 2, 3, 4, 5)])
    base = 100 * np.array([truth.score("cora", "neighbor", s) for s in (0, 2, 3, 4, 5)])
    ends = stats.ttest_rel(runs, base).confidence_interval()
    expected = {
        "n": 5,
        "lost": 0,
        "mean": runs.mean(),
        "std": runs.std(ddof=1),
        "difference": np.mean(runs - base),
        "difference_low": ends.low,
        "difference_high": ends.high,
        "edges": 200 * 2500,
        "bytes": 200 * 900_000,
        "memory": 2**28,
    }
    assert {n: float(found[n]) for n in expected} == pytest.approx(expected, rel=1e-4)
    assert float(found["median_edges"]) == 2500 * float(found["median_steps"])
    assert next(r for r in table if r["method"] == "neighbor")["p"] == ""
    lost = next(r for r in table if (r["dataset"], r["method"]) == ("citeseer", "gas"))
    assert lost["lost"] == "1"


def test_markdown_says_what_was_left_out_and_how_many_tests_there_are(study):
    text = markdown(study, score(study))
    lines = text.splitlines()
    assert lines[0] == "# Four samplers on three citation graphs"
    bars = {line.count("|") for line in lines if line.startswith("|")}
    assert bars == {12}
    assert "4 tests of cells, and 3 tests of all pairs" in text
    assert "- citeseer/gcn/gas, seed 3, failed: MemoryError: no memory <left> & lost." in text
    assert "- cora/gcn/full, seed 2, diverged" in text
    assert "2 runs of 36 not complete yet." in text
    assert "5 (1 lost)" in text


def test_too_few_seeds_leave_no_bracket():
    study = imagined({("d", "a"): [0.5, 0.6], ("d", "b|c"): [0.4, 0.6]}, "a")
    text = markdown(study, score(study))
    assert "[" not in text.split("Intervals are")[0]
    assert "b\\|c" in text
    assert "With fewer than 3 seeds" in text


def test_rows_of_cells_without_a_run_are_there():
    study = imagined({("d", "a"): [0.5], ("d", "b"): [0.5]}, "a", lost=[(("d", "b"), 0)])
    scores = score(study)
    assert [(r.method, r.level is None, r.lost) for r in rows(study, scores)] == [
        ("a", False, 0),
        ("b", True, 1),
    ]
    assert "no run yet" in markdown(study, scores)
    assert summary(study, scores)[1][1][2] == "no run yet"
