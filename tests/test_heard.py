"""Heard: losses are kept until all who want them have read them, and written when they are many or old."""

from types import SimpleNamespace

import pytest
import torch

from graphdyn import heard as module
from graphdyn.errors import InputError
from graphdyn.heard import Heard, scalar
from graphdyn.instruments import Need
from graphdyn.journal import Clock, Metric
from graphdyn.sinks import Sink


def reader(seen=-1, *, reads=True):
    needs = Need.LOSSES if reads else Need.NOTHING
    return SimpleNamespace(instrument=SimpleNamespace(needs=needs), reads_losses=reads, seen=seen)


def test_losses_become_rows_in_order():
    sink = Sink()
    one = Heard([], sink, 0.0)
    one.write_later((3, 1, 0.5), torch.tensor(2.0))
    one.write_later(Clock(7, 4, 1, 0.75, 90), torch.tensor(1.0))
    assert sink.waiting == 0
    one.write()
    one.write()  # once
    sink.flush(wait=True)
    assert sink.rows == [
        (Clock(0, 3, 1, 0.5, 0), Metric("loss", "step", 2.0)),
        (Clock(7, 4, 1, 0.75, 90), Metric("loss", "step", 1.0)),
    ]


def test_they_are_written_when_they_are_old(monkeypatch):
    monkeypatch.setattr(module, "FLUSH_SECONDS", 10.0)
    sink = Sink()
    one = Heard([], sink, 100.0)
    one.write_later((1, 0, 0.0), torch.tensor(2.0))
    one.flush(110.0)
    assert (sink.waiting, sink.rows) == (0, [])
    one.flush(110.1)
    sink.flush(wait=True)
    assert len(sink.rows) == 1
    one.write_later((2, 0, 0.0), torch.tensor(2.0))
    one.flush(120.1)  # counted from the last time
    sink.flush(wait=True)
    assert len(sink.rows) == 1


def test_they_are_written_when_they_are_many(monkeypatch):
    monkeypatch.setattr(module, "FLUSH_ROWS", 3)
    sink = Sink()
    one = Heard([], sink, 0.0)
    sink.put(Clock(0, 0, 0, 0.0, 0), Metric("x", "all", 1.0))
    one.write_later((1, 0, 0.0), torch.tensor(2.0))
    one.flush(0.0)
    assert (sink.waiting, sink.rows) == (1, [])
    one.write_later((2, 0, 0.0), torch.tensor(2.0))
    one.flush(0.0)
    sink.flush(wait=True)
    assert [row.name for _, row in sink.rows] == ["x", "loss", "loss"]


def test_what_all_have_read_is_forgotten():
    quick, slow = reader(seen=4), reader(seen=1)
    one = Heard([quick, slow, reader(reads=False)], Sink(), 0.0)
    for step in range(6):
        one.note(step, torch.tensor(float(step)))
    one.trim()
    assert [step for step, _ in one.losses] == [2, 3, 4, 5]
    slow.reads_losses = False
    one.trim()
    assert [step for step, _ in one.losses] == [5]
    quick.reads_losses = False
    one.trim()
    one.note(6, torch.tensor(6.0))
    assert one.losses == []


def test_nothing_is_kept_that_nobody_wants():
    one = Heard([reader(reads=False)], Sink(), 0.0)
    one.note(0, torch.tensor(1.0))
    assert one.losses == []


def test_a_loss_is_one_number_of_its_own():
    loss = torch.ones(1, requires_grad=True)
    kept = scalar(loss)
    with torch.no_grad():
        loss += 1
    assert kept.tolist() == [1.0]
    assert not kept.requires_grad
    assert float(scalar(0.5)) == 0.5
    with pytest.raises(InputError, match=r"loss of shape \(2,\); give the number"):
        scalar(torch.ones(2))


def test_a_state_is_what_is_left_to_read():
    sink = Sink()
    one = Heard([reader()], sink, 0.0)
    one.note(3, torch.tensor(0.5))
    one.scores["valid"] = 0.7
    one.write_later((1, 0, 0.0), torch.tensor(2.0))
    again = Heard([reader()], Sink(), 0.0)
    again.restore(one.state())
    assert (again.losses, again.scores) == ([(3, torch.tensor(0.5))], {"valid": 0.7})
    assert sink.waiting == 1  # rows are the sink's by now
