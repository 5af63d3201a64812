"""Sinks: every number where it belongs, plain, whatever it was; and W&B never back in time."""

import math

import pytest
import torch

from graphdyn.errors import RecordError
from graphdyn.journal import Clock, Event, Line, Metric, read_table
from graphdyn.sinks import FolderSink, Sink, Tee, TensorBoardSink, WandbSink


def at(step):
    return Clock(0, step, 0, 0.5, 7)


ROWS = [
    (at(1), Metric("loss", "step", torch.tensor(0.5))),
    (at(1), Metric("noise.trace", "all", torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.25), 3.0, 8, 1)),
    (at(1), Metric("noise.trace", "convs.0", 1.5, float("nan"), torch.tensor(float("nan")))),
    (at(2), Line("spectrum", "all", [0, 1], torch.tensor([3.0, 4.0]))),
    (at(2), Line("spectrum", "b", torch.arange(2), [5, 6])),
    (at(3), Event("milestone", "it fell")),
    (at(3), Metric("loss", "step", 3)),
]  # fmt: skip
PLAIN = [
    (at(1), Metric("loss", "step", 0.5)),
    (at(1), Metric("noise.trace", "all", 2.0, 0.25, 3.0, 8, 1)),
    (at(1), Metric("noise.trace", "convs.0", 1.5, None, None)),
    (at(2), Line("spectrum", "all", [0.0, 1.0], [3.0, 4.0])),
    (at(2), Line("spectrum", "b", [0.0, 1.0], [5.0, 6.0])),
    (at(3), Event("milestone", "it fell")),
    (at(3), Metric("loss", "step", 3)),
]


def filled(sink):
    sink.open()
    for clock, row in ROWS:
        sink.put(clock, row)
    return sink


def test_values_become_plain_numbers():
    sink = filled(Sink())
    assert (sink.waiting, sink.rows) == (len(ROWS), [])
    sink.flush(wait=True)
    assert sink.rows == PLAIN
    assert all(type(r.value) in (float, int) for _, r in sink.rows if isinstance(r, Metric))
    assert sink.waiting == 0


def test_a_value_that_is_not_a_number_stays():
    sink = Sink()
    sink.put(at(0), Metric("x", "all", torch.tensor(float("nan"))))
    sink.put(at(0), Metric("y", "all", float("inf"), torch.tensor(float("inf"))))
    sink.flush(wait=True)
    assert math.isnan(sink.rows[0][1].value)
    assert sink.rows[1][1][2:4] == (math.inf, math.inf)


def test_rows_are_copies():
    sink, value = Sink(), torch.ones(2, requires_grad=True)
    sink.put(at(0), Metric("x", "all", value[0]))
    sink.put(at(0), Line("y", "all", [0, 1], value))
    with torch.no_grad():
        value += 5
    sink.flush(wait=True)
    assert sink.rows[0][1].value == 1
    assert sink.rows[1][1].y == [1, 1]


def test_rows_keep_their_order_over_flushes():
    sink = Sink()
    for i in range(7):
        sink.put(at(i), Metric("x", "all", torch.tensor(float(i)) if i % 2 else float(i)))
        if i % 3 == 0:
            sink.flush()
    sink.close()
    assert [row.value for _, row in sink.rows] == [0, 1, 2, 3, 4, 5, 6]


def test_tee_gives_every_row_to_all(tmp_path):
    one, other = Sink(), FolderSink(tmp_path / "run")
    tee = filled(Tee(one, other))
    state = tee.state()  # what a checkpoint counts is written
    assert one.rows == PLAIN
    assert read_table(tmp_path / "run").num_rows == 4
    assert state == {"0": {}, "1": {"parts": 1}}
    tee.put(at(4), Metric("late", "all", 1.0))
    tee.close(finished=False)
    assert read_table(tmp_path / "run").num_rows == 5
    again = Tee(Sink(), FolderSink(tmp_path / "run"))
    again.restore(state)
    again.open()
    again.close()
    assert read_table(tmp_path / "run").column("name").to_pylist().count("late") == 0


def test_tee_describes_to_all(tmp_path):
    class Told(Sink):
        def describe(self, document):
            self.document = document

    one, other = Told(), Told()
    Tee(one, other).describe({"model": "GCN"})
    assert one.document == other.document == {"model": "GCN"}


def test_closing_twice_is_closing_once(tmp_path):
    sink = filled(FolderSink(tmp_path / "run"))
    sink.close()
    sink.put(at(9), Metric("late", "all", 1.0))
    sink.close()
    assert "late" not in read_table(tmp_path / "run").column("name").to_pylist()


def test_a_tee_refuses_where_one_of_them_does(tmp_path):
    filled(FolderSink(tmp_path / "run")).close()
    with pytest.raises(RecordError, match="what another run has measured"):
        Tee(Sink(), FolderSink(tmp_path / "run")).open()


@pytest.mark.parametrize("kind", [Metric, Line, Event])
def test_a_folder_with_rows_of_any_kind_is_another_runs(tmp_path, kind):
    sink = FolderSink(tmp_path / "run")
    sink.open()
    for clock, row in ROWS:
        if isinstance(row, kind):
            sink.put(clock, row)
    sink.close(finished=False)
    with pytest.raises(RecordError, match="what another run has measured"):
        FolderSink(tmp_path / "run").open()


def test_an_empty_folder_is_nobodys(tmp_path):
    sink = FolderSink(tmp_path / "run")
    sink.open()
    sink.close(finished=False)
    filled(FolderSink(tmp_path / "run")).close()
    assert read_table(tmp_path / "run").num_rows == 4
    assert read_table(tmp_path / "run", "curves").num_rows == 2
    assert not (tmp_path / "run" / "metrics").exists()


def test_tensorboard_reads_back_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    filled(TensorBoardSink(tmp_path)).close()
    events = EventAccumulator(str(tmp_path)).Reload()
    found = {
        name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]
    }
    assert found == {
        "loss/step": [(1, 0.5), (3, 3.0)],
        "noise.trace/all": [(1, 2.0)],
        "noise.trace/convs.0": [(1, 1.5)],
    }


class Wandb:
    """What W&B does with what it is told: without a step of its own it counts calls."""

    def __init__(self):
        self.metrics, self.logged = {}, []

    def define_metric(self, name, step_metric=None):
        self.metrics[name] = step_metric

    def log(self, values, step=None):
        assert step is None, "a step that is given cannot go back"
        self.logged.append(values)


def test_wandb_has_a_step_of_its_own():
    run = Wandb()
    sink = filled(WandbSink(run))
    sink.flush(wait=True)
    sink.put(at(2), Metric("late", "all", 1.0))  # of a step that is over
    sink.close()
    assert run.metrics == {"graphdyn/step": None, "graphdyn/*": "graphdyn/step"}
    assert run.logged == [
        {
            "graphdyn/step": 1,
            "graphdyn/loss/step": 0.5,
            "graphdyn/noise.trace/all": 2.0,
            "graphdyn/noise.trace/convs.0": 1.5,
        },
        {"graphdyn/step": 3, "graphdyn/loss/step": 3},
        {"graphdyn/step": 2, "graphdyn/late/all": 1.0},
    ]
