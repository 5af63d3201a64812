"""Groups: one flat vector, cut and put together again; squares add up."""

import pytest
import torch

from graphdyn.errors import InputError
from graphdyn.groups import Groups, layer_of, total


def net():
    model = torch.nn.Module()
    model.encoder = torch.nn.Linear(2, 3)
    model.convs = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)])
    model.convs[1].weight = model.convs[0].weight  # tied
    model.scale = torch.nn.Parameter(torch.ones(2, 2))
    model.frozen = torch.nn.Parameter(torch.ones(5), requires_grad=False)
    for i, p in enumerate(model.parameters()):
        p.data = torch.arange(float(p.numel())).reshape(p.shape) + 10 * i
    return model


EXPECTED = {
    "layer": {
        "scale": ("scale",),
        "encoder": ("encoder.weight", "encoder.bias"),
        "convs.0": ("convs.0.weight", "convs.0.bias"),
        "convs.1": ("convs.1.bias",),
    },
    "own": {
        "biases": ("convs.1.bias", "encoder.bias"),
        "rest": ("scale", "encoder.weight", "convs.0.weight", "convs.0.bias"),
    },
}
BY = {"layer": "layer", "own": {"biases": ["convs.1.bias", "encoder.bias"], "none": []}}


@pytest.mark.parametrize("by", BY)
def test_members(by):
    groups = Groups(net(), BY[by])
    assert groups.members == EXPECTED[by]
    assert groups.names == tuple(EXPECTED[by])
    assert groups.size == 4 + 6 + 3 + 9 + 3 + 3


def test_each_tensor_alone():
    groups = Groups(net(), "tensor")
    assert all(members == (name,) for name, members in groups.members.items())
    assert "frozen" not in groups.members


@pytest.mark.parametrize("by", ["layer", "tensor", BY["own"]], ids=str)
def test_there_and_back(by):
    model = net()
    groups = Groups(model, by)
    flat = groups.weights()
    own = dict(model.named_parameters())
    for name, tensor in groups.unflat(flat).items():
        assert torch.equal(tensor, own[name])
        assert torch.equal(flat[groups.places[name]], own[name].reshape(-1))
    for name, part in groups.split(flat).items():
        pieces = [own[n].detach().reshape(-1) for n in groups.members[name]]
        assert torch.equal(part, torch.cat(pieces))
        assert torch.equal(part, flat[groups.slices[name]])
    order = ["convs.1.bias", "scale"]
    assert torch.equal(
        groups.pick(flat, order), torch.cat([own[n].detach().reshape(-1) for n in order])
    )
    flat.zero_()
    assert float(groups.weights().sum()) > 0


def test_gradients_and_gaps():
    model = net()
    groups = Groups(model)
    assert torch.equal(groups.grads(), torch.zeros(groups.size))
    model.scale.grad = torch.full((2, 2), 3.0)
    grads = groups.grads()
    assert torch.equal(groups.split(grads)["scale"], torch.full((4,), 3.0))
    assert float(grads.sum()) == 12
    grads.zero_()
    assert float(model.scale.grad.sum()) == 12
    flat = groups.flat({"encoder.bias": torch.ones(3, requires_grad=True)})
    assert not flat.requires_grad
    assert float(flat.sum()) == 3


def test_products_add_up():
    groups = Groups(net())
    rng = torch.Generator().manual_seed(1)
    a, b = (torch.randn(4, groups.size, generator=rng) for _ in range(2))
    dots = groups.dots(a, b)
    assert all(d.dtype == torch.float64 and d.shape == (4,) for d in dots.values())
    torch.testing.assert_close(total(dots), (a.double() * b.double()).sum(-1))
    place = groups.slices["convs.0"]
    torch.testing.assert_close(
        dots["convs.0"], (a[:, place].double() * b[:, place].double()).sum(-1)
    )


def test_layers_by_name():
    names = ["convs.0.lin.weight", "conv1.bias", "a.b.c", "blocks.3.1.w", "module.convs.12.att"]
    found = ["convs.0", "conv1", "a", "blocks.3", "module.convs.12"]
    assert list(map(layer_of, names)) == found


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        ("layers", "grouping of parameters"),
        ({"a": ["encoder.weigth"]}, "parameter"),
        ({"a": ["frozen"]}, "parameter"),
        ({"a": ["scale"], "b": ["scale"]}, "more than one group"),
        ({"rest": ["scale"]}, "a group is called rest"),
    ],
)
def test_what_makes_no_sense(by, sentence):
    with pytest.raises(InputError, match=sentence):
        Groups(net(), by)
