"""What a look at a model's layers shows, against what the model itself reads and against dense algebra."""

from itertools import pairwise

import cases
import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from instruments import layered
from torch import nn

from graphdyn.errors import InputError
from graphdyn.estimate import Invalid
from graphdyn.sight import (
    Sight,
    attention_of,
    batch_norms,
    calls_of_stack,
    layer_name,
    layers_of,
    units_of_stack,
)


class Own(nn.Module):
    """As people write them: functional activations, one of them in place, one conv used twice."""

    def __init__(self):
        super().__init__()
        self.first = pyg.GCNConv(5, 8, normalize=False)
        self.second = pyg.GCNConv(8, 8, normalize=False)
        self.norm = nn.BatchNorm1d(8)
        self.out = nn.Linear(8, 3)

    def forward(self, x, edge_index):
        x = F.elu(self.norm(self.first(x, edge_index)))
        x = F.dropout(x, 0.5, self.training)
        x = self.second(x, edge_index).relu_()
        x = torch.tanh(self.second(x, edge_index))
        return self.out(torch.sigmoid(x[:4]))


def seen(made, *args, names=None):
    with Sight(layers_of(made, names), batch_norms(made)) as sight:
        out = made(*args)
    return sight, out


def inputs():
    g = layered.graph()
    return g.x, g.edge_index


def test_a_model_as_people_write_them():
    made, (x, edge_index) = Own().double(), inputs()
    sight, out = seen(made, x, edge_index)
    assert list(sight.calls) == ["first", "second", "second 2"]
    z1, z2, z3 = (call.output for call in sight.calls.values())
    assert z1 is not None
    assert z1.grad_fn is not None
    normed = F.batch_norm(z1, None, None, made.norm.weight, made.norm.bias, True)
    units = sight.units
    assert torch.equal(units["first"].pre, normed.detach())
    assert torch.equal(units["first"].post, F.elu(normed).detach())
    assert torch.equal(units["second"].post, sight.calls["second 2"].reads.detach())
    assert units["second"].pre.min() < 0  # before it was overwritten in place
    assert torch.equal(units["second 2"].pre, z3.detach())
    assert torch.equal(units["second 2"].post, torch.tanh(z3).detach())  # the first, of equal shape
    assert torch.equal(sight.normed["norm"].x, z1.detach())
    assert sight.normed["norm"].norm is made.norm
    (g2,) = torch.autograd.grad(out.sum(), z2, allow_unused=True)
    assert g2 is not None
    assert g2.shape == z2.shape


def test_nothing_is_seen_outside_and_nothing_stays():
    made, (x, edge_index) = Own().double(), inputs()
    with (
        pytest.raises(ValueError, match="stop"),
        Sight(layers_of(made), batch_norms(made)) as sight,
    ):
        made(x, edge_index)
        raise ValueError("stop")
    assert layered.hooks_of(made) == []
    units = dict(sight.units)
    made(x, edge_index)
    torch.relu(x)
    assert sight.units.keys() == units.keys()
    assert len(sight.calls) == 3


def test_what_happens_inside_a_layer_is_its_own_affair():
    made, (x, edge_index) = layered.pyg_model("GAT", act="elu"), inputs()
    sight, _ = seen(made, x, edge_index)
    assert list(sight.calls) == ["convs.0", "convs.1", "convs.2"]
    assert list(sight.units) == ["convs.0", "convs.1"]
    for name, unit in sight.units.items():  # not the leaky relu of the scores
        assert torch.equal(unit.pre, sight.calls[name].output.detach())
        assert torch.equal(unit.post, F.elu(unit.pre))


class Gated(pyg.MessagePassing):
    """Activates inside, at the shape of its output."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=torch.tanh(x))

    def message(self, x_j):
        return x_j.sigmoid()


class Crowded(nn.Module):
    """Activations of other shapes, twice over, and none between two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Gated(), Gated()

    def forward(self, x, edge_index):
        z = self.second(self.first(x, edge_index), edge_index)
        part = F.relu(z[:3]).sum()
        return torch.sigmoid(F.elu(z)) + part


def test_the_first_activation_of_the_shape_of_the_output():
    made, (x, edge_index) = Crowded(), inputs()
    sight, _ = seen(made, x, edge_index)
    assert list(sight.units) == ["second"]
    z = sight.calls["second"].output
    assert torch.equal(sight.units["second"].post, F.elu(z))


def test_layers_by_name():
    made = Own()
    assert list(layers_of(made, ["out", "first"])) == ["out", "first"]
    with pytest.raises(InputError, match="unknown module 'frist'; did you mean first"):
        layers_of(made, ["frist"])
    with pytest.raises(Invalid, match="no message-passing layers of PyG; name its layers"):
        layers_of(nn.Linear(2, 2))
    assert list(batch_norms(nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2)))) == ["0"]


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("norm", ["none", "batch", "weighted-batch", "layer", "graph", "pair"])
@pytest.mark.parametrize("name", ["gcn", "sage", "gat", "gcnii"])
def test_units_are_what_the_next_layer_reads(name, norm, order):
    """Without dropout and skips the next conv reads the activation: seen by a hook, computed by us."""
    g = layered.graph()
    made = layered.model(name, norm=norm, order=order, dropout=0.0)
    batch = cases.whole(g, made)
    with calls_of_stack(made) as calls:
        output = made(batch)
    assert layered.hooks_of(made) == []
    units, normed = units_of_stack(made, batch, output.hidden)
    names = [layer_name(k) for k in (1, 2, 3)]
    assert list(calls) == names
    for before, after in pairwise(names):
        cases.close(units[before].post, calls[after].reads.detach(), 1e-12)
    has_head = made.head is not None
    assert list(units) == (names if has_head else names[:2])
    assert list(normed) == (list(units) if "batch" in norm else [])
    for layer in normed:
        assert torch.equal(normed[layer].x, output.hidden[int(layer[-1]) - 1].detach())


def test_skips_do_not_hide_dead_units():
    g = layered.graph()
    made = layered.model("gcn", skip="identity", dropout=0.5)
    made.convs[1].lin.bias.data[2] = -1e6
    batch = cases.whole(g, made)
    output = made(batch)
    units, _ = units_of_stack(made, batch, output.hidden)
    assert (units["layer 2"].post[:, 2] == 0).all()


def test_under_a_halo_norms_read_the_batch_alone():
    g = layered.graph()
    made = layered.model("gcn", norm="batch", dropout=0.0)
    problem = layered.node_problem(made, g, "lmc")
    s = layered.snapshot(made, problem)
    trace, batch = s.trace("batch"), s.batch(0)
    inside = batch.block(0).halo.num_inside
    assert inside < batch.block(0).num_dst
    assert trace.calls == {}
    unit, normed = trace.units["layer 1"], trace.normed["layer 1"]
    assert normed.x.shape[0] == inside
    norm = made.norms[0]
    z = trace.states["layer 1"].detach()
    mean, var = z[:inside].mean(0), z[:inside].var(0, correction=0)
    expected = (z - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias
    cases.close(unit.pre, expected.detach(), 1e-9)


def dense_attention(x, weight, src, dst, edges, heads, slope=0.2):
    """(E, H) coefficients, target by target."""
    h = (x @ weight.T).view(x.shape[0], heads, -1)
    a, b = (h * src).sum(-1), (h * dst).sum(-1)
    logits = F.leaky_relu(a[edges[0]] + b[edges[1]], slope)
    out = torch.empty_like(logits)
    for v in edges[1].unique():
        rows = edges[1] == v
        out[rows] = torch.softmax(logits[rows], 0)
    return out


@pytest.mark.parametrize("training", [True, False])
def test_attention_of_both_packages(training):
    g = layered.graph()
    ours = layered.model("gat", layers=1, edge_dropout=0.5, head="linear").train(training)
    batch = cases.whole(g, ours)
    with calls_of_stack(ours) as calls:
        ours(batch)
    conv = ours.convs[0]
    theirs = pyg.GATConv(5, 4, heads=2, dropout=0.5).double().train(training)
    theirs.lin.weight.data = conv.lin.weight.data
    theirs.att_src.data, theirs.att_dst.data = conv.att_src.data[None], conv.att_dst.data[None]
    with Sight({"": theirs}, {}) as sight:
        theirs(g.x, g.edge_index)
    assert theirs.training == training
    src, dst = conv.att_src, conv.att_dst
    for call in (calls["layer 1"], sight.calls[""]):
        found = attention_of(call)
        assert found is not None
        order = found.target.long()
        sums = torch.zeros(layered.N, 2, dtype=torch.float64).index_add_(0, order, found.alpha)
        cases.close(sums, torch.ones_like(sums), 1e-12)
        assert found.num_targets == layered.N
    csc = batch.block(0).adjacency.csc
    edges = torch.stack([csc.indices.long(), csc.dst.long()])
    expected = dense_attention(g.x, conv.lin.weight, src, dst, edges, 2).detach()
    cases.close(attention_of(calls["layer 1"]).alpha, expected, 1e-12)
    found = attention_of(sight.calls[""])
    # PyG removes the loop and adds it again, so that edges stand in another order.
    key = dict(zip(zip(*edges.tolist()), expected))
    looped = torch.cat([g.edge_index[:, g.edge_index[0] != g.edge_index[1]]], 1)
    loops = torch.arange(layered.N).repeat(2, 1)
    order = torch.cat([looped, loops], 1)
    theirs_expected = torch.stack([key[pair] for pair in zip(*order.tolist())])
    assert torch.equal(found.target, order[1])
    cases.close(found.alpha, theirs_expected, 1e-12)


def test_layers_without_attention_offer_none():
    made, (x, edge_index) = Own().double(), inputs()
    sight, _ = seen(made, x, edge_index)
    assert attention_of(sight.calls["first"]) is None


def test_a_layer_can_be_called_again():
    made, (x, edge_index) = layered.pyg_model(), inputs()
    made.eval()
    sight, _ = seen(made, x, edge_index)
    call = sight.calls["convs.0"]
    assert torch.equal(call.again(x), call.output)
    conv = made.convs[0]
    with Sight({"": conv}, {}) as sight:
        conv(edge_index=edge_index, x=x)
    by_name = sight.calls[""]
    assert not by_name.args
    assert by_name.kwargs.keys() == {"edge_index", "x"}
