"""Runs with GraphMix: recorded, resumed to the bit, evaluated by averages, watched without a trace."""

import json

import pytest
import torch
from safetensors.torch import load_file

import graphdyn as gd
from graphdyn.config import Config
from graphdyn.errors import InputError
from graphdyn.gradient import gradient
from graphdyn.groups import Groups
from graphdyn.instruments.loss_parts import LossParts
from graphdyn.journal import read_table
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.models import build
from graphdyn.node_problem import NodeProblem
from graphdyn.presets import Method, method
from graphdyn.regularizers import GraphMix
from graphdyn.regularizers.average import Average
from graphdyn.runner import run
from graphdyn.samplers import Full
from graphdyn.snapshot import Snapshot
from graphdyn.step import train

MIX = {"passes": 3, "ramp_start": 0, "ramp_end": 4, "gamma": 2.0}
RUN = {
    "dataset": "csbm",
    "hidden": 8,
    "epochs": 6,
    "norm": "batch",
    "input_dropout": 0.3,
    "regularizer": "graphmix",
    "regularizer_options": MIX,
}
SAMPLED = {"sampler": "neighbor", "batch_size": 60, "fanouts": "4,3", "epochs": 3}
KINDS = {
    "full": {"regularizer_options": {**MIX, "ema": 0.9}},
    "neighbor": SAMPLED,
    "joint": {**SAMPLED, "regularizer_options": {**MIX, "mode": "joint"}, "norm": "weighted-batch"},
    "gas": {"preset": "gas", "sampler_options": {"parts": 6, "parts_per_batch": 2}},
    "svrg": {"preset": "svrg", "batch_size": 60, "epochs": 2},
    "saint": {"sampler": "saint-node", "epochs": 6},
}


def config(folder, **changes):
    return Config(**{**RUN, "out": folder, **changes})


def table(folder):
    return read_table(folder).drop_columns(["seconds"]).to_pylist()


def weights(folder):
    return load_file(folder / "weights" / "seed-0.safetensors")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "run"
            run(config(made[kind], **KINDS[kind]))
        return made[kind]

    return of


@pytest.mark.parametrize(("kind", "stop_at"), [("full", 3), ("neighbor", 4), ("gas", 5)])
def test_a_run_stopped_in_the_middle_ends_in_the_same_bits(
    tmp_path, monkeypatch, straight, kind, stop_at
):
    from graphdyn import seed

    with monkeypatch.context() as patch:
        original, calls = seed.Seed.step, []

        def dying(self, step):
            if len(calls) == stop_at:
                raise RuntimeError
            calls.append(1)
            original(self, step)

        patch.setattr(seed.Seed, "step", dying)
        with pytest.raises(RuntimeError):
            run(config(tmp_path / "run", checkpoint_seconds=0.0, **KINDS[kind]))
    run(config(tmp_path / "run", workers=0, **KINDS[kind]))
    assert table(tmp_path / "run") == table(straight(kind))
    one, other = weights(tmp_path / "run"), weights(straight(kind))
    assert all(torch.equal(one[n], other[n]) for n in other)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_recorded_and_add_up_to_the_loss(straight, kind):
    steps = {}
    for row in table(straight(kind)):
        if row["group"] == "step":
            steps.setdefault(row["step"], {})[row["name"]] = row["value"]
    names = {frozenset(own) for own in steps.values()}
    if kind == "joint":
        assert names == {frozenset(("loss", "loss_supervised", "loss_mixup", "loss_pseudo"))}
    else:
        assert names == {
            frozenset(("loss", "loss_supervised")),
            frozenset(("loss", "loss_mixup", "loss_pseudo")),
        }
    for own in steps.values():
        loss = own.pop("loss")
        assert sum(own.values()) == pytest.approx(loss, rel=1e-6)
    summary = json.loads((straight(kind) / "summary.json").read_text())
    assert summary["regularizer"] == "graphmix"
    assert summary["regularizer_options"]["gamma"] == 2.0
    if kind == "neighbor":
        assert summary["seconds"]["sample"] > 0


def test_a_plain_run_says_nothing_of_parts(tmp_path):
    plain = {"regularizer": None, "regularizer_options": {}}
    summary = run(config(tmp_path / "run", **plain))
    names = {r["name"] for r in table(tmp_path / "run")}
    assert not [n for n in names if n.startswith("loss_")]
    assert "regularizer" not in summary


def test_edges_are_those_of_passes_that_were_made(tmp_path, straight):
    """A step of the branch runs the model on no batch, but 3 times on that of the other nodes."""
    rows = [r for r in table(straight("neighbor")) if r["name"] == "loss"]
    graph = gd.load("csbm")
    conf = config(tmp_path, **SAMPLED)
    from graphdyn.seed import Seed

    seed = Seed(conf, graph, 0)
    edges, by_step = 0, {}
    for step in range(6):
        key = Key(0).at(epoch=step // seed.plans.num_batches, step=step)
        plan = seed.plans.plan(key)
        batch = gd.full_batch(graph, seed.model.propagation).at(key)
        if seed.objective.runs(batch):
            edges += plan.num_edges
        else:
            stream = seed.objective.unlabelled.plans
            own = key.fold("graphmix", "unlabelled").at(epoch=step // stream.num_batches, step=step)
            edges += 3 * stream.plan(own).num_edges
        by_step[step + 1] = edges
    found = {r["step"]: r["edges"] for r in rows if r["step"] in by_step and r["group"] == "step"}
    assert found == by_step


def test_averages_are_what_is_evaluated_and_kept(tmp_path):
    options = {"regularizer_options": {**MIX, "ema": 0.5}, "epochs": 4, "norm": "none"}
    run(config(tmp_path / "run", **options))
    graph = gd.load("csbm")
    drops = {"dropout": 0.5, "input_dropout": 0.3}
    model = build("gcn", graph.num_features, graph.num_classes, seed=0, hidden=8, **drops)
    optimizer = gd.build_optimizer(model, "adam", lr=0.01, weight_decay=5e-4)
    rule = bound(GraphMix(**MIX), graph, model)
    average, scores, kept = Average(model, 0.5), [], []
    batch = gd.full_batch(graph, model.propagation, key=Key(0))
    for _ in train(model, gd.full_batches(batch, range(4)), optimizer, objective=rule):
        average.update()
        with average.in_place():
            scores.append(gd.evaluate(model, graph).metric["valid"])
            kept.append({n: p.detach().clone() for n, p in model.named_parameters()})
    rows = table(tmp_path / "run")
    found = [r["value"] for r in rows if (r["name"], r["group"]) == ("accuracy", "valid")]
    assert found == scores
    best = kept[scores.index(max(scores))]
    assert all(torch.equal(t, best[n]) for n, t in weights(tmp_path / "run").items())


def bound(recipe, graph, model):
    return recipe.objective(model, graph, Method(Full()).prepare(model, graph))


@pytest.mark.parametrize("kind", ["full", "neighbor"])
def test_instruments_leave_training_as_it_is(tmp_path, straight, kind):
    folder = tmp_path / "run"
    names = "loss_parts+grad_noise+update_ratio"
    run(config(folder, instruments=names, measure_every=1, **KINDS[kind]))
    one, other = weights(folder), weights(straight(kind))
    assert all(torch.equal(one[n], other[n]) for n in other)
    own = [r for r in table(folder) if r["name"] in {s["name"] for s in table(straight(kind))}]
    assert own == table(straight(kind))
    assert any(r["name"] == "loss_parts.norm_pseudo" for r in table(folder))


# ------------------------------------------------------------------------------------- LossParts


def moment(model, problem, step=3):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    key = Key(0).fold("recorder").at(step=step)
    return Snapshot(step, 0, model, optimizer, Groups(model), problem, key)


def test_norms_and_cosines_are_those_of_autograd():
    graph = gd.load("csbm")
    model = build("gcn", graph.num_features, graph.num_classes, hidden=8, dropout=0.4)
    plans = Full().prepare(graph, model.propagation, 2)
    rule = bound(GraphMix(**MIX), graph, model)
    problem = NodeProblem(model, graph, plans, objective=rule, epoch=lambda: 3)
    s = moment(model, problem)
    reading = LossParts().measure(s)

    batch = s.batch(0)
    parts = rule.at(3).every(model, batch, node_loss)
    grads = {}
    for name, part in parts.items():
        found = torch.autograd.grad(
            part, [*model.parameters()], retain_graph=True, allow_unused=True
        )
        own = {n: g for (n, _), g in zip(model.named_parameters(), found)}
        grads[name] = s.groups.flat(own).double()
    assert set(grads) == {"supervised", "mixup", "pseudo"}
    cut = {n: {**s.groups.split(g), None: g} for n, g in grads.items()}
    for group in (*s.groups.names, None):
        for name in grads:
            key = f"norm_{name}" if group is None else (f"norm_{name}", group)
            assert float(reading[key].value) == pytest.approx(
                float(cut[name][group].norm()), rel=1e-5
            )
        for a, b in (("supervised", "mixup"), ("supervised", "pseudo"), ("mixup", "pseudo")):
            x, y = cut[a][group], cut[b][group]
            key = f"cosine_{a}_{b}" if group is None else (f"cosine_{a}_{b}", group)
            expected = float(x @ y / (x.norm() * y.norm()))
            assert float(reading[key].value) == pytest.approx(expected, rel=1e-4)
    early = LossParts().measure(moment(model, NodeProblem(model, graph, plans, objective=rule)))
    ratio = float(reading["norm_pseudo"].value) / float(early["norm_pseudo"].value)
    assert ratio == pytest.approx(rule.recipe.weight(3) / rule.recipe.weight(0), rel=1e-5)


def test_it_does_not_exist_without_a_regularizer():
    graph = gd.load("csbm")
    model = build("gcn", graph.num_features, graph.num_classes, hidden=8)
    problem = NodeProblem(model, graph, Full().prepare(graph, model.propagation, 2))
    with pytest.raises(gd.Invalid, match="without a regularizer"):
        LossParts().setup(moment(model, problem))


def test_the_gradient_of_a_step_is_that_of_the_step():
    """Parts by the coin of the batch's key, weighted as now; the full gradient stays that of the loss."""
    graph = gd.load("csbm")
    model = build("gcn", graph.num_features, graph.num_classes, hidden=8, dropout=0.4)
    plans = Full().prepare(graph, model.propagation, 2)
    rule = bound(GraphMix(**MIX), graph, model)
    problem = NodeProblem(model, graph, plans, objective=rule, epoch=lambda: 3)
    kinds = set()
    for i in range(12):
        batch = problem.draw(Key(i))
        found = problem.step_gradient(model, batch)
        total = rule.at(3)(model, batch, node_loss, hidden=False).total
        expected = torch.autograd.grad(total, [*model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(found.values(), expected))
        plain = all(torch.equal(found[n], g) for n, g in gradient(model, batch).items())
        assert plain == rule.runs(batch)
        kinds.add(plain)
    assert kinds == {True, False}


def test_a_refused_run_leaves_nothing_behind(tmp_path):
    for changes, words in (
        ({"model": "mlp"}, "passes no messages"),
        ({"preset": "saga"}, "follows the loss"),
        ({"regularizer": None}, "regularizer_options are given"),
        ({"regularizer": "mixgraph"}, "regularizer"),
    ):
        with pytest.raises(InputError, match=words):
            run(config(tmp_path / "run", **changes))
        assert not (tmp_path / "run").exists()


def test_a_method_takes_no_larger_batches_than_there_are_nodes():
    how = method(sampler="neighbor", batch_size=50)
    assert how.at_most(20).sampler.batch_size == 20
    assert how.at_most(50) is how
    assert Method(Full()).at_most(1) == Method(Full())
