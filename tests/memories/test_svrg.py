"""SVRG: the identity at the snapshot to the last bit, unbiasedness by enumeration, and nothing moved."""

import pytest
import torch
from cases import close, small_model, tiny, whole
from memories.replays import (
    NOISY,
    SAMPLERS,
    TRAIN,
    dense_gradient,
    flat,
    gradient_of,
    move,
    pairs,
    plain,
    run,
    setting,
    still,
)

from graphdyn.keys import Key
from graphdyn.memories import SVRG
from graphdyn.memories.anchor import parameters
from graphdyn.step import update


@pytest.fixture
def graph():
    return tiny()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_correction_is_zero_to_the_last_bit_where_nothing_moved(graph, sampler):
    model = small_model("gcn", **NOISY)
    where = setting(model, graph, sampler)
    memory = SVRG(every=10).bind(where)
    for gradient in run(where, still(model), memory, range(4)):
        assert all(torch.equal(g, memory.gradient[n]) for n, g in gradient.items())


@pytest.mark.parametrize("name", ["sgc", "sage-mean", "gat", "gcnii", "appnp", "mlp"])
def test_so_it_is_for_every_architecture(graph, name):
    options = {} if name == "appnp" else {"norm": "weighted-batch", "skip": "identity"}
    model = small_model(name, **options, dropout=0.5)
    where = setting(model, graph)
    memory = SVRG(every=10).bind(where)
    for gradient in run(where, still(model), memory, range(3)):
        assert all(torch.equal(g, memory.gradient[n]) for n, g in gradient.items())


def test_unbiased_over_all_batches_of_exact_embeddings(graph):
    model, matrix = plain(graph)
    memory = SVRG(every=100).bind(setting(model, graph, None))
    batches = pairs(graph, model)
    update(model, batches[0], still(model), memory=memory)
    start = memory.state()["left"].clone()
    move(model, 0.3, seed=1)
    found = []
    for batch in batches:
        update(model, batch, still(model), memory=memory)
        found.append(flat(gradient_of(model)))
    assert memory.countdown.left == start - len(batches)
    expected = dense_gradient(matrix, graph.x, graph.y, parameters(model), TRAIN)
    close(torch.stack(found).mean(0), flat(expected))
    assert torch.stack(found).var(0).sum() > 1e-4


def variance(model, graph, memory):
    """Over all batches of two nodes, of the gradient that a memory leaves."""
    found = []
    for batch in pairs(graph, model):
        update(model, batch, still(model), **({} if memory is None else {"memory": memory}))
        found.append(flat(gradient_of(model)))
    return torch.stack(found).var(0, correction=0).sum().item()


def test_the_variance_is_that_of_the_difference(graph):
    """0 at the snapshot, small beside it; far from a noisy one it is a loss."""
    model, _ = plain(graph)
    memory = SVRG(every=1000).bind(setting(model, graph, None))
    assert variance(model, graph, memory) == 0.0
    alone = variance(model, graph, None)
    move(model, 0.01, seed=2)
    assert variance(model, graph, memory) < 0.01 * alone
    move(model, 2.0, seed=3)
    noisy = SVRG(every=1000).bind(setting(model, graph, None))
    assert variance(model, graph, noisy) == 0.0
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.1)
    assert variance(model, graph, noisy) > 2 * variance(model, graph, None)


def test_on_the_full_batch_it_is_the_full_gradient_wherever_the_snapshot_was(graph):
    model, matrix = plain(graph)
    memory = SVRG(every=10).bind(setting(model, graph, None))
    batch = whole(graph, model)
    for step in range(3):
        update(model, batch.at(Key(5, step=step)), still(model), memory=memory)
        expected = dense_gradient(matrix, graph.x, graph.y, parameters(model), TRAIN)
        close(flat(gradient_of(model)), flat(expected))
        move(model, 0.3, seed=step)


def test_snapshots_come_every_so_many_steps_or_once_an_epoch(graph):
    model = small_model("gcn")
    where = setting(model, graph)
    for every in (2, 0):
        memory, optimizer = SVRG(every=every).bind(where), torch.optim.SGD(model.parameters(), 0.1)
        period = every or where.plans.num_batches
        assert period > 1 + (every == 0)
        for step in range(2 * period + 1):
            before = {n: p.clone() for n, p in parameters(model).items()}
            run(where, optimizer, memory, [step])
            taken = all(torch.equal(p, memory.anchor[n]) for n, p in before.items())
            assert taken == (step % period == 0)
