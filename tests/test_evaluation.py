"""Evaluation says what the model would say on the full graph, and leaves everything as it was."""

import copy
from dataclasses import replace

import cases
import oracles
import pytest
import torch

from graphdyn.errors import InputError
from graphdyn.evaluation import evaluate, predict, reestimate
from graphdyn.loss import node_loss
from graphdyn.models import Output

SEEDS = [4, 11, 0, 9]


def sampled(name, graph, **options):
    """A model after two steps on a few rows, gradients still in place, one norm out of step."""
    model = cases.small_model(name, dropout=0.5, **options)
    batch = cases.expanded_batch(graph, model, SEEDS)
    blocks = [replace(b, node_prob=torch.linspace(0.2, 1, b.num_dst)) for b in batch.blocks]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        at = replace(batch, blocks=tuple(blocks)).at(batch.key.at(step=step))
        node_loss(model(at, hidden=False).logits, at).backward()
        optimizer.step()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm1d):
            norm.eval()
            break
    return model


class Snapshot:
    """Everything of a model that evaluation must leave alone, and the global generator."""

    def __init__(self, model):
        self.model = model
        self.tensors = [*model.parameters(), *model.buffers()]
        self.values = [t.detach().clone() for t in self.tensors]
        self.grads = [p.grad for p in model.parameters()]
        self.grad_values = [None if g is None else g.clone() for g in self.grads]
        self.modes = [m.training for m in model.modules()]
        self.hooks = [len(m._forward_pre_hooks) for m in model.modules()]
        self.generator = torch.get_rng_state()

    def check(self):
        model = self.model
        now = [*model.parameters(), *model.buffers()]
        assert all(a is b for a, b in zip(self.tensors, now, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(self.values, now))
        grads = [p.grad for p in model.parameters()]
        assert all(a is b for a, b in zip(self.grads, grads))
        assert all(a is None or torch.equal(a, b) for a, b in zip(self.grad_values, grads))
        assert [m.training for m in model.modules()] == self.modes
        assert [len(m._forward_pre_hooks) for m in model.modules()] == self.hooks
        assert torch.equal(torch.get_rng_state(), self.generator)
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("norm", cases.NORMS)
@pytest.mark.parametrize("name", cases.MODELS)
def test_any_evaluation_is_pure(name, norm, tmp_path):
    """P23."""
    graph = cases.tiny()
    model = sampled(name, graph, norm=norm, skip="linear")
    before = Snapshot(model)
    for statistics in ("running", "population"):
        evaluate(model, graph, cases.whole(graph, model), statistics=statistics)
        evaluate(model, graph, chunk=5, statistics=statistics)
        evaluate(model, graph, chunk=5, statistics=statistics, store=tmp_path)
    before.check()


def test_even_an_evaluation_that_fails_is_pure():
    graph = cases.tiny()
    model = sampled("gcn", graph, norm="batch")
    before = Snapshot(model)
    broken = replace(cases.whole(graph, model), x=graph.x[:, :2])
    with pytest.raises(RuntimeError):
        predict(model, broken, statistics="population")
    before.check()


@pytest.mark.parametrize("norm", ["batch", "weighted-batch"])
@pytest.mark.parametrize("name", cases.MODELS)
def test_the_population_is_all_rows_under_the_weights_of_now(name, norm):
    graph = cases.tiny()
    model = sampled(name, graph, norm=norm)
    batch = cases.whole(graph, model)
    o = cases.settings(name, model)
    args = (graph.edge_index, graph.num_nodes, graph.x, cases.state(model), o)
    expected, _ = oracles.model(cases.MODELS[name][0], *args)
    cases.close(predict(model, batch, statistics="population"), expected.detach())
    if model.parameter_groups()["norm"]:
        running = predict(model, batch)
        assert not torch.allclose(running, expected, atol=1e-2)
        with torch.no_grad():
            assert torch.equal(running, copy.deepcopy(model).eval()(batch).logits)


def test_a_sampled_batch_of_rows_takes_its_own_weights_into_account():
    graph = cases.tiny()
    model = cases.small_model("gcn", layers=2, norm="weighted-batch")
    batch = cases.expanded_batch(graph, model, SEEDS)
    prob = torch.linspace(0.1, 1, batch.blocks[0].num_dst, dtype=torch.float64)
    weighed = replace(batch, blocks=(replace(batch.blocks[0], node_prob=prob), batch.blocks[1]))
    ours = predict(model, weighed, statistics="population")
    cases.close(ours, copy.deepcopy(model).train()(weighed).logits.detach(), 1e-12)
    assert not torch.allclose(ours, predict(model, batch, statistics="population"))


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("order", cases.ORDERS)
def test_reestimated_running_statistics_are_the_populations(order, chunk, tmp_path):
    graph = cases.tiny()
    model = sampled("gcn", graph, norm="batch", order=order)
    batch = cases.whole(graph, model)
    expected = predict(model, batch, statistics="population")
    modes = [m.training for m in model.modules()]
    counted = [norm.num_batches_tracked.clone() for norm in model.norms]
    weights = [p.detach().clone() for p in model.parameters()]
    reestimate(model, graph, chunk=chunk, store=None if chunk is None else tmp_path)
    cases.close(predict(model, batch), expected, 1e-12)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))
    assert all(torch.equal(a, n.num_batches_tracked) for a, n in zip(counted, model.norms))


def test_reestimation_reaches_norms_of_every_kind_that_keep_statistics_and_no_other():
    graph = cases.tiny()
    for norm in cases.NORMS:
        model = sampled("appnp", graph, norm=norm)
        buffers = {k: v.clone() for k, v in model.named_buffers()}
        reestimate(model, graph, chunk=5)
        changed = {k for k, v in model.named_buffers() if not torch.equal(v, buffers[k])}
        assert changed == {k for k in buffers if "running" in k}


@pytest.mark.parametrize("statistics", ["running", "population"])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_scores_in_chunks_are_those_of_the_full_batch(task, statistics):
    graph = cases.tiny(task=task)
    if task == "multilabel":
        graph = replace(graph, metric="f1-micro")
    model = sampled("sage-mean", cases.tiny(), norm="batch")
    whole = evaluate(model, graph, cases.whole(graph, model), statistics=statistics)
    assert evaluate(model, graph, statistics=statistics) == whole
    parts = evaluate(model, graph, chunk=5, statistics=statistics)
    assert parts.metric == whole.metric
    assert parts.loss == pytest.approx(whole.loss, rel=1e-12)


class Foreign(torch.nn.Module):
    """A model that is not made of graphdyn's layers."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(cases.NUM_FEATURES)
        self.lin = torch.nn.Linear(cases.NUM_FEATURES, cases.NUM_CLASSES)

    def forward(self, batch, *, hidden=True):
        return Output(self.lin(self.norm(batch.x)), ())


def test_models_from_elsewhere_can_be_evaluated_on_a_full_batch():
    graph = cases.tiny()
    model = Foreign().double()
    batch = cases.whole(graph, cases.small_model("gcn"))
    expected = model.lin((graph.x - graph.x.mean(0)) / (graph.x.var(0, correction=0) + 1e-5).sqrt())
    before = Snapshot(model)
    cases.close(predict(model, batch, statistics="population"), expected.detach(), 1e-12)
    before.check()
    with pytest.raises(InputError, match="Foreign is not made of layers"):
        evaluate(model, graph, chunk=5)
    with pytest.raises(InputError, match="Foreign is not made of layers"):
        reestimate(model, graph)


def test_a_compiled_model_is_evaluated_under_either_statistics():
    graph = cases.tiny()
    model = sampled("mlp", graph, norm="batch")
    batch = cases.whole(graph, model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    for statistics in ("running", "population", "running"):
        ours = predict(compiled, batch, statistics=statistics)
        cases.close(ours, predict(model, batch, statistics=statistics), 1e-12)
    assert evaluate(compiled, graph, chunk=5) == evaluate(model, graph, chunk=5)
    torch._dynamo.reset()


def test_half_precision_becomes_single_and_double_stays():
    graph = cases.tiny()
    for dtype, expected in (
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ):
        model = Foreign().to(getattr(torch, dtype))
        batch = cases.whole(graph, cases.small_model("gcn"))
        logits = predict(model, replace(batch, x=graph.x.to(getattr(torch, dtype))))
        assert logits.dtype == getattr(torch, expected)


def test_what_cannot_be_asked_is_refused_in_words():
    graph = cases.tiny()
    model = cases.small_model("gcn")
    batch = cases.whole(graph, model)
    with pytest.raises(InputError, match="unknown statistics 'runing'; did you mean running"):
        predict(model, batch, statistics="runing")
    with pytest.raises(InputError, match="either a batch or chunk=5"):
        evaluate(model, graph, batch, chunk=5)
    with pytest.raises(InputError, match="give a chunk size too"):
        evaluate(model, graph, batch, store=".")
