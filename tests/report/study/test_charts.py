"""Charts of the page: plotly takes them, and they show the numbers of the study."""

import re

import numpy as np
import pytest
from report.study.studies import imagined
from scipy import stats

from graphdyn.keys import Key
from graphdyn.report.series import Series
from graphdyn.report.study.accuracy import score
from graphdyn.report.study.cost_charts import averaged, ledger, progress, reached
from graphdyn.report.study.data import read_study
from graphdyn.report.study.instrument_charts import gradient_errors, lines
from graphdyn.report.study.instruments import final, read_instruments, thin
from graphdyn.report.study.score_charts import forest, improvements, profiles
from graphdyn.report.study.times import hit


@pytest.fixture(scope="module")
def study(folder):
    return read_study(folder)


@pytest.fixture(scope="module")
def measured(study):
    return read_instruments(study)


@pytest.fixture(scope="module")
def charts(study, measured):
    scores, about = score(study), ("place", "title", "caption")
    found = [
        forest(study, scores),
        improvements(study, scores),
        profiles(study, scores),
        progress(study, "seconds", 60),
        progress(study, "edges", 60),
        reached(study, hit(study)),
        ledger(study),
        gradient_errors(study, measured),
        lines(study, measured, "effective_lr.effective_lr", about, "rate", 40),
        lines(study, measured, "staleness.error", ("staleness", "title", "caption"), "error", 40),
    ]
    return {chart.id: chart for chart in found}


def colored(value):
    """As the page does it."""
    if isinstance(value, str):
        return re.sub(r"^@\w+(/[\d.]+)?$", "#123456", value)
    if isinstance(value, list):
        return [colored(v) for v in value]
    return {k: colored(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_plotly_takes_every_chart(charts):
    go = pytest.importorskip("plotly.graph_objects", reason="pip install 'graphdyn[report]'")
    for chart in charts.values():
        expected = {""}
        for _, words in chart.switches:
            expected = {f"{a}|{b}".strip("|") for a in expected for b in words}
        assert set(chart.variants) == expected
        assert chart.alt
        assert chart.caption
        for variant in chart.variants.values():
            assert len(go.Figure(colored(variant)).data) > 0


def test_differences_are_where_they_belong(charts, truth):
    traces = charts["forest"].variants["cora"]["data"]
    assert [t["y"] for t in traces] == [["full"], ["gas"]]  # the best on top
    seeds = (0, 2, 3, 4, 5)
    gap = [
        100 * (truth.score("cora", "gas", s) - truth.score("cora", "neighbor", s)) for s in seeds
    ]
    reach = stats.t.ppf(0.975, 4) * np.std(gap, ddof=1) / 5**0.5
    assert traces[1]["x"][0] == pytest.approx(np.mean(gap), rel=1e-4)
    assert traces[1]["error_x"]["array"][0] == pytest.approx(reach, rel=1e-3)
    assert set(charts["forest"].variants) == {"all data sets", "cora", "citeseer"}


def test_curves_are_means_of_the_last_evaluation_so_far(study, truth):
    cell = study.cells["citeseer", "neighbor"]
    x, mean, reach = averaged(cell, "steps", 60)
    assert (x[0], x[-1]) == (pytest.approx(10), pytest.approx(200))
    for place in (0, len(x) // 2, len(x) - 1):
        step = int((x[place] + 1e-9) // 10) * 10
        values = [100 * truth.curve("citeseer", "neighbor", s, step) for s in range(6)]
        assert mean[place] == pytest.approx(np.mean(values))
        half = stats.t.ppf(0.975, 5) * np.std(values, ddof=1) / 6**0.5
        assert reach[place] == pytest.approx(half)


def test_the_band_of_a_curve_covers():
    inside, steps = 0, np.array([1.0, 2.0])
    for i in range(600):
        values = Key(4).fold("band", i).numpy().normal(0.5, 0.1, size=(5, 2))
        key = ("d", "a")
        study = imagined({key: values[:, 1]}, "a", {key: [(steps, v) for v in values]})
        _, mean, reach = averaged(study.cells[key], "steps", 2)
        inside += abs(mean[-1] - 50) <= reach[-1]
    assert 0.93 <= inside / 600 <= 0.97


def test_two_seeds_have_no_band():
    study = imagined({("d", "a"): [0.5, 0.6]}, "a")
    assert np.isnan(averaged(study.cells["d", "a"], "steps", 5)[2]).all()
    chart = progress(study, "steps", 5)
    assert chart is not None
    assert len(chart.variants["d"]["data"]) == 1


def test_shares_reached_step_up_to_what_was_seen(charts, study):
    trace = next(
        t for t in charts["reached"].variants["citeseer|steps"]["data"] if t["name"] == "gas"
    )
    assert trace["x"][0] == trace["y"][0] == 0
    assert trace["x"][-1] == 200  # the failed run ends there
    assert trace["y"][-1] == pytest.approx(100 * 5 / 6, rel=1e-4)


def test_the_parts_of_an_error_sum_up_to_it(charts, measured):
    data = charts["error"].variants["cora"]["data"]
    bars = [t for t in data if t.get("type") == "bar"]
    names = bars[0]["y"]
    total = np.sum([t["x"] for t in bars], axis=0)
    for name, value in zip(names, total):
        series = measured.cells["cora", name].one("sampler_mse.mse")
        assert value == pytest.approx(final(series)[0], rel=1e-4, abs=1e-9)
    assert [t["name"] for t in bars] == [
        "choice of targets",
        "drawn neighbours",
        "bias of embeddings",
    ]
    # Steps 100, 110 ... 200 of a share that grows from 1 to 2: their mean is 1.75 or a little above it.
    assert bars[0]["x"][names.index("neighbor")] == pytest.approx(0.4 * 1.75, rel=0.02)


def test_predictions_are_drawn_beside_measurements(charts):
    traces = charts["place"].variants["cora"]["data"]
    named = {t["name"]: t for t in traces}
    assert set(named["full (convs.0)"]["y"]) == {0.015}
    assert set(named["full, predicted"]["y"]) == {0.01}
    assert named["full, predicted"]["line"]["dash"] == "dot"
    assert [t["name"] for t in charts["staleness"].variants["cora"]["data"]] == ["gas"]


def test_predictions_pass_or_fail_by_their_band(measured):
    found = {(p.name, p.method): p for p in measured.predictions}
    # 11 complete runs of full would be 12 but for one diverged and one not started.
    assert found["effective_lr.effective_lr", "full"][2:4] == (0, 10)
    assert found["effective_lr.effective_lr", "gas"].passed
    assert found["effective_lr.effective_lr", "full"].deviation == pytest.approx(0.5)
    assert "rate_fit" in measured.refused


def test_long_series_become_means_over_stretches():
    step = np.arange(1000.0)
    pred = np.where(step < 500, np.nan, 1.0)
    found = thin(Series("a.b", "all", step, 2 * step, np.ones(1000), pred), 10)
    assert found.step.size == 10
    assert found.value == pytest.approx(2 * found.step)
    assert found.step[0] == pytest.approx(np.mean(step[step < 99.9]))
    assert np.isnan(found.pred[:5]).all()
    assert (found.pred[5:] == 1).all()


def test_methods_keep_their_colour(charts):
    colors = {}
    for chart in (charts["progress-seconds"], charts["profile"], charts["reached"]):
        for trace in next(iter(chart.variants.values()))["data"]:
            if "name" in trace:
                colors.setdefault(trace["name"], set()).add(trace["line"]["color"])
    assert colors == {"full": {"@0"}, "neighbor": {"@1"}, "gas": {"@2"}}
