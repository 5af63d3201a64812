"""The loop is an ordinary PyTorch loop that shows what it did, and keeps nothing."""

import dataclasses
import gc
import weakref

import pytest
import torch

from graphdyn.batch import full_batch
from graphdyn.data import csbm
from graphdyn.evaluation import evaluate, predict
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.models import build
from graphdyn.step import full_batches, train


@pytest.fixture(scope="module")
def graph():
    return csbm(300, num_classes=3, num_features=8, split="random-20x60x60", key=Key(1))


def fresh(graph, **options):
    options = {"hidden": 8, "norm": "batch", "dropout": 0.5, **options}
    model = build("gcn", graph.num_features, graph.num_classes, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return model, optimizer, full_batch(graph, model.propagation, key=Key(5))


def test_equals_the_loop_one_would_write(graph):
    model, optimizer, batch = fresh(graph)
    losses = [step.loss.item() for step in train(model, full_batches(batch, range(7)), optimizer)]

    twin, theirs, _ = fresh(graph)
    expected = []
    for epoch in range(7):
        one = batch.at(Key(5, epoch=epoch, step=epoch))
        twin.train()
        theirs.zero_grad()
        loss = node_loss(twin(one).logits, one)
        loss.backward()
        theirs.step()
        expected.append(loss.item())

    assert losses == expected
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values())
    )


def test_a_step_shows_gradients_new_parameters_and_cannot_be_written(graph):
    model, optimizer, batch = fresh(graph)
    before = [p.detach().clone() for p in model.parameters()]

    step = next(train(model, full_batches(batch, range(3, 4)), optimizer, first=3))

    assert step.index == 3
    assert step.batch.key == Key(5, epoch=3, step=3)
    assert all(p.grad is not None for p in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert len(step.hidden) == 2
    assert not any(t.requires_grad for t in (step.loss, step.logits, *step.hidden))
    assert step.seconds > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.loss = 0


def test_hidden_states_are_shown_on_demand_and_change_nothing(graph):
    for options in ({}, {"order": "pre"}, {"skip": "dense-cat"}):
        shown, quiet = (
            next(train(model, full_batches(batch, range(1)), optimizer, hidden=hidden))
            for hidden in (True, False)
            for model, optimizer, batch in [fresh(graph, **options)]
        )
        assert len(shown.hidden) == 2
        assert quiet.hidden == ()
        assert torch.equal(shown.loss, quiet.loss)
        assert torch.equal(shown.logits, quiet.logits)


def test_nothing_runs_ahead_of_the_caller(graph):
    model, optimizer, batch = fresh(graph)
    drawn = []

    def batches():
        for one in full_batches(batch, range(10)):
            drawn.append(one.key.epoch)
            yield one

    steps = train(model, batches(), optimizer)
    assert drawn == []
    next(steps)
    next(steps)
    assert drawn == [0, 1]


def test_only_one_step_is_alive_at_a_time(graph):
    model, optimizer, batch = fresh(graph)
    steps = train(model, full_batches(batch, range(3)), optimizer)
    alive = weakref.ref(next(steps).logits)
    gc.collect()
    assert alive() is None


def test_dropout_differs_between_epochs_and_not_between_repeats(graph):
    model, _, batch = fresh(graph)
    model.train()
    first, second = (model(batch.at(Key(5, epoch=e))).logits for e in (0, 1))
    again = model(batch.at(Key(5, epoch=0))).logits
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_step_trains_whatever_mode_the_model_was_left_in(graph):
    losses = []
    for leave in (torch.nn.Module.train, torch.nn.Module.eval):
        model, optimizer, batch = fresh(graph)
        leave(model)
        losses.append(next(train(model, full_batches(batch, range(1)), optimizer)).loss)
    assert losses[0] == losses[1]
    assert model.training


def test_looking_changes_nothing(graph):
    model, optimizer, batch = fresh(graph)
    for _ in train(model, full_batches(batch, range(3)), optimizer):
        pass
    model.norms[0].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    grads = [p.grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    generator = torch.get_rng_state()

    evaluate(model, graph, batch)

    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(a is p.grad for a, p in zip(grads, model.parameters()))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(generator, torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_scores_are_those_of_the_predictions(graph):
    model, optimizer, batch = fresh(graph)
    for _ in train(model, full_batches(batch, range(3)), optimizer):
        pass
    logits = predict(model, batch)
    assert not logits.requires_grad
    scores = evaluate(model, graph, batch)
    for name, nodes in graph.split.parts().items():
        right = [int(logits[v].argmax()) == int(graph.y[v]) for v in nodes.tolist()]
        loss = [-logits[v].double().log_softmax(0)[graph.y[v]].item() for v in nodes.tolist()]
        assert scores.metric[name] == pytest.approx(sum(right) / len(right), abs=1e-12)
        assert scores.loss[name] == pytest.approx(sum(loss) / len(loss), rel=1e-5)
