"""Series of a run: means over seeds, later halves, and what theory said beside what was measured."""

import numpy as np
import pytest

import graphdyn as gd
from graphdyn.estimate import Estimate
from graphdyn.instruments import INSTRUMENTS
from graphdyn.journal import Clock, Event, Journal, Metric
from graphdyn.report.dynamics import PANELS, draw_dynamics, has_dynamics
from graphdyn.report.predictions import BAND, print_verdicts, verdicts
from graphdyn.report.series import read_measured


def journal(folder, rows, events=()):
    """Rows of (seed, step, name, group, value, se, pred)."""
    out = Journal(folder)
    for seed, step, *row in rows:
        out.add(Clock(seed, step, 0, 0.0, 0), Metric(*row))
    for step, *event in events:
        out.add(Clock(0, step, 0, 0.0, 0), Event(*event))
    out.compact()
    out.clear_parts()
    return read_measured(folder)


def test_a_series_is_the_mean_over_seeds_of_what_is_known(tmp_path):
    measured = journal(
        tmp_path,
        [
            (1, 20, "a.x", "all", 4.0, None, None),
            (0, 10, "a.x", "all", 1.0, 0.5, 2.0),
            (1, 10, "a.x", "all", 3.0, None, 4.0),
            (0, 10, "a.x", "layer 1", 9.0, None, None),
        ],
    )
    series = measured.one("a.x")
    assert series.step.tolist() == [10, 20]
    assert series.value.tolist() == [2.0, 4.0]
    assert series.pred[0] == 3.0
    assert np.isnan(series.pred[1])
    assert series.se[0] == 0.5
    assert measured.seeds == [0, 1]
    assert [s.group for s in measured.of("a.x")] == ["all", "layer 1"]
    assert measured.one("a.y") is None
    assert (series.instrument, series.what) == ("a", "x")


def test_events_are_told_once(tmp_path):
    event = (5, "fdt invalid", "why")
    measured = journal(tmp_path, [(0, 1, "loss", "step", 1.0)], [event, event])
    assert measured.events == [event]
    assert not has_dynamics(measured)


@pytest.mark.parametrize(("off", "agrees"), [(0.019, True), (0.021, False)])
def test_a_prediction_is_judged_by_its_band_over_the_second_half(tmp_path, off, agrees):
    band = INSTRUMENTS["effective_lr"].bands["norm"]
    assert band == 0.02
    early = [(0, s, "effective_lr.norm", "w", 50.0, None, 1.0) for s in range(10)]
    late = [(0, s, "effective_lr.norm", "w", 3 * (1 + off), None, 3.0) for s in range(10, 21)]
    (verdict,) = verdicts(journal(tmp_path, early + late))
    assert verdict.agrees is agrees
    assert verdict.deviation == pytest.approx(off)
    assert verdict.band == band
    assert verdict.pred == 3.0


def test_of_a_prediction_of_zero_the_difference_counts(tmp_path):
    rows = [(0, s, "mine.x", "all", 0.04, None, 0.0) for s in range(4)]
    (verdict,) = verdicts(journal(tmp_path, rows))
    assert verdict.deviation == pytest.approx(0.04)
    assert verdict.band == BAND


def test_without_a_prediction_in_the_second_half_there_is_no_verdict(tmp_path):
    rows = [(0, 0, "mine.x", "all", 1.0, None, 1.0), (0, 9, "mine.x", "all", 1.0, None, None)]
    assert verdicts(journal(tmp_path, rows)) == []


def test_the_table_says_agrees_deviates_and_why_not(tmp_path, capsys):
    rows = [(0, 1, "fdt.ratio", "all", 7.0, None, 1.0), (0, 1, "mine.x", "a", 1.0, None, 1.0)]
    print_verdicts(journal(tmp_path, rows, [(3, "units invalid", "no layers.")]))
    told = capsys.readouterr().out
    lines = {line.split()[1]: line for line in told.splitlines() if "│" in line}
    assert "deviates" in lines["fdt.ratio"]
    assert "600.0%" in lines["fdt.ratio"]
    assert "agrees" in lines["mine.x"]
    assert "step 3: units invalid: no layers." in told


class Scripted(gd.Instrument):
    """Says what it is told to."""

    every = gd.Every(1)

    def measure(self, s):
        return {"x": Estimate(s.step, 0.1, 4, s.step + 1.0)}


def test_what_a_recorder_writes_a_report_reads(tmp_path):
    import torch

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gd.Recorder(model, optimizer, [Scripted()], to=tmp_path / "r"):
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    series = read_measured(tmp_path / "r").one("scripted.x")
    assert series.value.tolist() == [0, 1, 2, 3]
    assert series.pred.tolist() == [1, 2, 3, 4]
    assert series.se.tolist() == [0.1] * 4


NAMES = (
    ("loss", "step"),
    ("effective_lr.effective_lr", "w"),
    ("sampler_mse.mse", "all"),
    ("noise_scale.noise_scale", "all"),
    ("angular_update.rms", "w"),
    ("fdt.ratio", "all"),
    ("update_ratio.ratio", "convs.0"),
    ("smoothness.rw", "layer 1"),
    ("units.dead", "layer 1"),
    ("embedding_error.error", "layer 1"),
)


def test_every_panel_has_its_quantity(tmp_path):
    """Each panel is drawn for one of these names, and for none of the others."""
    for name, group in NAMES:
        measured = journal(tmp_path / name, [(0, s, name, group, 1.0 + s) for s in range(3)])
        drawn = [panel for panel in PANELS if panel(None, measured)]
        assert len(drawn) == 1, name
    assert len(PANELS) == 10


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), 1e-300])
def test_the_picture_bears_any_number(tmp_path, value):
    rows = [(0, s, *key, v, 0.1, 2.0) for key in NAMES for s, v in ((1, 1.0), (2, value))]
    path = draw_dynamics(journal(tmp_path, rows), "title", tmp_path / "p.png")
    assert path.stat().st_size > 20_000


def test_many_groups_are_told_not_drawn(tmp_path):
    rows = [(0, s, "update_ratio.ratio", f"layer {k}", float(k)) for k in range(9) for s in (1, 2)]
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    panel = next(p for p in PANELS if p(None, measured := journal(tmp_path, rows)))
    panel(axes, measured)
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == [f"layer {k}" for k in range(3, 9)]
    assert axes.get_legend().get_title().get_text() == "and 3 more"
