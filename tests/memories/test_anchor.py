"""What SVRG and SPIDER share: the exact gradient, the second evaluation of a batch, and a run around them."""

import pytest
import torch
from cases import close, small_model, tiny, whole
from memories.replays import (
    NOISY,
    assert_resumes,
    batch_of,
    dense_gradient,
    flat,
    gradient_of,
    plain,
    run,
    setting,
    still,
)

from graphdyn.data import csbm
from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.memories import SVRG, Spider, build
from graphdyn.memories.anchor import full_gradient, gradient_at, parameters
from graphdyn.models import build as build_model
from graphdyn.step import update

RECIPES = [SVRG(every=3), Spider(every=3), Spider(every=3, momentum=0.3)]


@pytest.fixture
def graph():
    return tiny()


def test_the_exact_gradient_is_that_of_the_nodes_that_are_trained_on(graph):
    model, matrix = plain(graph)
    nodes = torch.tensor([1, 5, 9])
    where = setting(model.train(), graph, None)._replace(nodes=nodes)
    expected = dense_gradient(matrix, graph.x, graph.y, parameters(model), nodes.tolist())
    close(flat(full_gradient(where, Key(0), 1)), flat(expected))


def test_the_exact_gradient_is_averaged_over_independent_masks(graph):
    model = small_model("gcn", dropout=0.5).train()
    where = setting(model, graph)

    def spread(masks):
        found = [flat(full_gradient(where, Key(7, step=s), masks)) for s in range(40)]
        return torch.stack(found).var(0).sum().item()

    # 5 in truth; each estimate of a variance has 39 degrees of freedom
    assert 2.5 < spread(1) / spread(5) < 10


@pytest.mark.parametrize("kind", [SVRG, Spider])
def test_a_memory_asks_for_as_many_masks_as_it_was_told(graph, kind):
    model = small_model("gcn", dropout=0.5)
    where = setting(model, graph)
    memory = kind(masks=3).bind(where)
    batch = batch_of(where, 0)
    update(model, batch, still(model), memory=memory)
    expected, other = (full_gradient(where, batch.key, masks) for masks in (3, 1))
    assert all(torch.equal(g, expected[n]) for n, g in memory.gradient.items())
    assert not torch.allclose(flat(expected), flat(other), rtol=1e-2)


def test_the_second_evaluation_has_the_masks_of_the_first_and_others_are_noticed(graph):
    model = small_model("gcn", dropout=0.5)
    where = setting(model, graph)
    batch = batch_of(where, 0)
    update(model, batch, still(model))
    found = gradient_of(model)
    same, other = (gradient_at(where, b, parameters(model)) for b in (batch, batch.at(Key(99))))
    assert all(torch.equal(g, same[n]) for n, g in found.items())
    assert not torch.allclose(flat(found), flat(other), rtol=1e-2)


@pytest.mark.parametrize("kind", [SVRG, Spider])
def test_nothing_but_the_gradient_moves(graph, kind):
    """In a step that is exact and in one that is not."""
    model = small_model("gcn", **NOISY)
    where = setting(model, graph)
    memory = kind(every=2).bind(where)
    for step in range(2):
        batch = batch_of(where, step)
        update(model, batch, still(model))
        before = {n: t.clone() for n, t in model.state_dict().items()}
        generator = torch.get_rng_state()
        memory.correct(batch)
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        assert torch.equal(generator, torch.get_rng_state())
        assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", [SVRG, Spider])
def test_frozen_parameters_are_left_alone(graph, kind):
    model = small_model("gcn")
    model.convs[0].lin.weight.requires_grad_(False)
    where = setting(model, graph)
    memory = kind(every=2).bind(where)
    for step in range(2):
        update(model, batch_of(where, step), still(model), memory=memory)
    assert "convs.0.lin.weight" not in memory.anchor
    assert model.convs[0].lin.weight.grad is None


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(graph, recipe):
    def fresh():
        model = small_model("gcn", **NOISY)
        where = setting(model, graph)
        return where, torch.optim.Adam(model.parameters(), 0.05), recipe.bind(where)

    memory, resumed = assert_resumes(fresh)
    assert memory.state().keys() == resumed.state().keys()
    assert all(torch.equal(t, resumed.state()[n]) for n, t in memory.state().items())


@pytest.mark.parametrize("kind", [SVRG, Spider])
def test_what_is_declared_is_what_is_held(graph, kind):
    model = small_model("gcn")
    memory = kind().bind(setting(model, graph))
    held = [t for n, t in memory.state().items() if n != "left"]
    assert kind().declare(model, graph) == sum(t.numel() * t.element_size() for t in held)


@pytest.mark.parametrize("recipe", [SVRG(), Spider(every=10)], ids=str)
def test_it_trains_with_adam(recipe):
    graph = csbm(300, num_classes=3, num_features=8, split="random-20x60x60", key=Key(1))
    model = build_model("gcn", graph.num_features, graph.num_classes, hidden=8, dropout=0.3)
    where = setting(model, graph)
    memory, optimizer = recipe.bind(where), torch.optim.Adam(model.parameters(), 0.02)
    full = whole(graph, model)

    def loss():
        with torch.no_grad():
            logits = model.eval()(full).logits[full.rows]
        return torch.nn.functional.cross_entropy(logits, full.y).item()

    before = loss()
    run(where, optimizer, memory, range(60))
    assert loss() < 0.8 * before


@pytest.mark.parametrize("name", ["svrg", "spider"])
@pytest.mark.parametrize("options", [{"every": -1}, {"masks": 0}])
def test_what_makes_no_sense_is_refused(name, options):
    with pytest.raises(InputError, match="must be at least"):
        build(name, **options)
