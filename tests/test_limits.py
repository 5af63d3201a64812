"""Limits: a seed ends where its budget does, in the middle of an epoch too, and is evaluated evenly on the way."""

import pytest
import torch

import graphdyn as gd
from graphdyn.config import Config
from graphdyn.errors import InputError
from graphdyn.journal import read_table
from graphdyn.limits import Limits
from graphdyn.runner import run
from graphdyn.seed_state import SeedState

# 140 training nodes in batches of at most 30: five steps an epoch.
SAMPLED = {
    "dataset": "csbm", "hidden": 16, "norm": "batch", "sampler": "neighbor", "batch_size": 30,
    "fanouts": "4,3", "workers": 0,
}  # fmt: skip


def rows(folder):
    return read_table(folder).to_pylist()


def evaluated(folder):
    """Steps at which the validation nodes were scored."""
    return [r["step"] for r in rows(folder) if (r["name"], r["group"]) == ("accuracy", "valid")]


@pytest.fixture(scope="module")
def counted():
    """What each of the first 40 steps reads: edges and bytes, by counting what the sampler gives."""
    graph = gd.load("csbm")
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=16, norm="batch")
    plans = gd.Neighbor(fanouts=(4, 3), batch_size=30).prepare(graph, model.propagation, 2)
    batches = list(gd.Loader(plans, graph, key=gd.Key(0), epochs=8, workers=0))
    edges = [sum(b.adjacency.csc.indices.numel() for b in batch.blocks) for batch in batches]
    width = graph.x.shape[1] * 4
    return {
        "edges": torch.tensor(edges).cumsum(0).tolist(),
        "bytes": torch.tensor([b.x.shape[0] * width for b in batches]).cumsum(0).tolist(),
    }


@pytest.mark.parametrize("steps", [1, 13, 20])
def test_a_budget_of_steps_ends_at_that_step(tmp_path, steps):
    summary = run(Config(**SAMPLED, max_steps=steps, out=tmp_path))
    assert summary["steps"] == [steps]
    assert summary["epochs"] == [steps // 5]
    assert evaluated(tmp_path) == sorted({*range(5, steps + 1, 5), steps})
    last = [r for r in rows(tmp_path) if r["name"] == "loss" and r["group"] == "step"][-1]
    assert last["step"] == steps


@pytest.mark.parametrize("name", ["edges", "bytes"])
def test_a_budget_ends_with_the_step_that_uses_it_up(tmp_path, counted, name):
    used = counted[name]
    for case, (budget, last) in enumerate(
        [(used[12], 13), (used[12] + 1, 14), (used[12] - 1, 13), (1, 1)]
    ):
        folder = tmp_path / f"{case}"
        summary = run(Config(**SAMPLED, out=folder, **{f"max_{name}": budget}))
        assert summary["steps"] == [last], budget
        assert summary[name] == [used[last - 1]]
        assert evaluated(folder)[-1] == last
    table = [r[name] for r in rows(tmp_path / "0") if r["group"] == "step"]
    assert table == used[:13]


def test_the_first_budget_that_is_reached_ends_the_seed(tmp_path, counted):
    both = {"max_steps": 9, "max_edges": counted["edges"][6]}
    assert run(Config(**SAMPLED, **both, out=tmp_path / "a"))["steps"] == [7]
    both["max_edges"] = counted["edges"][30]
    assert run(Config(**SAMPLED, **both, out=tmp_path / "b"))["steps"] == [9]
    assert run(Config(**SAMPLED, **both, epochs=1, out=tmp_path / "c"))["steps"] == [5]


def test_a_budget_of_seconds_counts_training_alone(tmp_path, monkeypatch):
    from graphdyn import seed

    score = seed.Seed.scores

    def slow(self):
        import time

        time.sleep(0.05)
        return score(self)

    monkeypatch.setattr(seed.Seed, "scores", slow)
    summary = run(Config(**SAMPLED, max_seconds=0.15, out=tmp_path))
    losses = [r for r in rows(tmp_path) if r["group"] == "step"]
    assert losses[-1]["seconds"] >= 0.15 > losses[-2]["seconds"]
    # A clock that counted evaluation would have ended after three epochs.
    assert summary["seconds"]["evaluate"] > 0.05 * (summary["epochs"][0])


def test_without_a_budget_a_seed_has_two_hundred_epochs(tmp_path):
    assert Config().canonical()["epochs"] == 200
    assert Config().id == Config(epochs=200).id
    assert Config(max_steps=3).canonical()["epochs"] is None
    assert Config(max_steps=3, epochs=4).canonical()["epochs"] == 4
    assert Config.from_dict(Config().canonical()).id == Config().id


def even(budget, count):
    """The oracle: the first step that has used up k of ``count`` equal parts, for each k."""
    return sorted({min(s for s in range(1, budget + 1) if s * count >= budget * k) for k in range(1, count + 1)})  # fmt: skip


@pytest.mark.parametrize(("steps", "count"), [(20, 4), (20, 7), (13, 13), (13, 1), (6, 40)])
def test_evaluations_lie_evenly_along_a_budget_of_steps(tmp_path, steps, count):
    run(Config(**SAMPLED, max_steps=steps, evaluations=count, out=tmp_path))
    assert evaluated(tmp_path) == even(steps, count)
    assert len(evaluated(tmp_path)) == min(steps, count)


def test_evaluations_lie_evenly_along_epochs_without_a_budget(tmp_path):
    run(Config(**SAMPLED, epochs=4, evaluations=3, out=tmp_path))
    assert evaluated(tmp_path) == even(20, 3) == [7, 14, 20]


def test_evaluations_lie_evenly_along_edges(tmp_path, counted):
    budget = counted["edges"][24]
    run(Config(**SAMPLED, max_edges=budget, evaluations=6, out=tmp_path))
    expected = [
        min(s + 1 for s, used in enumerate(counted["edges"]) if 6 * used >= k * budget)
        for k in range(1, 7)
    ]
    assert evaluated(tmp_path) == expected


def test_patience_counts_evaluations(tmp_path):
    options = {**SAMPLED, "max_steps": 60, "evaluations": 30, "patience": 3, "lr": 1e-6}
    summary = run(Config(**options, out=tmp_path))
    best = evaluated(tmp_path).index(summary["best_step"][0])
    assert len(evaluated(tmp_path)) == best + 1 + 3
    assert summary["steps"][0] < 60


BUDGETS = [{"max_steps": 23}, {"max_edges": 30_000}, {"max_bytes": 10_000_000}]


@pytest.mark.parametrize("stop_at", [0, 4, 11])
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda b: next(iter(b)))
def test_a_run_under_a_budget_resumes_to_the_bit(tmp_path, monkeypatch, budget, stop_at):
    from graphdyn import seed

    options = {**SAMPLED, **budget, "evaluations": 5, "seeds": 2, "schedule": "CosineAnnealingLR"}
    options |= {"schedule_options": {"T_max": 5}}
    straight = run(Config(**options, out=tmp_path / "a"))
    assert straight["steps"][0] > 12
    with monkeypatch.context() as patch:
        original, calls = seed.Seed.step, []

        def dying(self, step):
            if len(calls) == stop_at:
                raise RuntimeError
            calls.append(1)
            original(self, step)

        patch.setattr(seed.Seed, "step", dying)
        with pytest.raises(RuntimeError):
            run(Config(**options, checkpoint_seconds=0.0, out=tmp_path / "b"))
    resumed = run(Config(**options, out=tmp_path / "b"))
    same = ("test", "validation", "best_step", "steps", "edges", "nodes", "bytes")
    assert {n: straight[n] for n in same} == {n: resumed[n] for n in same}
    a, b = (read_table(tmp_path / n).drop_columns(["seconds"]).to_pylist() for n in "ab")
    assert a == b


def test_progress_counts_steps_where_they_are_known():
    at = SeedState(0, step=7, edges=50)
    known = Limits.of(Config(epochs=4), 5)
    assert (known.total, known.done(at), known.epochs) == (20, 7, range(4))
    assert Limits.of(Config(max_steps=7), 5).epochs == range(2)
    unknown = Limits.of(Config(max_edges=200), 5)
    assert (unknown.total, unknown.done(at)) == (1000, 250)


def test_of_several_limits_the_nearest_says_when_to_evaluate():
    limits = Limits.of(Config(max_steps=10, max_edges=100, evaluations=10), 5)
    assert limits.marks(SeedState(0, step=7, edges=20)) == 7
    assert limits.marks(SeedState(0, step=2, edges=99)) == 9
    assert limits.due(SeedState(0, step=7, edges=20, marks=6))
    assert not limits.due(SeedState(0, step=7, edges=20, marks=7))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1, or absent."),
        ({"max_seconds": 0.0}, "max_seconds is 0.0; it must be positive and finite, or absent."),
        ({"evaluations": 3, "evaluate_every": 2}, "give one of them"),
    ],
)
def test_what_is_no_budget_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        Config(**values)
