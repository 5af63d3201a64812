"""A run: recorded, selected on validation, resumed to the bit however it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from graphdyn.config import Config
from graphdyn.errors import GraphdynError, InputError, RecordError
from graphdyn.journal import read_table
from graphdyn.runner import run, spread
from graphdyn.samplers import SAMPLERS
from graphdyn.samplers.inclusion import with_node_prob
from graphdyn.seed_state import Selection

# 140 training nodes in batches of at most 30: five steps an epoch.
SAMPLED = {"sampler": "neighbor", "batch_size": 30, "fanouts": "4,3", "epochs": 4}
SMALL = {"dataset": "csbm", "hidden": 16, "layers": 2, "epochs": 12, "seeds": 2, "norm": "batch"}
ADAM = {"optimizer": "adam", "schedule": "CosineAnnealingLR", "schedule_options": {"T_max": 12}}


def config(tmp_path, name="run", **changes):
    return Config(**{**SMALL, "out": tmp_path / name, **changes})


def table(folder):
    """The metrics without the clock, which no two runs share."""
    return read_table(folder).drop_columns(["seconds"]).to_pylist()


def weights(folder):
    return [load_file(path) for path in sorted((folder / "weights").iterdir())]


def assert_same_run(a, b):
    assert table(a) == table(b)
    for one, other in zip(weights(a), weights(b), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k], other[k]) for k in one)
    first, second = (json.loads((f / "summary.json").read_text()) for f in (a, b))
    for key in ("test", "validation", "best_step", "epochs", "bytes", "seeds", "split"):
        assert first[key] == second[key]


def test_the_run_folder_is_complete(tmp_path):
    summary = run(config(tmp_path))

    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        ".lock", "checkpoint.safetensors", "config.json", "metrics.parquet", "summary.json", "weights",
    ]  # fmt: skip
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["seeds"] == [0, 1]
    assert summary["split"] == ["random-20x500x1000-seed0"]
    assert summary["test"]["n"] == 2
    assert summary["test"]["mean"] == pytest.approx(sum(summary["test"]["values"]) / 2)
    seconds = summary["seconds"]
    assert set(seconds) == {
        "precompute", "sample", "gather", "transfer", "wait", "compute", "memory", "instruments",
        "evaluate",
        "total",
    }  # fmt: skip
    own = ("precompute", "wait", "compute", "memory", "instruments", "evaluate")
    assert sum(seconds[name] for name in own) <= seconds["total"]


def test_the_reported_epoch_is_the_first_with_the_best_validation_value(tmp_path):
    summary = run(config(tmp_path, seeds=1, epochs=30))
    rows = table(tmp_path / "run")
    valid = {
        r["epoch"]: r["value"] for r in rows if (r["name"], r["group"]) == ("accuracy", "valid")
    }
    test = {r["epoch"]: r["value"] for r in rows if (r["name"], r["group"]) == ("accuracy", "test")}

    best = max(valid.values())
    expected = min(epoch for epoch, value in valid.items() if value == best)

    assert summary["best_epoch"] == [expected]
    assert summary["test"]["values"] == [test[expected]]
    assert summary["validation"]["values"] == [best]


def test_the_weights_kept_are_those_of_the_reported_epoch(tmp_path):
    import graphdyn as gd

    summary = run(config(tmp_path, seeds=1, epochs=30))
    graph = gd.load("csbm")
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=16, norm="batch", dropout=0.5)
    model.load_state_dict(weights(tmp_path / "run")[0])
    scores = gd.evaluate(model, graph, gd.full_batch(graph, model.propagation))
    assert scores.metric["test"] == summary["test"]["values"][0]


def test_selection_by_loss_and_patience(tmp_path):
    summary = run(config(tmp_path, seeds=1, epochs=200, select="loss", patience=5, lr=0.05))
    rows = table(tmp_path / "run")
    losses = [r["value"] for r in rows if (r["name"], r["group"]) == ("loss", "valid")]

    best = min(range(len(losses)), key=losses.__getitem__) + 1

    assert summary["best_epoch"] == [best]
    assert summary["epochs"] == [best + 5]
    assert len(losses) == best + 5


def test_selection_keeps_the_first_of_equals():
    class Scores:
        metric = {"valid": 0.5}

    selection = Selection()
    assert selection.offer(1, 5, 0.5, Scores)
    assert not selection.offer(2, 10, 0.5, Scores)
    assert (selection.epoch, selection.step, selection.waited) == (1, 5, 1)
    assert not selection.offer(3, 15, float("nan"), Scores)


def test_seeds_differ_and_the_same_seed_does_not(tmp_path):
    run(config(tmp_path, "a"))
    run(config(tmp_path, "b"))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    first, second = weights(tmp_path / "a")
    assert not torch.equal(first["convs.0.lin.weight"], second["convs.0.lin.weight"])


def test_a_later_seed_alone_equals_that_seed_among_others(tmp_path):
    together = run(config(tmp_path, "a", seeds=3))
    alone = run(config(tmp_path, "b", seeds=1, first_seed=2))
    assert alone["test"]["values"] == together["test"]["values"][2:]


def test_the_global_generator_is_neither_read_nor_seeded(tmp_path):
    before = torch.get_rng_state()
    run(config(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


def test_a_split_family_takes_another_member_each_seed(tmp_path):
    summary = run(config(tmp_path, split="random-0.5-0.25-0.25", epochs=2))
    assert summary["split"] == ["random-0.5-0.25-0.25-seed0", "random-0.5-0.25-0.25-seed1"]


def test_a_finished_run_answers_at_once(tmp_path):
    first = run(config(tmp_path))
    stamp = (tmp_path / "run" / "metrics.parquet").stat().st_mtime_ns
    assert run(config(tmp_path)) == first
    assert (tmp_path / "run" / "metrics.parquet").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "optimizer", [{}, ADAM, {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}}]
)
@pytest.mark.parametrize("stop_at", [1, 7, 12, 15])
def test_a_run_stopped_between_any_two_epochs_ends_in_the_same_bits(
    tmp_path, monkeypatch, stop_at, optimizer
):
    run(config(tmp_path, "straight", **optimizer))

    from graphdyn import seed

    class Died(Exception):
        pass

    with monkeypatch.context() as patch:
        original, calls = seed.Seed.step, []

        def dying(self, step):
            if len(calls) == stop_at:
                raise Died
            calls.append(1)
            original(self, step)

        patch.setattr(seed.Seed, "step", dying)
        with pytest.raises(Died):
            run(config(tmp_path, "broken", checkpoint_seconds=0.0, **optimizer))

    run(config(tmp_path, "broken", **optimizer))

    assert_same_run(tmp_path / "straight", tmp_path / "broken")


def test_the_best_weights_survive_a_stop_after_the_best_epoch(tmp_path, monkeypatch):
    options = {"epochs": 40, "lr": 0.1, "seeds": 1}
    best = run(config(tmp_path, "straight", **options))["best_epoch"][0]
    assert best < 35

    from graphdyn import seed

    original = seed.Seed.step

    def dying(self, step):
        if self.at.epoch == 38:
            raise RuntimeError
        original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(seed.Seed, "step", dying)
        with pytest.raises(RuntimeError):
            run(config(tmp_path, "broken", checkpoint_seconds=0.0, **options))
    run(config(tmp_path, "broken", **options))

    assert_same_run(tmp_path / "straight", tmp_path / "broken")


@pytest.mark.parametrize("stops", [[3], [3, 8], [3, 3]])
def test_where_a_run_went_on_is_an_event(tmp_path, monkeypatch, stops):
    """Of two attempts from one checkpoint the second alone counts."""
    from graphdyn import seed

    original, options = seed.Seed.step, {"seeds": 1, "checkpoint_seconds": 0.0}
    for stop in stops:

        def dying(self, step, stop=stop):
            if self.at.step == stop:
                raise RuntimeError
            original(self, step)

        with monkeypatch.context() as patch:
            patch.setattr(seed.Seed, "step", dying)
            with pytest.raises(RuntimeError):
                run(config(tmp_path, **options))
    run(config(tmp_path, **options))
    events = read_table(tmp_path / "run", "events").to_pylist()
    assert [(e["name"], e["step"], e["seed"]) for e in events] == [
        ("resumed", stop, 0) for stop in sorted(set(stops))
    ]


def test_a_run_is_the_loop_under_the_key_of_its_seed(tmp_path):
    import graphdyn as gd

    run(config(tmp_path, seeds=1, first_seed=3, epochs=4, weight_decay=0.0))
    rows = table(tmp_path / "run")

    graph = gd.load("csbm")
    model = gd.GCN(
        graph.num_features, graph.num_classes, hidden=16, norm="batch", dropout=0.5, seed=3
    )
    batch = gd.full_batch(graph, model.propagation, key=gd.Key(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = [s.loss.item() for s in gd.train(model, gd.full_batches(batch, range(4)), optimizer)]

    assert [r["value"] for r in rows if r["group"] == "step"] == losses
    per_epoch = 2 * graph.adjacency(model.propagation).csc.num_edges
    assert sorted({r["edges"] for r in rows}) == [per_epoch * (i + 1) for i in range(4)]


COMMAND = [
    sys.executable, "-m", "graphdyn", "train", "--dataset", "csbm", "--hidden", "16", "--epochs", "60",
    "--seeds", "2", "--norm", "batch", "--threads", "1", "--checkpoint-seconds", "0",
]  # fmt: skip


def started(folder, epochs, *flags):
    """A running command that has written so many checkpoints."""
    command = [*COMMAND, *flags, "--out", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(list(folder.glob("metrics/*.arrow"))) >= epochs:
            return process
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    raise AssertionError("the run did not get under way")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    subprocess.run([*COMMAND, "--out", str(folder)], check=True, capture_output=True)
    return folder


def test_killed_with_nine_and_started_again_ends_in_the_same_bits(tmp_path, straight):
    folder = tmp_path / "run"
    for epochs in (5, 70):
        process = started(folder, epochs)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    subprocess.run([*COMMAND, "--out", str(folder)], check=True, capture_output=True)
    assert_same_run(straight, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_resumable_run_and_says_so(tmp_path, straight, number):
    folder = tmp_path / "run"
    process = started(folder, 10)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "goes on from there" in errors
    assert "Traceback" not in errors
    subprocess.run([*COMMAND, "--out", str(folder)], check=True, capture_output=True)
    assert_same_run(straight, folder)


PLATEAU = {"schedule": "ReduceLROnPlateau", "schedule_options": {"patience": 0}, "lr": 0.1}
STOPPED = {**SAMPLED, **PLATEAU, "evaluate_every": 3}


@pytest.fixture(scope="module", params=["batch", "weighted-batch"])
def sampled(request, tmp_path_factory):
    """A sampled run that never stopped."""
    folder = tmp_path_factory.mktemp("sampled")
    run(config(folder, norm=request.param, **STOPPED))
    return folder / "run"


@pytest.mark.parametrize("stop_at", [0, 3, 5, 22])
def test_a_sampled_run_stopped_between_any_two_steps_ends_in_the_same_bits(
    tmp_path, monkeypatch, sampled, stop_at
):
    from graphdyn import seed

    norm = json.loads((sampled / "config.json").read_text())["norm"]
    with monkeypatch.context() as patch:
        original, calls = seed.Seed.step, []

        def dying(self, step):
            if len(calls) == stop_at:
                raise RuntimeError
            calls.append(1)
            original(self, step)

        patch.setattr(seed.Seed, "step", dying)
        with pytest.raises(RuntimeError):
            run(config(tmp_path, norm=norm, checkpoint_seconds=0.0, **STOPPED))

    run(config(tmp_path, norm=norm, workers=0, **STOPPED))

    assert_same_run(sampled, tmp_path / "run")


@pytest.mark.parametrize("changes", [{"workers": 0}, {"workers": 4, "prefetch": 1}])
def test_workers_and_prefetch_change_no_bit_of_a_run(tmp_path, changes):
    run(config(tmp_path, "a", **SAMPLED))
    run(config(tmp_path, "b", **SAMPLED, **changes))
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_a_sampled_run_interrupted_then_killed_ends_in_the_same_bits(tmp_path):
    flags = ["--sampler", "neighbor", "--batch-size", "30", "--fanouts", "4,3", "--epochs", "12"]
    folder = tmp_path / "broken"

    process = started(folder, 8, *flags)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "step" in errors

    process = started(folder, 40, *flags)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()

    options = {**SAMPLED, "epochs": 12, "threads": 1}
    run(config(tmp_path, "broken", **options))
    run(config(tmp_path, "straight", **options))
    assert_same_run(tmp_path / "straight", folder)


@pytest.mark.parametrize("norm", ["batch", "weighted-batch"])
def test_a_sampled_run_is_the_loop_under_the_key_of_its_seed(tmp_path, norm):
    import graphdyn as gd

    options = {**SAMPLED, "seeds": 1, "first_seed": 3, "weight_decay": 0.0, "norm": norm}
    summary = run(config(tmp_path, **options))
    rows = table(tmp_path / "run")

    graph = gd.load("csbm")
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=16, norm=norm, dropout=0.5, seed=3)
    plans = gd.Neighbor(fanouts=(4, 3), batch_size=30).prepare(graph, model.propagation, 2)
    if norm == "weighted-batch":
        plans = with_node_prob(plans, graph.num_nodes, key=gd.Key(3).fold("node_prob"))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = gd.Loader(plans, graph, key=gd.Key(3), epochs=4)
    steps = list(gd.train(model, loader, optimizer))

    losses = [r for r in rows if r["group"] == "step"]
    assert [r["value"] for r in losses] == [s.loss.item() for s in steps]
    assert [r["step"] for r in losses] == list(range(1, 21))
    assert [r["epoch"] for r in losses] == [step // 5 for step in range(1, 21)]
    edges = torch.tensor([s.batch.num_edges for s in steps]).cumsum(0)
    assert [r["edges"] for r in losses] == edges.tolist()
    assert len([r for r in rows if r["name"] == "lr"]) == 4
    assert summary["steps"] == [20]
    assert summary["edges"] == [int(edges[-1])]
    assert summary["nodes"] == [sum(s.batch.x.shape[0] for s in steps)] == [loader.nodes]


def test_a_plateau_reads_the_mean_loss_of_an_epoch_that_is_not_evaluated(tmp_path):
    """Also where the run stopped in the middle of an epoch."""
    options = {**SAMPLED, "epochs": 6, "seeds": 1, "lr": 0.5, "evaluate_every": 100}
    options |= {"schedule": "ReduceLROnPlateau", "schedule_options": {"patience": 0}}
    run(config(tmp_path, **options))
    rows = table(tmp_path / "run")

    losses = [r["value"] for r in rows if r["group"] == "step"]
    rates = [r["value"] for r in rows if r["name"] == "lr"]
    expected, best = [0.5], float("inf")
    for epoch in range(5):
        mean = sum(losses[5 * epoch : 5 * epoch + 5]) / 5
        worse = mean >= best * (1 - 1e-4)
        best = best if worse else mean
        expected.append(expected[-1] * (0.1 if worse else 1.0))
    assert rates == pytest.approx(expected)
    assert rates[0] > rates[-1]


def test_the_summary_says_which_sampler_and_where_the_time_went(tmp_path):
    summary = run(config(tmp_path, **SAMPLED))
    assert summary["sampler"] == "neighbor"
    assert summary["sampler_options"]["fanouts"] == [4, 3]
    assert summary["sampler_options"]["batch_size"] == 30
    seconds = summary["seconds"]
    assert min(seconds[name] for name in ("sample", "gather", "wait", "compute", "evaluate")) > 0
    assert seconds["total"] >= sum(
        seconds[n] for n in ("precompute", "wait", "compute", "evaluate")
    )
    assert run(config(tmp_path, "full"))["sampler_options"] == {"inductive": False}


@pytest.mark.parametrize("chunk", [None, 100])
def test_after_sampled_training_batch_norm_uses_the_population(tmp_path, chunk):
    import graphdyn as gd

    options = {**SAMPLED, "seeds": 1, "epochs": 3}
    summary = run(config(tmp_path, "auto", **options, evaluate_chunk=chunk))
    same = run(config(tmp_path, "population", **options, statistics="population"))
    running = run(config(tmp_path, "running", **options, statistics="running"))
    assert summary["test"]["values"] == same["test"]["values"] != running["test"]["values"]

    graph = gd.load("csbm")
    for name, told in (("auto", summary), ("running", running)):
        model = gd.GCN(graph.num_features, graph.num_classes, hidden=16, norm="batch")
        model.load_state_dict(weights(tmp_path / name)[0])  # what is kept needs no statistics again
        assert gd.evaluate(model, graph).metric["test"] == told["test"]["values"][0]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "full"])
def test_every_sampler_trains_from_its_name_alone(tmp_path, sampler):
    """With its own batch size, cut to the training nodes that there are."""
    summary = run(config(tmp_path, sampler=sampler, epochs=2, seeds=1, norm="none"))
    assert summary["sampler"] == sampler
    most = 2708 if sampler == "node" else 140  # it draws from all nodes
    assert summary["sampler_options"].get("batch_size", 1) <= most
    assert summary["test"]["n"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "neighbour"}, "unknown sampler 'neighbour'; did you mean neighbor"),
        ({"sampler": "neighbor", "fanouts": "0"}, "fan-out 0 is not allowed"),
        ({"sampler": "neighbor", "fanouts": "5,-3"}, "fan-out -3 is not allowed"),
        ({"sampler": "neighbor", "fanouts": "5,x"}, "fanouts is 'x'; expected tuple"),
        ({"sampler": "neighbor", "fanouts": "5,5,5"}, "3 fan-outs were given, but the model has 2"),
        ({"sampler": "neighbor", "batch_size": 141}, "batch_size is 141, but there are 140"),
        ({"fanouts": "5"}, "unknown option of the sampler full 'fanouts'"),
        ({"batch_size": 5}, "unknown option of the sampler full 'batch_size'"),
        (
            {"sampler": "neighbor", "sampler_options": {"replaced": True}},
            "unknown option of the sampler neighbor 'replaced'; did you mean replace",
        ),
        (
            {"sampler": "neighbor", "sampler_options": {"replace": "perhaps"}},
            "replace is 'perhaps'; expected true or false",
        ),
        (
            {"sampler": "neighbor", "fanouts": "5", "sampler_options": {"fanouts": "5"}},
            "sampler_options names fanouts, which has a flag of its own",
        ),
        (
            {"sampler": "neighbor", "sampler_options": {"estimator": "htt"}},
            "unknown estimator 'htt'",
        ),
        (
            {"sampler": "neighbor", "model": "sage", "model_options": {"aggregator": "max"}},
            "the maximum of sage knows no weights and has no unbiased estimate; use the estimator",
        ),
        ({"sampler": "ladies", "sampler_options": {"nodes": 10**6}}, "the budget is 1000000 nodes"),
        ({"sampler": "ladies", "sampler_options": {"nodes": 0}}, "the budget of 0 nodes"),
    ],
)
def test_a_sampler_that_does_not_fit_leaves_nothing_behind(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        run(config(tmp_path, **changes))
    assert str(caught.value).count("\n") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler_options": {"estimator": "unit"}},
        {"fanouts": "-1"},
        {"model_options": {"aggregator": "mean"}},
    ],
)
def test_a_maximum_trains_where_no_weight_is_lost(tmp_path, changes):
    options = {"sampler": "neighbor", "model": "sage", "model_options": {"aggregator": "max"}}
    assert run(config(tmp_path, epochs=1, **{**options, **changes}))["test"]["n"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "coraa"}, "unknown data set 'coraa'; did you mean cora"),
        ({"model": "gcm"}, "unknown model 'gcm'; did you mean .*gcn"),
        ({"norm": "bach"}, "unknown norm 'bach'; did you mean batch"),
        ({"model_options": {"hidden": 8}}, "names hidden, which has a flag of its own"),
        ({"model_options": {"beads": 8}}, "unknown option of gcn 'beads'"),
        ({"split": "public"}, "has no split 'public'"),
        ({"device": "cuda:99"}, "was asked for, but torch .* sees"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"weight_decay_for": {"frist": 0.1}}, "did you mean first"),
        ({"optimizer_options": {"bogus": 1}}, "refused its options"),
        ({"skip": "dense-cat", "head": "conv"}, "head='linear'"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(config(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_training_node_is_named(tmp_path):
    with pytest.raises(InputError, match="no training node of class"):
        run(config(tmp_path, split="random-0.003-0.4-0.4"))


def test_a_graph_without_edges_trains_an_mlp_and_nothing_else(tmp_path, monkeypatch):
    from graphdyn import runner
    from graphdyn.data import csbm
    from graphdyn.graph import Graph

    full = csbm(60, num_classes=2, num_features=4, split="random-0.5-0.25-0.25")
    bare = Graph.from_edge_index(
        torch.empty(2, 0, dtype=torch.long), 60, x=full.x, y=full.y, num_classes=2, split=full.split
    )
    monkeypatch.setattr(runner, "load", lambda *args, **kwargs: bare)
    monkeypatch.setattr(runner, "resplit", lambda graph, *args, **kwargs: graph)
    with pytest.raises(
        InputError, match="csbm has no edges, so gcn has no messages to pass; use mlp"
    ):
        run(config(tmp_path))
    assert not (tmp_path / "run").exists()
    assert run(config(tmp_path, model="mlp"))["test"]["n"] == 2


def test_a_loss_that_explodes_is_one_sentence_and_no_summary(tmp_path):
    with pytest.raises(GraphdynError, match="loss became (nan|inf) at seed 0, epoch"):
        run(config(tmp_path, lr=1e30, optimizer="sgd", norm="none", weight_decay=0.0, epochs=50))
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_loss_that_explodes_in_the_middle_of_an_epoch_names_the_epoch_at_hand(tmp_path):
    options = {**SAMPLED, "lr": 1e30, "optimizer": "sgd", "norm": "none", "weight_decay": 0.0}
    with pytest.raises(GraphdynError, match="loss became (nan|inf) at seed 0, epoch 1;"):
        run(config(tmp_path, **options))


def test_the_ledger_goes_on_where_a_checkpoint_left_it(tmp_path):
    import graphdyn as gd
    from graphdyn.seed import Seed

    seed = Seed(config(tmp_path, **SAMPLED), gd.load("csbm"), 0)
    seed.at.seconds |= {"sample": 1000.0, "wait": 2000.0}
    with gd.Loader(seed.plans, seed.graph) as loader:
        next(seed.steps(loader))
        assert seed.at.seconds["sample"] == 1000.0 + loader.seconds["sample"] > 1000.0
        assert seed.at.seconds["wait"] == 2000.0 + loader.seconds["wait"] > 2000.0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; see the next test")
def test_an_unwritable_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RecordError, match="cannot write to"):
        run(config(tmp_path))
    tmp_path.chmod(0o700)


def test_a_place_that_cannot_hold_a_folder_is_one_sentence():
    with pytest.raises(RecordError, match="cannot write to"):
        run(Config(**SMALL, out=Path("/proc/graphdyn")))


def test_spread_of_one_value_has_no_std():
    assert spread([0.5]) == {"mean": 0.5, "std": None, "n": 1, "values": [0.5]}
    assert spread([0.25, 0.75])["std"] == pytest.approx(0.5 / 2**0.5)
    assert spread([]) is None


def test_settings_of_the_process_come_back(tmp_path):
    run(config(tmp_path, threads=2, deterministic=True, epochs=2))
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_bfloat16_trains(tmp_path):
    summary = run(config(tmp_path, precision="bfloat16", epochs=30, seeds=1))
    assert summary["test"]["mean"] > 0.4
