"""Graph U-Net equals dense algebra and PyG's, pools without ties of chance, and refuses parts of a graph."""

from dataclasses import replace

import cases
import numpy as np
import pytest
import torch

import graphdyn as gd
from graphdyn import models
from graphdyn.config import Config
from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.models.alone import Mixture
from graphdyn.models.graph_pool import Level, best, by_walks, kept, sizes
from graphdyn.models.propagate import Hop, drop_edges
from graphdyn.runner import run
from graphdyn.samplers import build as build_sampler

KINDS = ["directed", "parallel", "undirected"]
SETTINGS = {
    "paper": {"layers": 3, "pool": "9,5,3", "final": True},
    "pyg": {"layers": 3, "pool": 0.5, "gate": "tanh", "final": False, "activation": "relu"},
    "shallow": {"layers": 1, "pool": 0.8, "bias": False},
    "all kept": {"layers": 2, "pool": "100", "activation": "elu"},
}
ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}


def unet(**options):
    """A small model with biases away from zero."""
    model = cases.small_model("graph-unet", **{"gate": "sigmoid", "final": True} | options)
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.3 * cases.seeded(*parameter.shape, seed=i)
    return model


def dense_matrix(graph):
    """A + 2I; loops that are there keep their weight."""
    weight = np.ones(graph.num_edges) if graph.edge_weight is None else graph.edge_weight.numpy()
    a = np.zeros((graph.num_nodes,) * 2)
    np.add.at(a, tuple(graph.edge_index.flip(0).numpy()), weight.astype(float))
    return a + np.diag(np.where(np.diag(a) == 0, 2.0, 0.0))


def normalised(a):
    root = 1 / np.sqrt(a.sum(1))
    return root[:, None] * a * root[None, :]


def coarse(a, keep):
    """(A + I)^2 among the nodes kept, its diagonal replaced by 2."""
    b = a.copy()
    np.fill_diagonal(b, 1.0)
    out = (b @ b)[np.ix_(keep, keep)]
    np.fill_diagonal(out, 2.0)
    return out


def dense_unet(model, a, x, *, ones=False):
    """The network in NumPy; with ``ones`` there is no graph: nothing is pooled or gated."""
    o = model.options
    weights = [c.lin.weight.detach().numpy() for c in model.convs]
    biases = [0 if c.lin.bias is None else c.lin.bias.detach().numpy() for c in model.convs]
    last, act = len(weights) - 1, ACTIVATIONS[o.activation]

    def conv(i, a, h):
        z = (h if ones else normalised(a) @ h) @ weights[i].T + biases[i]
        return z if i == last else act(z)

    h, below = conv(0, a, x), []
    for level, pool in enumerate(model.pools):
        below.append((h, a))
        if ones:
            keep = np.arange(len(h))
        else:
            p = pool.p.detach().numpy()
            score = h @ p / np.sqrt((p**2).sum())
            keep = np.sort(np.argsort(-score, kind="stable")[: kept(model.sizes[level], len(h))])
            gate = np.tanh if pool.gate is torch.tanh else lambda s: 1 / (1 + np.exp(-s))
            h, a = h[keep] * gate(score[keep])[:, None], coarse(a, keep)
        below[-1] += (keep,)
        h = conv(level + 1, a, h)
    for i in range(o.layers):
        skip, a, keep = below.pop()
        up = np.zeros_like(skip)
        up[keep] = h
        h = conv(o.layers + 1 + i, a, skip + up)
    return conv(last, a, h) if model.final else h


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_equals_dense_algebra(setting, kind):
    model, graph = unet(**SETTINGS[setting]), cases.tiny(kind)
    expected = dense_unet(model, dense_matrix(graph), graph.x.numpy())
    cases.close(model(cases.whole(graph, model)).logits, torch.from_numpy(expected))


def heavy():
    """The undirected graph with weights on its edges."""
    graph = cases.tiny("undirected")
    weight = cases.seeded(graph.num_edges).abs().float() + 0.1
    fields = {"x": graph.x, "y": graph.y, "split": graph.split, "num_classes": 3}
    return gd.Graph.from_edge_index(graph.edge_index, 12, edge_weight=weight, **fields)


def test_edge_weights_count_in_every_level():
    graph, weighted = cases.tiny("undirected"), heavy()
    model = unet(**SETTINGS["paper"])
    expected = dense_unet(model, dense_matrix(weighted), graph.x.numpy())
    cases.close(model(cases.whole(weighted, model)).logits, torch.from_numpy(expected))
    plain = model(cases.whole(graph, model)).logits
    assert (plain - torch.from_numpy(expected)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["directed", "undirected"])
@pytest.mark.parametrize("pool", [0.5, 0.7])
def test_it_equals_pyg_with_the_same_weights(kind, pool):
    """Where definitions agree: tanh as gate, the last layer of the decoder for the classes."""
    from torch_geometric.nn import GraphUNet

    model, graph = unet(**SETTINGS["pyg"] | {"pool": pool}), cases.tiny(kind)
    theirs = GraphUNet(5, cases.HIDDEN, 3, depth=3, pool_ratios=pool).double()
    convs = [*theirs.down_convs, *theirs.up_convs]
    pairs = [(a.lin.weight, b.lin.weight) for a, b in zip(model.convs, convs)]
    pairs += [(a.lin.bias, b.bias) for a, b in zip(model.convs, convs)]
    pairs += [(a.p, b.select.weight) for a, b in zip(model.pools, theirs.pools)]
    assert len(pairs) == len([*model.parameters()]) == len([*theirs.parameters()])
    for ours, copy in pairs:
        copy.data = ours.detach().reshape(copy.shape).clone()
    logits = model(cases.whole(graph, model)).logits
    expected = theirs(graph.x, graph.edge_index)
    cases.close(logits, expected)
    weight = cases.seeded(*logits.shape)
    (logits * weight).sum().backward()
    (expected * weight).sum().backward()
    for ours, copy in pairs:
        assert ours.grad.abs().max() > 0
        cases.close(ours.grad, copy.grad.reshape(ours.shape))


def test_it_does_not_depend_on_the_numbers_of_nodes():
    graph, model = cases.tiny("undirected"), unet(**SETTINGS["paper"])
    order = Key(3).permutation(12, "cpu")
    place = torch.argsort(order)
    fields = {"x": graph.x[order], "y": graph.y[order], "num_classes": 3}
    moved = gd.Graph.from_edge_index(place[graph.edge_index], 12, **fields)
    nodes = torch.arange(12)
    here = model(cases.whole(graph, model, nodes)).logits
    there = model(cases.whole(moved, model, nodes)).logits
    cases.close(there, here[order])


def test_of_equal_scores_the_lower_number_is_kept():
    score = torch.tensor([0.5, 1.0, 0.5, 0.5, 1.0, -1.0])
    assert best(score, 2).tolist() == [1, 4]
    assert best(score, 3).tolist() == [0, 1, 4]
    assert best(score, 4).tolist() == [0, 1, 2, 4]
    assert best(torch.zeros(100), 7).tolist() == [*range(7)]


@pytest.mark.parametrize(
    ("size", "n", "k"), [(0.5, 7, 4), (0.999, 3, 3), (0.01, 3, 1), (2000.0, 500, 500), (3.0, 9, 3)]
)
def test_shares_are_rounded_up_and_numbers_are_at_most_all(size, n, k):
    assert kept(size, n) == k


@pytest.mark.parametrize("pool", ["2000,0.5", [2000, 0.5], (2000.0, 0.5)])
def test_the_last_entry_serves_all_levels_after_it(pool):
    assert sizes(pool, 4) == (2000.0, 0.5, 0.5, 0.5)
    assert sizes(0.3, 2) == (0.3, 0.3)


@pytest.mark.parametrize("keep", [[0, 2, 3, 7, 9, 11], [4], list(range(12))])
@pytest.mark.parametrize("weighted", [False, True])
def test_walks_matrix_products_and_dense_algebra_agree(weighted, keep, monkeypatch):
    graph, rows = heavy() if weighted else cases.tiny("parallel"), torch.tensor(keep)
    level = Level(graph.adjacency(models.GraphUNet.propagation), None, 12)
    expected = coarse(dense_matrix(graph), np.array(keep))
    found = [level.pooled(rows).matrix]
    monkeypatch.setattr("graphdyn.models.graph_pool._MOST_DENSE", 0)
    found.append(level.pooled(rows).matrix)
    monkeypatch.setattr("graphdyn.models.graph_pool._squared", by_walks)
    found.append(level.pooled(rows).matrix)
    for matrix in found:
        dense = matrix.to_dense(torch.float64).numpy()
        assert (
            np.allclose(dense, expected, rtol=1e-12)
            if weighted
            else np.array_equal(dense, expected)
        )
        assert torch.equal(matrix.csc.indices, found[0].csc.indices)
        assert matrix.csc.num_edges == np.count_nonzero(expected)


def test_parallel_loops_are_one_loop():
    edges = torch.tensor([[0, 1, 1, 1, 2], [1, 0, 1, 1, 1]])
    x = cases.seeded(3, 5)
    graph = gd.Graph.from_edge_index(edges, 3, x=x, y=torch.zeros(3).long(), num_classes=3)
    level = Level(graph.adjacency(models.GraphUNet.propagation), None, 3)
    expected = coarse(dense_matrix(graph), np.array([0, 1]))
    found = level.pooled(torch.tensor([0, 1])).matrix.to_dense(torch.float64)
    assert np.array_equal(found.numpy(), expected)


def test_a_coarse_edge_has_the_same_mask_whatever_else_is_kept():
    graph = cases.tiny("undirected")
    level = Level(graph.adjacency(models.GraphUNet.propagation), None, 12)
    key, alive = Key(1), []
    for keep in ([0, 1, 2, 4, 6], [0, 2, 4, 5, 6, 8]):
        block = level.pooled(torch.tensor(keep)).block
        before, after = block.adjacency.values, drop_edges(Hop(block, key), 0.5).adjacency.values
        pairs = zip(block.edge_id.tolist(), (after != 0).tolist(), (before != 0).tolist())
        alive.append({edge: kept for edge, kept, there in pairs if there})
    shared = alive[0].keys() & alive[1].keys()
    assert len(shared) > 8
    assert {alive[0][e] for e in shared} == {True, False}
    assert all(alive[0][e] == alive[1][e] for e in shared)


def test_nodes_of_every_level_have_their_numbers_in_the_graph():
    graph = cases.tiny("undirected")
    level = Level(graph.adjacency(models.GraphUNet.propagation), None, 12)
    deep = level.pooled(torch.tensor([1, 2, 4, 6, 8])).pooled(torch.tensor([0, 2, 3]))
    assert deep.ids.tolist() == [1, 4, 6]
    csc = deep.matrix.csc
    assert torch.equal(deep.block.edge_id, deep.ids[csc.dst] * 12 + deep.ids[csc.indices])
    assert torch.equal(deep.block.node_id, deep.ids)


@pytest.mark.parametrize("site", ["dropout", "edge_dropout", "input_dropout"])
def test_dropout_is_a_function_of_the_key(site):
    graph = cases.tiny("undirected")
    model = unet(layers=2, **{site: 0.5})
    one, again, other = (model(cases.whole(graph, model, key=Key(k))).logits for k in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    exact = gd.predict(model, cases.whole(graph, model))
    expected = dense_unet(model, dense_matrix(graph), graph.x.numpy())
    cases.close(exact, torch.from_numpy(expected))


@pytest.mark.parametrize("final", [True, False])
def test_hidden_states_are_those_of_all_nodes(final):
    graph, model = cases.tiny(), unet(final=final)
    batch = cases.whole(graph, model)
    output = model(batch)
    assert len(output.hidden) == model.num_hops == 2 + final
    assert output.hidden[-1] is output.logits
    assert all(len(state) == 12 for state in output.hidden)
    assert model(batch, hidden=False).hidden == ()


def test_a_hub_does_not_overflow():
    """Walks in the fourth level number up to degree^16."""
    hub = torch.zeros(3000, dtype=torch.int64)
    edges = torch.stack([hub, torch.arange(1, 3001)])
    x = cases.seeded(3001, 5).float()
    fields = {"x": x, "y": torch.zeros(3001, dtype=torch.int64), "num_classes": 3}
    graph = gd.Graph.from_edge_index(edges, 3001, undirected=True, **fields)
    model = models.build("graph-unet", 5, 3, layers=4, pool="300,200,100,50")
    assert model(cases.whole(graph, model, torch.arange(1))).logits.isfinite().all()


@pytest.mark.parametrize("setting", SETTINGS)
def test_rows_on_their_own_are_neither_pooled_nor_gated(setting):
    model, x = unet(**SETTINGS[setting]), cases.seeded(6, 5)
    expected = dense_unet(model, None, x.numpy(), ones=True)
    cases.close(model.alone(x, None, None), torch.from_numpy(expected))


@pytest.mark.parametrize("layer", range(6))
def test_a_mixture_mixes_all_that_later_layers_read(layer):
    """In a linear network it does not matter where states are mixed, if the skips are mixed as well."""
    model, x = unet(layers=2, bias=False), cases.seeded(6, 5)
    assert model.num_states == 6
    mixture = Mixture(layer, 0.3, torch.tensor([3, 0, 5, 1, 2, 4]))
    expected = dense_unet(model, None, mixture(x).numpy(), ones=True)
    cases.close(model.alone(x, None, None, mixture), torch.from_numpy(expected))


def test_every_parameter_is_in_one_group():
    model = unet(layers=3)
    groups = model.parameter_groups()
    named = [id(p) for group in groups.values() for p in group]
    assert sorted(named) == sorted(id(p) for p in model.parameters())
    assert groups["first"][0] is model.convs[0].lin.weight
    assert groups["out"][0] is model.convs[-1].lin.weight


@pytest.mark.parametrize("name", ["neighbor", "cluster", "node", "shadow"])
def test_samplers_are_refused(name):
    model = unet()
    with pytest.raises(
        InputError, match="pools the whole graph, and a batch of .* use the sampler 'full'"
    ):
        gd.check_fit(build_sampler(name), model)
    gd.check_fit(build_sampler("full"), model)


def test_a_batch_of_a_part_is_refused():
    graph, model = cases.tiny(), unet()
    with pytest.raises(InputError, match="this batch is a part of it"):
        model(cases.expanded_batch(graph, model, [0, 2]))
    whole = cases.whole(graph, model)
    subgraph = replace(whole.blocks[0], node_id=torch.arange(20, 32))
    with pytest.raises(InputError, match="this batch is a part of it"):
        model(replace(whole, blocks=(subgraph,)))


def test_it_cannot_be_evaluated_layer_by_layer():
    with pytest.raises(InputError, match="GraphUNet is not made of layers"):
        gd.predict_layerwise(unet(), cases.tiny(), chunk=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "batch"}, "norm is batch, which graph-unet does not define"),
        ({"skip": "identity"}, "its skips are its own"),
        ({"order": "pre"}, "Use order=post"),
        ({"head": "linear"}, "ends in a convolution"),
        ({"gate": "relu"}, "unknown gate 'relu'"),
        ({"pool": "x"}, "pool is 'x'"),
        ({"pool": 0.0}, "pool is 0.0"),
        ({"pool": "2.5"}, "pool is '2.5'"),
        ({"pool": []}, "pool is"),
        ({"pool": "5,4,3", "layers": 2}, "pool has 3 entries, but there are 2 levels"),
        ({"layers": 0}, "layers is 0"),
    ],
)
def test_what_is_not_defined_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        models.build("graph-unet", 5, 3, **options)


def test_it_trains_with_graphmix(tmp_path):
    """Targets of unlabelled nodes are predicted from the whole graph."""
    options = {"passes": 2, "mode": "joint", "mix_layers": "0,3", "ramp_start": 0, "ramp_end": 1}
    config = Config(
        dataset="csbm",
        model="graph-unet",
        hidden=8,
        edge_dropout=0.2,
        regularizer="graphmix",
        regularizer_options=options,
        epochs=3,
        threads=1,
    )
    first, second = (run(replace(config, out=tmp_path / name)) for name in "ab")
    assert first["test"] == second["test"]
    other = run(replace(config, regularizer=None, regularizer_options={}, out=tmp_path / "c"))
    assert other["test"] != first["test"]
