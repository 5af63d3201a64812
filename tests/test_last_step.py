"""LastStep: weights, gradients and options as the optimiser had them, by a network of two weights."""

import pytest
import torch
from torch import nn

from graphdyn.groups import Groups
from graphdyn.last_step import LastStep


def setting(*, micro=False):
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    for parameter, value in zip(model.parameters(), (2.0, 3.0)):
        parameter.data.fill_(value)
    first, second = model.parameters()
    groups = [{"params": [first], "lr": 0.5}, {"params": [second], "lr": 0.25}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    one = LastStep(optimizer, Groups(model), micro=micro)
    one.attach()
    return model, optimizer, one


def backward(model, weight=1.0):
    """d/da = 3 w, d/db = 2 w."""
    (weight * model(torch.ones(1, 1, dtype=torch.float64)).sum()).backward()


def test_options_in_force_by_group():
    _, optimizer, one = setting()
    assert [o["lr"] for o in one.options().values()] == [0.5, 0.25]
    assert {o["optimizer"] for o in one.options().values()} == {"SGD"}
    assert all("params" not in o for o in one.options().values())
    one.before(weights=False, closure=False)
    optimizer.param_groups[0]["lr"] = 0.1
    assert [o["lr"] for o in one.fields()["settings"].values()] == [0.5, 0.25]  # of the step
    one.forget()
    assert [o["lr"] for o in one.fields()["settings"].values()] == [0.1, 0.25]  # of now


def test_weights_and_gradient_are_those_before_the_step():
    model, optimizer, one = setting()
    backward(model)
    one.before(weights=True, closure=False)
    optimizer.step()
    for p in model.parameters():  # as some optimisers do
        p.grad.zero_()
    one.after(measured=True, closure=False)
    found = one.fields()
    assert found["before"].tolist() == [2.0, 3.0]
    assert found["handed"].tolist() == [3.0, 2.0]
    assert (found["modified"], found["micro"]) == (False, None)
    one.forget()
    found = one.fields()
    assert found["before"] is found["handed"] is found["modified"] is None


def test_who_does_not_ask_for_weights_gets_none():
    model, _, one = setting()
    backward(model)
    one.before(weights=False, closure=False)
    assert one.fields()["before"] is one.fields()["handed"] is None
    assert one.modified is False


def test_a_closure_brings_the_gradient_later():
    model, _, one = setting()
    one.before(weights=True, closure=True)
    assert one.fields()["handed"] is None
    backward(model)
    one.after(measured=True, closure=True)
    assert one.fields()["handed"].tolist() == [3.0, 2.0]
    assert one.modified is False


def test_somebody_who_writes_to_gradients_is_seen():
    model, _, one = setting()
    backward(model)
    for p in model.parameters():
        p.grad.mul_(0.5)
    one.before(weights=True, closure=False)
    assert one.modified is True
    assert one.fields()["handed"].tolist() == [1.5, 1.0]


def test_what_a_scaler_leaves_to_the_optimiser_is_divided_by():
    model, optimizer, one = setting(micro=True)
    optimizer.grad_scale = torch.tensor(4.0)
    backward(model, 4.0)
    one.before(weights=True, closure=False)
    one.after(measured=True, closure=False)
    assert one.fields()["handed"].tolist() == [3.0, 2.0]
    assert one.fields()["micro"].tolist() == [[9.0, 4.0]]
    one.forget()
    optimizer.grad_scale = None
    for p in model.parameters():
        p.grad = None
    backward(model)
    one.before(weights=True, closure=False)
    assert one.fields()["handed"].tolist() == [3.0, 2.0]


def test_micro_batches_are_taken_once_and_scaled_as_the_gradient_was():
    model, _, one = setting(micro=True)
    backward(model)
    backward(model, 2.0)
    for p in model.parameters():
        p.grad.mul_(0.5)
    one.before(weights=False, closure=False)
    one.after(measured=True, closure=False)
    assert one.fields()["micro"].tolist() == [[2.25, 1.0], [9.0, 4.0]]
    one.after(measured=False, closure=False)
    assert one.fields()["micro"] is None


def test_what_is_not_measured_is_not_scaled():
    model, _, one = setting(micro=True)
    backward(model)
    for p in model.parameters():
        p.grad.mul_(0.5)
    one.after(measured=False, closure=False)
    assert one.fields()["micro"].tolist() == [[9.0, 4.0]]


@pytest.mark.parametrize("fails", [False, True])
def test_instruments_are_not_heard(fails):
    model, _, one = setting(micro=True)
    backward(model)
    for p in model.parameters():
        p.grad.mul_(0.5)
    try:
        with one.unheard():
            backward(model, 7.0)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    one.before(weights=False, closure=False)
    assert one.modified is True  # as before they came
    one.after(measured=False, closure=False)
    assert one.fields()["micro"].shape[0] == 1
    backward(model)
    one.after(measured=False, closure=False)
    assert one.fields()["micro"].shape[0] == 1  # and heard again


def test_nothing_is_heard_after_the_end():
    model, _, one = setting(micro=True)
    one.detach()
    backward(model)
    one.before(weights=True, closure=False)
    one.after(measured=True, closure=False)
    assert one.modified is None
    assert one.fields()["micro"] is None
