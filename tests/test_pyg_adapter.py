"""Unmodified PyG models on our batches: the same numbers as ours, exact with all neighbours, unbiased."""

from dataclasses import replace

import cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch_geometric.data import Data
from torch_geometric.utils import trim_to_layer

from graphdyn import samplers
from graphdyn.batch import full_batch
from graphdyn.errors import InputError
from graphdyn.graph import Graph, Propagation, Split
from graphdyn.keys import Key
from graphdyn.models import GAT, GCN, SAGE
from graphdyn.pyg import to_adjs, to_data
from graphdyn.pyg_loader import PROPAGATIONS, PygLoader
from graphdyn.samplers import Full, Neighbor, Shadow
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.sparse import Sparse

N, LAYERS, WIDTH = 60, 3, 4
GCN_, MEAN = PROPAGATIONS["gcn"], PROPAGATIONS["mean"]


def graph(seed=0, **fields):
    """60 nodes, directed, of uneven degree, no loops or parallel edges, half of them train; float64 features."""
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, N, (2, 400))
    edges[0] = edges[0] * edges[0] // N  # sources crowd at small ids
    edges = np.unique(edges[:, edges[0] != edges[1]], axis=1)
    given = {
        "x": cases.seeded(N, 5, seed=seed + 1),
        "y": torch.arange(N) % 3,
        "num_classes": 3,
        "split": Split(torch.arange(0, N, 2), torch.arange(1, 20, 2), torch.arange(21, N, 2)),
    }
    return Graph.from_edge_index(edges, N, **given | fields)


def gcn_pair(linear=False):
    """Ours and PyG's, with the same weights."""
    activation = "none" if linear else "relu"
    ours = GCN(5, 3, layers=LAYERS, hidden=WIDTH, dropout=0.0, activation=activation).double()
    theirs = torch.nn.ModuleList(
        pyg.GCNConv(conv.lin.weight.shape[1], conv.lin.weight.shape[0], normalize=False)
        for conv in ours.convs
    ).double()
    for a, b in zip(ours.convs, theirs):
        b.lin.weight.data, b.bias.data = a.lin.weight.data, a.lin.bias.data
    return ours, theirs


def sage_pair(kind):
    ours = SAGE(5, 3, layers=LAYERS, hidden=WIDTH, dropout=0.0).double()
    theirs = torch.nn.ModuleList()
    for conv in ours.convs:
        left, right = conv.lin_l, conv.lin_r
        outputs, inputs = left.weight.shape
        if kind == "graph":
            other = pyg.GraphConv(inputs, outputs, aggr="add").double()
            pairs = [(other.lin_rel, left), (other.lin_root, right)]
        else:
            other = pyg.SAGEConv(inputs, outputs, aggr=kind).double()
            pairs = [(other.lin_l, left), (other.lin_r, right)]
        for a, b in pairs:
            a.weight.data = b.weight.data
            if b.bias is not None:
                a.bias.data = b.bias.data
        theirs.append(other)
    return ours, theirs


def run(convs, data, *, weight=True, trim=False, linear=False):
    """The forward pass that a PyG user writes."""
    x, edge_index, edge_weight = data.x, data.edge_index, data.edge_weight.double()
    for layer, conv in enumerate(convs):
        if trim:
            hops = (data.num_sampled_nodes, data.num_sampled_edges)
            x, edge_index, edge_weight = trim_to_layer(layer, *hops, x, edge_index, edge_weight)
        x = conv(x, edge_index, edge_weight) if weight else conv(x, edge_index)
        x = x if linear or layer == len(convs) - 1 else x.relu()
    return x[: data.batch_size]


def run_adjs(convs, data, *, linear=False):
    """As in PyG's older sampling examples."""
    x = data.x
    assert len(data.adjs) == len(convs)
    for layer, (conv, adj) in enumerate(zip(convs, data.adjs)):
        weight = adj.edge_weight.double()
        if isinstance(conv, pyg.GCNConv):
            x = conv(x, adj.edge_index, weight)[: adj.size[1]]
        elif isinstance(conv, pyg.SAGEConv):
            adj_t = adj._replace(edge_weight=weight).adj_t
            x = conv((x, x[: adj.size[1]]), adj_t)
        else:
            x = conv((x, x[: adj.size[1]]), adj.edge_index, weight)
        x = x if linear or layer == len(convs) - 1 else x.relu()
    return x[: data.batch_size]


def ours_on(model, plan, g):
    n_id = plan.node_id
    x = g.x if n_id is None else g.x[n_id]
    return model(plan.batch(x, g.y[plan.seeds])).logits[plan.rows]


def recipe(name, **options):
    """A sampler of the registry, small enough for the graph."""
    given = {
        "batch_size": 8, "fanouts": (3, 2, 4), "nodes": (10,), "top_k": 10, "aux": 5, "parts": 4,
        "parts_per_batch": 2, "roots": 8, "budget": 20, "reuse": True,
    }  # fmt: skip
    known = samplers.SAMPLERS[name].__dataclass_fields__
    return samplers.build(name, **{k: v for k, v in (given | options).items() if k in known})


def first_plan(sampler, g, propagation, nodes=None):
    plans = sampler.prepare(g, propagation, LAYERS, nodes=nodes)
    for key in plans.keys(Key(4), range(5)):
        plan = plans.plan(key)
        if plan.seeds.numel():
            return plan
    raise AssertionError("no plan with seeds")


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_sampler_gives_pyg_models_the_numbers_of_ours(name):
    """With one edge_index where the sampler has one for all layers, trimmed and not; and layer by layer."""
    g = graph()
    for (ours, theirs), propagation in ((gcn_pair(), GCN_), (sage_pair("graph"), MEAN)):
        plan = first_plan(recipe(name), g, propagation)
        expected = ours_on(ours, plan, g)
        data = to_data(plan, g, num_layers=LAYERS)
        cases.close(run(theirs, data), expected)
        cases.close(run(theirs, data, trim=True), expected)
        assert torch.equal(data.n_id[: data.batch_size], plan.seeds)
        cases.close(run_adjs(theirs, to_data(plan, g, num_layers=LAYERS, adjs=True)), expected)


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_ids_lead_back_to_the_graph(name):
    """Of a plan and of a batch, whatever the order of its seeds: nodes, edges, features, weights, scales."""
    g = graph()
    matrix = g.adjacency(GCN_)
    plan = first_plan(recipe(name), g, GCN_)
    x = g.x if plan.node_id is None else g.x[plan.node_id]
    for given in (plan, plan.batch(x, g.y[plan.seeds])):
        data = to_data(given, g)
        assert torch.equal(data.x, g.x[data.n_id])
        assert torch.equal(data.y, g.y[data.n_id])
        assert torch.equal(data.input_id, plan.seeds)
        assert torch.equal(data.n_id[: data.batch_size], plan.seeds)
        source, target = data.n_id[data.edge_index]
        assert torch.equal(matrix.csc.indices[data.e_id].long(), source)
        assert torch.equal(matrix.csc.dst[data.e_id].long(), target)
        cases.close(data.edge_weight, matrix.values[data.e_id] * data.edge_scale)
        assert (data.edge_index[1].diff() >= 0).all()


def test_scales_follow_their_edges():
    """A square block with seeds that are not its first nodes, and another scale on every edge."""
    g = graph()
    plan = first_plan(Full(), g, MEAN)
    block = plan.blocks[0]
    scale = torch.linspace(1, 2, g.num_edges)
    values = Sparse(block.adjacency.csc, block.adjacency.values * scale)
    plan = replace(plan, blocks=(replace(block, adjacency=values, scale=scale),))
    data = to_data(plan, g)
    assert not torch.equal(data.e_id, torch.arange(g.num_edges))
    assert torch.equal(data.edge_scale, scale[data.e_id])
    assert torch.equal(data.edge_weight, values.values[data.e_id])


@pytest.mark.parametrize(
    "name", [n for n, s in samplers.SAMPLERS.items() if issubclass(s, LayeredSampler)]
)
def test_independent_layers_say_why_and_go_one_by_one(name):
    g = graph()
    (ours, theirs), (mean, graph_conv) = gcn_pair(), sage_pair("graph")
    for model, convs, propagation in ((ours, theirs, GCN_), (mean, graph_conv, MEAN)):
        plan = first_plan(recipe(name, reuse=False), g, propagation)
        with pytest.raises(
            InputError, match=r"3 layers .* drawn independently.*reuse=True.*adjs=True"
        ):
            to_data(plan, g)
        data = to_data(plan, g, adjs=True)
        cases.close(run_adjs(convs, data), ours_on(model, plan, g))
        assert "edge_index" not in data


def test_layers_that_differ_by_their_weights_alone_are_told_apart():
    g = graph()
    plan = first_plan(Neighbor((-1,), batch_size=8), g, GCN_)
    to_data(plan, g)
    inner = plan.blocks[1]
    other = Sparse(inner.adjacency.csc, 2 * inner.adjacency.values)
    blocks = (plan.blocks[0], replace(inner, adjacency=other), plan.blocks[2])
    with pytest.raises(InputError, match="drawn independently"):
        to_data(replace(plan, blocks=blocks), g)


def test_sage_with_its_weights_on_torch_csr():
    g = graph()
    ours, theirs = sage_pair("sum")
    plan = first_plan(Neighbor((3,), batch_size=6), g, MEAN)
    expected = ours_on(ours, plan, g)
    cases.close(run_adjs(theirs, to_data(plan, g, adjs=True)), expected)
    unweighted = [
        adj._replace(edge_weight=torch.ones_like(adj.edge_weight)) for adj in to_adjs(plan)
    ]
    data = to_data(plan, g, adjs=True)
    data.adjs = unweighted
    assert not torch.allclose(run_adjs(theirs, data), expected, atol=1e-3)


def test_sage_with_the_mean_is_right_for_uniform_draws_alone():
    """All scales of a row alike: a plain mean of the drawn is the estimate. Not so for layer-wise samples."""
    g = graph()
    ours, theirs = sage_pair("mean")
    for name, right in (("neighbor", True), ("pladies", False)):
        plan = first_plan(recipe(name), g, MEAN)
        out = run(theirs, to_data(plan, g), weight=False)
        assert torch.allclose(out, ours_on(ours, plan, g), atol=1e-6) == right


def test_attention_with_loops_of_pygs_own_where_scales_are_one():
    g = graph()
    ours = GAT(5, 3, layers=1, out_heads=1, dropout=0.0).double()
    conv = ours.convs[0]
    theirs = pyg.GATConv(5, 3).double()
    theirs.lin.weight.data, theirs.bias.data = conv.lin.weight.data, conv.bias.data
    theirs.att_src.data, theirs.att_dst.data = conv.att_src.data[None], conv.att_dst.data[None]
    for sampler in (Full(), Shadow(batch_size=8), Neighbor((-1,), batch_size=8, reuse=True)):
        plan = first_plan(sampler, g, PROPAGATIONS["none"])
        data = to_data(plan, g)
        with_loops = first_plan(sampler, g, ours.propagation)
        out = theirs(data.x, data.edge_index)[: data.batch_size]
        if isinstance(sampler, Shadow):
            assert torch.equal(data.input_id, with_loops.seeds)
            continue  # the scope is the same; the draws count from other rows
        cases.close(out, ours_on(ours, with_loops, g))
    plan = first_plan(Neighbor((2,), batch_size=8, reuse=True), g, PROPAGATIONS["none"])
    with_loops = first_plan(Neighbor((2,), batch_size=8, reuse=True), g, ours.propagation)
    data = to_data(plan, g)
    out = theirs(data.x, data.edge_index)[: data.batch_size]
    assert not torch.allclose(out, ours_on(ours, with_loops, g), atol=1e-3)


@pytest.mark.parametrize("undirected", [False, True])
def test_all_neighbours_is_pygs_own_full_graph(undirected):
    """PyG normalises here, on all edges, and runs on the graph as PyG holds it."""
    g = graph()
    if undirected:
        edges = g.edge_index
        g = Graph.from_edge_index(
            edges, N, undirected=True, x=g.x, y=g.y, num_classes=3, split=g.split
        )
    whole = g.to_pyg()
    for (_, theirs), propagation in ((gcn_pair(), GCN_), (sage_pair("mean"), MEAN)):
        h = whole.x
        for layer, conv in enumerate(theirs):
            if isinstance(conv, pyg.GCNConv):
                full = pyg.GCNConv(conv.in_channels, conv.out_channels).double()
                full.load_state_dict(conv.state_dict())
                h = full(h, whole.edge_index)
            else:
                h = conv(h, whole.edge_index)
            h = h if layer == LAYERS - 1 else h.relu()
        for sampler in (Neighbor((-1,), batch_size=7, reuse=True), Full()):
            seen = []
            plans = sampler.prepare(g, propagation, LAYERS)
            for key in plans.keys(Key(1), range(1)):
                data = to_data(plans.plan(key), g, num_layers=LAYERS)
                weighted = isinstance(theirs[0], pyg.GCNConv)
                cases.close(run(theirs, data, weight=weighted, trim=True), h[data.input_id])
                seen += data.input_id.tolist()
            assert sorted(seen) == g.split.train.tolist()


def linear_truth(g, convs):
    """Dense algebra: the linear network on the full graph."""
    a, h = g.adjacency(GCN_).to_dense(torch.float64), g.x
    for conv in convs:
        h = a @ h @ conv.lin.weight.t() + conv.bias
    return h


@pytest.mark.parametrize(("adjs", "layers"), [(False, 2), (True, 3)])
def test_the_mean_over_plans_is_unbiased_for_a_linear_network(adjs, layers):
    """5 standard errors; with one edge_index up to two layers, with independent ones at any depth."""
    g = graph()
    nodes, rounds = torch.arange(10), 500
    _, theirs = gcn_pair(linear=True)
    theirs = torch.nn.ModuleList([theirs[0], theirs[2]] if layers == 2 else theirs)
    sampler = Neighbor((3,), batch_size=10, reuse=not adjs)
    plans = sampler.prepare(g, GCN_, layers, nodes=nodes)
    outputs = torch.zeros(rounds, 10, 3, dtype=torch.float64)
    plain = torch.zeros_like(outputs)
    with torch.no_grad():
        for r in range(rounds):
            data = to_data(plans.plan(Key(2).at(epoch=r, step=r)), g, adjs=adjs)
            forward = run_adjs if adjs else run
            outputs[r, data.input_id] = forward(theirs, data, linear=True)
            if not adjs:
                data.edge_weight = data.edge_weight / data.edge_scale
                plain[r, data.input_id] = run(theirs, data, linear=True)
        truth = linear_truth(g, theirs)[nodes]

    def distance(values):
        return ((values.mean(0) - truth).abs() / (values.std(0) / rounds**0.5 + 1e-9)).max()

    assert distance(outputs) <= 5
    assert adjs or distance(plain) > 5  # without the scales it is not


def test_hops_are_those_of_pygs_loaders():
    """Each node expanded once, at the hop that meets it, with that hop's fan-out; PyG's own GCN trims."""
    g = graph()
    plan = first_plan(Neighbor((4, 2, 1), batch_size=5, reuse=True), g, MEAN)
    data = to_data(plan, g)
    nodes, edges = data.num_sampled_nodes, data.num_sampled_edges
    assert (len(nodes), len(edges)) == (4, 3)
    assert (sum(nodes), sum(edges)) == (data.num_nodes, data.edge_index.shape[1])
    assert nodes[0] == data.batch_size == 5
    hop = torch.repeat_interleave(torch.arange(4), torch.tensor(nodes))
    hop_of_edge = torch.repeat_interleave(torch.arange(3), torch.tensor(edges))
    assert torch.equal(hop[data.edge_index[1]], hop_of_edge)
    assert (hop[data.edge_index[0]] <= hop_of_edge + 1).all()
    degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
    full = g.csc.degree[data.n_id]
    fanout = torch.tensor([4, 2, 1, 0])[hop]
    assert torch.equal(degree, torch.minimum(full, fanout))
    csc = g.adjacency(MEAN).csc
    assert torch.equal(csc.indices[data.e_id].long(), data.n_id[data.edge_index[0]])
    assert torch.equal(csc.dst[data.e_id].long(), data.n_id[data.edge_index[1]])
    model = pyg.models.GCN(5, WIDTH, LAYERS, 3, normalize=False).double()
    weight = data.edge_weight.double()
    every = model(data.x, data.edge_index, weight)
    trimmed = model(
        data.x,
        data.edge_index,
        weight,
        num_sampled_nodes_per_hop=nodes,
        num_sampled_edges_per_hop=edges,
    )
    cases.close(trimmed[: data.batch_size], every[: data.batch_size])


def test_fields():
    g = graph()
    plan = first_plan(Neighbor((2,), batch_size=7, reuse=True), g, MEAN)
    data = to_data(plan, g)
    assert torch.equal(data.x, g.x[data.n_id])
    assert torch.equal(data.y, g.y[data.n_id])
    assert torch.equal(data.seed_weight, plan.seed_weight)
    expected = g.adjacency(MEAN).values[data.e_id] * data.edge_scale
    assert torch.equal(data.edge_weight, expected)
    assert data.validate()
    assert data.edge_index.dtype == torch.int64
    assert "node_weight" not in data
    batch = plan.batch(g.x[plan.node_id], g.y[plan.seeds])
    again = to_data(batch, g)
    assert sorted(again.keys()) == sorted(data.keys())
    for name, value in data.to_dict().items():
        same = (
            torch.equal(value, again[name])
            if isinstance(value, torch.Tensor)
            else value == again[name]
        )
        assert same, name
    assert torch.equal(
        to_data(plan, g, adjs=True).to("cpu").adjs[0].edge_weight, plan.blocks[0].adjacency.values
    )


def test_node_weights_where_the_probability_is_known():
    g = graph()
    plan = first_plan(Full(), g, MEAN)
    prob = torch.linspace(0.1, 1, N)
    plan = replace(plan, blocks=(replace(plan.blocks[0], node_prob=prob),))
    data = to_data(plan, g)
    assert torch.equal(data.node_weight, 1 / prob[data.n_id])
    assert "num_sampled_nodes" not in data  # how deep the model is, nobody said


def test_features_may_be_sparse_and_labels_absent():
    dense = torch.where(cases.seeded(N, 5) > 0, cases.seeded(N, 5, seed=1), 0.0).float()
    import scipy.sparse as sp

    g = graph(x=Sparse.from_scipy(sp.csr_array(dense.numpy())), y=None, num_classes=0)
    for sampler in (Neighbor((2,), batch_size=7, reuse=True), Shadow(batch_size=3), Full()):
        data = to_data(first_plan(sampler, g, MEAN), g)
        assert torch.equal(data.x, dense[data.n_id])
        assert "y" not in data
    with pytest.raises(InputError, match="has no features"):
        to_data(first_plan(Full(), g, MEAN), graph(x=None))


def test_copies_of_a_node_stand_behind_all_roots():
    g = graph()
    plan = first_plan(Shadow(batch_size=6), g, GCN_)
    data = to_data(plan, g, num_layers=2)
    assert data.n_id.unique().numel() < data.num_nodes
    assert torch.equal(data.n_id[:6], plan.seeds)
    assert data.num_sampled_nodes == [data.num_nodes, 0, 0]
    assert data.num_sampled_edges == [data.edge_index.shape[1], 0]


def train(loader, model, epochs):
    """The loop of PyG's examples, with the weights of the seeds."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for data in loader:
            optimizer.zero_grad()
            out = model(data.x, data.edge_index, data.edge_weight)[: data.batch_size]
            loss = F.cross_entropy(out, data.y[: data.batch_size], reduction="none")
            loss = (loss * data.seed_weight).sum()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(loader))
    return losses


def learnable():
    """Classes take turns; everybody hears four of its own class."""
    edges = torch.tensor([(v, (v + 3 * k) % N) for v in range(N) for k in range(1, 5)]).t()
    x = F.one_hot(torch.arange(N) % 3, 5).float() + 0.5 * cases.seeded(N, 5).float()
    g = graph()
    return Graph.from_edge_index(edges, N, x=x, y=g.y, num_classes=3, split=g.split).to_pyg()


@pytest.mark.parametrize("name", ["neighbor", "shadow", "ibmb", "full"])
def test_a_stock_loop_learns(name):
    data = learnable()
    losses = []
    for workers in (0, 2):
        model = pyg.models.GCN(5, 16, 2, 3, normalize=False)
        for i, parameter in enumerate(model.parameters()):
            parameter.data = 0.3 * cases.seeded(*parameter.shape, seed=i).float()
        loader = PygLoader(recipe(name, fanouts=(4,)), data, "gcn", num_layers=2, workers=workers)
        losses.append(train(loader, model, 15))
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.7 * losses[0][0]


def test_the_loader_is_a_function_of_seed_and_epoch():
    data = learnable()
    options = {"num_layers": 2, "nodes": data.train_mask}
    sampler = Neighbor((2,), batch_size=7, reuse=True)

    def ids(loader):
        return [(batch.n_id.tolist(), batch.e_id.tolist()) for batch in loader]

    loader = PygLoader(sampler, data, "mean", seed=3, **options)
    first, second = ids(loader), ids(loader)
    assert len(first) == len(loader) == 5
    assert first != second
    assert loader.epoch == 2
    other = PygLoader(sampler, Graph.from_pyg(data), "mean", seed=3, workers=0, **options)
    other.epoch = 1
    assert ids(other) == second
    assert ids(PygLoader(sampler, data, "mean", seed=4, **options)) != first


def test_input_id_counts_in_the_pool():
    data, pool = learnable(), torch.tensor([50, 3, 17, 20, 1])
    loader = PygLoader(Neighbor((2,), batch_size=2, reuse=True), data, num_layers=2, nodes=pool)
    seen = []
    for batch in loader:
        assert torch.equal(pool[batch.input_id], batch.n_id[: batch.batch_size])
        seen += batch.input_id.tolist()
    assert sorted(seen) == [0, 1, 2, 3, 4]
    mask = torch.zeros(N, dtype=torch.bool)
    mask[pool] = True
    masked = PygLoader(Neighbor((2,), batch_size=2, reuse=True), data, num_layers=2, nodes=mask)
    every = torch.cat([b.n_id[: b.batch_size] for b in masked])
    assert sorted(every.tolist()) == sorted(pool.tolist())


def test_a_loop_may_be_left_early():
    loader = PygLoader(Neighbor((2,), batch_size=2, reuse=True), learnable(), num_layers=2)
    for _ in loader:
        break
    assert loader.epoch == 1
    assert isinstance(next(iter(loader)), Data)


def test_layers_one_by_one_in_the_loader():
    _, theirs = gcn_pair()
    data = learnable()
    data.x = data.x.double()
    for sampler in (Neighbor((2,), batch_size=6), Shadow(batch_size=6)):
        loader = PygLoader(sampler, data, num_layers=LAYERS, adjs=True)
        for batch in loader:
            assert run_adjs(theirs, batch).shape == (batch.batch_size, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"propagation": "gnc"}, "unknown propagation 'gnc'; did you mean gcn"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"nodes": torch.tensor([0, 99])}, "seed node 99 is outside 0..59"),
        ({"nodes": torch.tensor([3, 3])}, "repeat"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        PygLoader(Neighbor((2,), batch_size=2), learnable(), **{"num_layers": 2, **options})


def test_data_without_labels_or_split():
    data = learnable()
    del data.train_mask
    with pytest.raises(InputError, match="has no split"):
        PygLoader(Neighbor((2,), batch_size=2), data, num_layers=2)
    del data.y
    loader = PygLoader(Neighbor((2,), batch_size=2), data, num_layers=2, nodes=torch.arange(4))
    with pytest.raises(InputError, match="no labels"):
        next(iter(loader))


def test_a_propagation_of_ones_own():
    own = Propagation("column", self_loops=True)
    loader = PygLoader(Full(), learnable(), own, num_layers=2)
    (data,) = loader
    full = full_batch(loader.graph, own).blocks[0].adjacency
    assert torch.equal(data.edge_weight, full.values[data.e_id])
