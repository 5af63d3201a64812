"""TensorBoard's own reader finds every number of a run once, whoever was killed in between."""

import shutil

import pytest

from graphdyn.boards import Boards
from graphdyn.cli import main
from graphdyn.config import Config
from graphdyn.errors import InputError
from graphdyn.grid import Study
from graphdyn.journal import Clock, Event, Metric, read_table
from graphdyn.runner import run
from graphdyn.seed import Seed
from graphdyn.work import Trainer, unit_of

SMALL = {
    "dataset": "csbm",
    "hidden": 8,
    "epochs": 6,
    "seeds": 2,
    "threads": 1,
    "checkpoint_seconds": 0.0,
}
ASKED = {"sinks": "tensorboard", "instruments": "update_ratio", "measure_every": 2}


@pytest.fixture(autouse=True)
def _tensorboard():
    pytest.importorskip(
        "tensorboard", reason="pip install 'graphdyn[tensorboard]' to run this test"
    )


def board(folder):
    """(name, step) and value of all scalars of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    names = events.Tags()["scalars"]
    return sorted((name, e.step, e.value) for name in names for e in events.Scalars(name))


def recorded(folder, seed):
    """The same, of the journal, in single precision."""
    import numpy as np

    rows = read_table(folder).to_pylist()
    return sorted(
        (f"{r['name']}/{r['group']}", r["step"], float(np.float32(r["value"])))
        for r in rows
        if r["seed"] == seed
    )


def assert_same(folder, seeds=(0, 1)):
    for seed in seeds:
        found = recorded(folder, seed)
        assert len(found) > 40
        assert board(folder / "tensorboard" / f"seed-{seed}") == found


def test_train_writes_every_number_where_it_is_asked_to(tmp_path):
    words = [
        "--dataset",
        "csbm",
        "--hidden",
        "8",
        "--epochs",
        "6",
        "--seeds",
        "2",
        "--threads",
        "1",
    ]
    asked = ["--sinks", "tensorboard", "--instruments", "update_ratio", "--measure-every", "2"]
    assert main(["train", *words, *asked, "--out", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "run")
    assert any(name.startswith("update_ratio") for name, *_ in recorded(tmp_path / "run", 0))
    without = run(Config(**SMALL, out=tmp_path / "without"))
    assert not (tmp_path / "without" / "tensorboard").exists()
    summary = run(Config(**{**SMALL, **ASKED}, out=tmp_path / "run"))  # done: answers at once
    assert summary["test"]["values"] == without["test"]["values"]


@pytest.mark.parametrize("counted", [0, 3, 8])
def test_what_died_after_a_checkpoint_is_not_told_twice(tmp_path, monkeypatch, counted):
    """Every step is saved; then the last checkpoints are lost, as if nobody had come to write them."""
    config = Config(**SMALL, **ASKED, out=tmp_path / "run")
    checkpoint, kept = config.folder / "checkpoint.safetensors", tmp_path / "kept"
    steps, step = [], Seed.step

    def dying(self, taken):
        step(self, taken)
        steps.append(taken)
        if counted and len(steps) == counted + 1:
            shutil.copy(checkpoint, kept)
        if len(steps) == counted + 4:
            raise RuntimeError("killed")

    monkeypatch.setattr(Seed, "step", dying)
    with pytest.raises(RuntimeError, match="killed"):
        run(config)
    monkeypatch.undo()
    checkpoint.unlink()
    if counted:
        shutil.copy(kept, checkpoint)
    run(config)
    assert_same(config.folder)


def rows(boards, *steps, value=1.0):
    for step in steps:
        boards.add(Clock(0, step, 0, 0.0, 0), Metric("x", "all", value))
    boards.add(Clock(0, steps[-1], 0, 0.0, 0), Event("mark", "here"))


@pytest.mark.parametrize(("known", "expected"), [(4, [1, 2, 3, 4, 5]), (None, [5])])
def test_steps_after_the_checkpoint_are_dropped(tmp_path, known, expected):
    first = Boards(tmp_path)
    rows(first, 1, 2, 3, 4, 5, 6, 7)
    first.save()
    again = Boards(tmp_path)
    if known is not None:
        again.resume(0, known)
    rows(again, 5, value=2.0)
    again.close()
    found = board(tmp_path / "tensorboard" / "seed-0")
    assert [step for _, step, _ in found] == expected
    assert found[-1][2] == 2.0
    first.close()


def test_in_a_study(tmp_path):
    base = {"dataset": "csbm", "hidden": 8, "sinks": "tensorboard"}
    cell = Study(base=base, budget={"steps": 8}, grid={"model": ["gcn"]}).expand()[0]
    unit = unit_of(cell.name, cell.slug, cell.config, 3, tmp_path)
    Trainer()(unit)
    assert_same(tmp_path / "cells" / cell.slug / "seed-3", seeds=(3,))


def test_what_cannot_be_written_to_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="unknown sink 'tensorbord'; did you mean tensorboard"):
        run(Config(**SMALL, sinks="tensorbord", out=tmp_path / "run"))
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="tensorboard is not installed; pip install"):
        run(Config(**SMALL, sinks="tensorboard", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
