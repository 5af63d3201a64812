"""PygProblem: unmodified models give what graphdyn's own do; masks by node; a loss that is a function of its batch."""

import cases
import pytest
import torch
import torch_geometric.nn as pyg
from instruments import layered

import graphdyn as gd
from graphdyn import samplers
from graphdyn.errors import InputError
from graphdyn.estimate import Invalid
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import FunctionProblem
from graphdyn.pyg_problem import KeyedDropout, PygProblem


def pair():
    """Ours and PyG's, with the same weights."""
    ours = layered.model("gcn", dropout=0.0)
    theirs = layered.pyg_model("GCN")
    for a, b in zip(ours.convs, theirs.convs):
        b.lin.weight.data, b.bias.data = a.lin.weight.data, a.lin.bias.data
    return ours, theirs


def flat(grads):
    return torch.cat([g.reshape(-1) for g in grads.values()])


def order_of(ours):
    """Names of theirs in our order."""
    return [n.replace("lin.bias", "bias") for n, _ in ours.named_parameters()]


@pytest.mark.parametrize("sampler", [gd.Neighbor((2, 2, 2), batch_size=10, reuse=True), gd.Full()])
def test_losses_gradients_and_states_are_those_of_our_models(sampler):
    g = layered.graph()
    ours, theirs = pair()
    plans = sampler.prepare(g, ours.propagation, 3)
    a = NodeProblem(ours, g, plans)
    b = layered.pyg_problem(theirs, g, sampler)
    assert (a.num_targets, a.batch_size, a.num_hops) == (b.num_targets, b.batch_size, b.num_hops)
    key = gd.Key(9)
    one, two = a.draw(key), b.draw(key)
    pairs = [(one, two), (a.exact(one), b.exact(two)), (next(a.full(key)), next(b.full(key)))]
    pairs += [(a.redraw(one, gd.Key(5)), b.redraw(two, gd.Key(5))), (a.whole(one), b.whole(two))]
    names = order_of(ours)
    for mine, other in pairs:
        cases.close(a.loss(ours, mine), b.loss(theirs, other), 1e-6)
        grads = b.gradient(theirs, other)
        cases.close(flat(a.gradient(ours, mine)), torch.cat([grads[n].reshape(-1) for n in names]))
        s, t = a.trace(ours, mine), b.trace(theirs, other)
        assert torch.equal(s.targets.sort().values, t.targets.sort().values)
        for x, y in zip(s.states, t.states):
            at, rows = s.nodes[x], t.nodes[y]
            at = torch.arange(layered.N) if at is None else at
            place = {int(v): i for i, v in enumerate(rows)}
            order = torch.tensor([place[int(v)] for v in at])  # ours knows no others
            cases.close(s.cut(x, s.states[x]), t.cut(y, t.states[y])[order])
    assert (s.nodes[x] is None) == (rows.numel() == layered.N)


def test_targets_and_weights():
    g = layered.graph()
    made = layered.pyg_model()
    options = {"seeds": "poisson", "score": "degree", "batch_size": 7}
    sampler = samplers.build("neighbor", fanouts="2", reuse=True, **options)
    problem = layered.pyg_problem(made, g, sampler)
    batch = problem.draw(gd.Key(0))
    ids, weight = problem.targets(batch)
    assert torch.equal(ids, batch.data.n_id[: batch.data.batch_size])
    assert weight.unique().numel() > 1
    again = problem.redraw(batch, gd.Key(1))
    twice = problem.redraw(again, gd.Key(2))
    for other in (problem.exact(batch), again, twice, problem.whole(batch)):
        assert torch.equal(problem.targets(other)[0], ids)
        assert torch.equal(problem.targets(other)[1], weight)


def test_pieces_sum_to_the_whole():
    g, made = layered.graph(), layered.pyg_model()
    whole = layered.pyg_problem(made, g)
    pieces = layered.pyg_problem(made, g, chunk=7)
    (one,) = whole.full(gd.Key(0))
    parts = [*pieces.full(gd.Key(0))]
    assert len(parts) == 5
    cases.close(whole.loss(made, one), sum(pieces.loss(made, p) for p in parts))
    batch = pieces.draw(gd.Key(3))
    cases.close(pieces.loss(made, pieces.exact(batch)), whole.loss(made, whole.exact(batch)))
    assert whole.exact(batch).data.num_sampled_nodes[1:] == [0, 0, 0]
    assert min(pieces.exact(batch).data.num_sampled_nodes) > 0  # hop by hop
    with pytest.raises(Invalid, match="in pieces"):
        pieces.whole(batch)


def test_a_node_has_the_same_mask_in_every_batch_of_a_key():
    """With all neighbours a batch says of its targets what the whole graph says, dropout and all."""
    g = layered.graph()
    made = layered.pyg_model("GCN", dropout=0.5).train()
    problem = layered.pyg_problem(made, g, gd.Neighbor((-1,), batch_size=10, reuse=True))
    batch = problem.draw(gd.Key(0))
    loss = problem.loss(made, batch)
    cases.close(loss, problem.loss(made, problem.whole(batch)))
    cases.close(loss, problem.loss(made, problem.redraw(batch, gd.Key(7))))
    other = problem.loss(made, problem.whole(problem.draw(gd.Key(1))))
    assert not torch.isclose(loss, other)
    made.eval()
    assert not torch.isclose(loss, problem.loss(made, batch))


def test_the_share_that_is_dropped():
    x, ids = torch.ones(500, 40), torch.arange(500)
    with KeyedDropout(gd.Key(0), ids):
        y = torch.nn.functional.dropout(x, 0.3)
        again = torch.nn.functional.dropout(x, 0.3)
        still = torch.nn.functional.dropout(x, 0.3, training=False)
    share = (y == 0).double().mean()
    assert abs(share - 0.3) <= 5 * (0.21 / x.numel()) ** 0.5
    assert torch.allclose(y[y != 0], torch.tensor(1 / 0.7))
    assert not torch.equal(y, again)  # another place in the pass
    assert still is x
    with KeyedDropout(gd.Key(0), ids[:9]):
        assert torch.equal(torch.nn.functional.dropout(x[:9], 0.3), y[:9])
    with KeyedDropout(None, ids):
        assert torch.nn.functional.dropout(x, 0.3) is x


def test_the_loss_is_a_function_of_its_batch():
    """Attention is dropped by torch's generator, which is seeded by the batch and given back."""
    g = layered.graph()
    made = layered.pyg_model("GAT", dropout=0.5).train()
    problem = layered.pyg_problem(made, g, propagation="none")
    one, two = problem.draw(gd.Key(0)), problem.draw(gd.Key(1))
    state = torch.get_rng_state()
    first = problem.loss(made, one)
    torch.rand(3, generator=None)
    assert torch.equal(problem.loss(made, one), first)
    torch.set_rng_state(state)
    assert torch.equal(problem.trace(made, one).loss, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(problem.loss(made, two), first)


class Data(torch.nn.Module):
    """Takes everything at once, so that nobody can guess how to call it."""

    def __init__(self):
        super().__init__()
        self.convs = torch.nn.ModuleList(
            [pyg.GCNConv(5, 4, normalize=False), pyg.GCNConv(4, 3, normalize=False)]
        )

    def forward(self, data):
        x = data.x
        for conv, adj in zip(self.convs, data.adjs):
            x = conv(x, adj.edge_index, adj.edge_weight.double())[: adj.size[1]].relu()
        return x


def test_models_with_calls_of_their_own():
    g, made = layered.graph(), Data().double()
    loader = gd.PygLoader(gd.Neighbor((2, 2), batch_size=10), g, num_layers=2, adjs=True)
    with pytest.raises(InputError, match="layers one by one; say how with call="):
        PygProblem(made, loader)
    problem = PygProblem(made, loader, call=lambda model, data: model(data))
    s = layered.snapshot(made, problem)
    for on in ("batch", "exact", "full", "whole"):
        trace = s.trace(on)
        rows = [n.numel() for n in trace.nodes.values()]
        assert rows[-1] == (trace.logits.shape[0] if on == "batch" else layered.N)
    plain = gd.PygLoader(gd.Neighbor((2, 2), batch_size=10, reuse=True), g, num_layers=2)
    with pytest.raises(InputError, match="called with arguments data; say how"):
        PygProblem(made, plain)


def test_weights_go_to_those_who_take_them():
    g = layered.graph()
    for name, given in (("GCN", True), ("GraphSAGE", False), ("GAT", False)):
        made = layered.pyg_model(name)
        seen = {}
        made.convs[0].register_forward_pre_hook(
            lambda m, a, k, seen=seen: seen.update(k) or None, with_kwargs=True
        )
        problem = layered.pyg_problem(made, g)
        problem.loss(made, problem.draw(gd.Key(0)))
        assert (seen.get("edge_weight") is not None) == given
    plain = pyg.Sequential("x, edge_index", [(pyg.SAGEConv(5, 3), "x, edge_index -> x")]).double()
    loader = gd.PygLoader(gd.Full(), g, num_layers=1)
    problem = PygProblem(plain, loader, call=lambda model, data: model(data.x, data.edge_index))
    assert problem.loss(plain, problem.draw(gd.Key(0))) > 0


def test_trimmed_models_keep_their_rows():
    g, made = layered.graph(), layered.pyg_model()

    def call(model, data):
        hops = (data.num_sampled_nodes, data.num_sampled_edges)
        return model(
            data.x, data.edge_index, data.edge_weight.double(),
            num_sampled_nodes_per_hop=hops[0], num_sampled_edges_per_hop=hops[1],
        )  # fmt: skip

    full, cut = layered.pyg_problem(made, g), layered.pyg_problem(made, g, call=call)
    batch = full.draw(gd.Key(0))
    a, b = full.trace(made, batch), cut.trace(made, batch)
    cases.close(a.loss, b.loss, 1e-12)
    for name in a.states:
        assert torch.equal(a.nodes[name], b.nodes[name])
        cases.close(a.cut(name, a.states[name]), b.cut(name, b.states[name]), 1e-12)
    assert a.states["convs.1"].shape[0] > b.states["convs.1"].shape[0]


def test_rows_that_no_target_hears_have_no_gradient():
    g, made = layered.graph(), layered.pyg_model()
    problem = layered.pyg_problem(made, g)
    trace = problem.trace(made, problem.draw(gd.Key(0)))
    for name, grad in zip(trace.states, torch.autograd.grad(trace.loss, [*trace.states.values()])):
        heard = trace.nodes[name].numel()
        assert (grad[heard:] == 0).all()
        assert grad[:heard].abs().sum() > 0


def test_small_data_of_its_own():
    g, made = layered.graph(), layered.pyg_model("GCN", dropout=0.5, norm="batch").train()
    problem = layered.pyg_problem(made, g)
    loss = problem.toy(gd.Key(0))
    assert loss(made).dtype == torch.float64
    assert torch.equal(loss(made), loss(made))
    assert not torch.equal(loss(made), problem.toy(gd.Key(1))(made))
    plain = layered.pyg_model("GCN", dropout=0.5).train()
    assert torch.equal(loss(plain), loss(plain.eval()))  # nothing is dropped


def test_a_function_problem_shows_the_layers_it_is_told():
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)
    ).double()
    x = cases.seeded(7, 3)
    options = {"num_targets": 7, "batch_size": 7.0}
    problem = FunctionProblem(
        lambda m, b: m(b).square().mean(), lambda key: x, layers=["0", "2"], **options
    )
    trace = layered.snapshot(net, problem).trace("batch")
    assert list(trace.states) == ["0", "2"]
    assert torch.equal(trace.units["0"].post, net[0](x).relu().detach())
    assert trace.logits is None
    blind = FunctionProblem(lambda m, b: m(b).mean(), lambda key: x, **options)
    with pytest.raises(Invalid, match="name its layers with layers="):
        layered.snapshot(net, blind).trace("batch")
