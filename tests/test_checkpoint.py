"""Optimiser state without pickle: what comes back is what went in."""

import json

import pytest
import torch

from graphdyn.checkpoint import pack, pack_optimizer, unpack, unpack_optimizer
from graphdyn.optim import optimizer_names

OPTIONS = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "rmsprop": {"momentum": 0.9, "centered": True},
}


def problem():
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).reshape(2, 3) / 7)
        model.bias.zero_()
    return model


def advance(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (model.weight**2 + model.bias[:, None]).sum().square().backward()
        optimizer.step()


@pytest.mark.parametrize("name", [n for n in optimizer_names() if n not in ("sparseadam", "muon")])
def test_a_resumed_optimiser_takes_the_same_steps(name):
    kind = optimizer_names()[name]
    options = {"lr": 1e-3, **OPTIONS.get(name, {})}
    straight = problem()
    optimizer = kind(straight.parameters(), **options)
    advance(straight, optimizer, 3)
    tensors, plain = pack_optimizer(optimizer)
    plain = json.loads(json.dumps(plain))
    tensors = {k: v.clone() for k, v in tensors.items()}
    resumed = problem()
    resumed.load_state_dict(straight.state_dict())
    again = kind(resumed.parameters(), **options)
    unpack_optimizer(again, tensors, plain)

    advance(straight, optimizer, 3)
    advance(resumed, again, 3)

    assert torch.equal(straight.weight, resumed.weight)
    assert torch.equal(straight.bias, resumed.bias)


def test_state_that_is_no_tensor_comes_back_too():
    model = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["visits"] = 3
    tensors, plain = pack_optimizer(optimizer)
    again = torch.optim.SGD(model.parameters(), lr=0.1)
    unpack_optimizer(again, tensors, json.loads(json.dumps(plain)))
    assert again.state[model.weight]["visits"] == 3


def test_a_tree_comes_back_whatever_its_names_and_whoever_shares_memory():
    whole = torch.arange(6.0)
    tree = {
        "a": {"b.c": whole, "b": {"c": whole[2:]}},
        "a.b": {"c": whole.view(2, 3)},
        "list": [1, [whole, None], {"x": "y", "3": 2.5}],
        "empty": {},
    }
    tensors, plain = pack(tree)
    assert len({t.untyped_storage().data_ptr() for t in tensors.values()}) == 4
    again = unpack(tensors, json.loads(json.dumps(plain)))
    whole.zero_()
    assert torch.equal(again["a"]["b.c"], torch.arange(6.0))
    assert torch.equal(again["a"]["b"]["c"], torch.arange(6.0)[2:])
    assert torch.equal(again["a.b"]["c"], torch.arange(6.0).view(2, 3))
    assert torch.equal(again["list"][1][0], torch.arange(6.0))
    assert (again["list"][0], again["list"][1][1], again["list"][2]) == (
        1,
        None,
        {"x": "y", "3": 2.5},
    )
    assert again["empty"] == {}
