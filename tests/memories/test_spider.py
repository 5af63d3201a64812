"""SPIDER: the recursion against dense autograd, the identity where nothing moved, restarts and resumption."""

import pytest
import torch
from cases import close, small_model, tiny, whole
from memories.replays import (
    NOISY,
    SAMPLERS,
    TRAIN,
    batch_of,
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

from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.memories import Spider, build
from graphdyn.memories.anchor import gradient_at, parameters
from graphdyn.step import update


@pytest.fixture
def graph():
    return tiny()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_estimate_stays_to_the_last_bit_where_nothing_moved(graph, sampler):
    model = small_model("gcn", **NOISY)
    where = setting(model, graph, sampler)
    memory = Spider(every=100).bind(where)
    first, *later = run(where, still(model), memory, range(5))
    for gradient in later:
        assert all(torch.equal(g, first[n]) for n, g in gradient.items())


@pytest.mark.parametrize("momentum", [0.0, 0.3])
def test_the_recursion_is_that_of_the_papers(graph, momentum):
    model, matrix = plain(graph)
    memory = Spider(every=4, momentum=momentum).bind(setting(model, graph, None))
    batches, seeds = pairs(graph, model), [(0, 2), (0, 4), (0, 6), (0, 9), (0, 11), (2, 4)]
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    before, estimate = {}, {}

    def at(point, rows):
        return flat(dense_gradient(matrix, graph.x, graph.y, point, rows))

    for step, rows in enumerate(seeds):
        here = {n: p.clone() for n, p in parameters(model).items()}
        if step % 4 == 0:
            estimate = at(here, TRAIN)
        else:
            estimate = at(here, rows) + (1 - momentum) * (estimate - at(before, rows))
        before = here
        update(model, batches[step], optimizer, memory=memory)
        close(flat(gradient_of(model)), estimate, tol=1e-5)


def test_with_all_the_share_it_is_the_plain_gradient(graph):
    model = small_model("gcn", **NOISY)
    where = setting(model, graph)
    memory, optimizer = (
        Spider(every=100, momentum=1).bind(where),
        torch.optim.SGD(model.parameters(), 0.1),
    )
    run(where, optimizer, memory, [0])
    for step in range(1, 4):
        here = {n: p.clone() for n, p in parameters(model).items()}
        batch = batch_of(where, step)
        expected = gradient_at(where, batch, here)
        update(model, batch, optimizer, memory=memory)
        assert all(torch.equal(g, expected[n]) for n, g in gradient_of(model).items())


def test_on_the_full_batch_it_is_the_full_gradient(graph):
    model, matrix = plain(graph)
    memory = Spider(every=100).bind(setting(model, graph, None))
    optimizer, batch = torch.optim.SGD(model.parameters(), 0.3), whole(graph, model)
    for step in range(5):
        expected = dense_gradient(matrix, graph.x, graph.y, parameters(model), TRAIN)
        update(model, batch.at(Key(5, step=step)), optimizer, memory=memory)
        close(flat(gradient_of(model)), flat(expected))


def test_the_mean_over_all_batches_moves_as_the_full_gradient_does(graph):
    """Two steps along given parameters, every pair of batches: the estimate is right on average."""
    model, matrix = plain(graph)
    memory = Spider(every=100).bind(setting(model, graph, None))
    batches = pairs(graph, model)
    points = []
    for seed in range(3):
        points.append({n: p.clone() for n, p in parameters(model).items()})
        move(model, 0.2, seed)

    def visit(batch, point):
        model.load_state_dict(point)
        update(model, batch, still(model), memory=memory)
        return flat(gradient_of(model)), {n: t.clone() for n, t in memory.state().items()}

    _, zero = visit(batches[0], points[0])
    found = []
    for first in batches:
        memory.restore(zero)
        _, one = visit(first, points[1])
        for second in batches:
            memory.restore(one)
            found.append(visit(second, points[2])[0])
    expected = dense_gradient(matrix, graph.x, graph.y, points[2], TRAIN)
    close(torch.stack(found).mean(0), flat(expected))


def test_who_overwrites_gradients_does_not_reach_the_estimate(graph):
    model = small_model("gcn")
    where = setting(model, graph)
    memory = Spider(every=100).bind(where)
    run(where, still(model), memory, [0])
    expected = {n: t.clone() for n, t in memory.gradient.items()}
    for p in model.parameters():
        p.grad.zero_()
    assert all(torch.equal(t, expected[n]) for n, t in memory.gradient.items())
    assert flat(expected).norm() > 0


def test_other_masks_in_the_second_evaluation_are_noticed(graph):
    """What the recursion would add at unchanged parameters, were the masks not shared."""
    model = small_model("gcn", dropout=0.5)
    where = setting(model, graph)
    memory = Spider(every=100).bind(where)
    (exact,) = run(where, still(model), memory, [0])
    batch = batch_of(where, 1)
    update(model, batch, still(model))
    memory.correct(batch.at(Key(99)))
    assert not torch.allclose(flat(gradient_of(model)), flat(exact), rtol=1e-2)


@pytest.mark.parametrize("every", [0, 3])
def test_it_starts_again_every_so_many_steps_or_once_an_epoch(graph, every):
    model, matrix = plain(graph)
    where = setting(model, graph)
    memory, optimizer = Spider(every=every).bind(where), torch.optim.SGD(model.parameters(), 0.3)
    period = every or where.plans.num_batches
    for step in range(2 * period + 1):
        expected = flat(dense_gradient(matrix, graph.x, graph.y, parameters(model), TRAIN))
        found = flat(run(where, optimizer, memory, [step])[0])
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6) == (step % period == 0)


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_a_share_outside_0_and_1_is_refused(momentum):
    with pytest.raises(InputError, match="momentum is"):
        build("spider", momentum=momentum)
