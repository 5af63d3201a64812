"""Layers and norms equal PyG's own with the same weights: outputs and gradients.

Where PyG differs on purpose: it merges parallel self-loops of a node into one (we keep them), and
its APPNP and GATConv draw dropout from the global generator. Neither is compared here.
"""

import cases
import pytest
import torch
import torch_geometric.nn as pyg

from graphdyn.models.norms import build_norm

KINDS = ["directed", "parallel", "undirected"]


def agree(model, reference, pairs, kind, **options):
    """Copy the weights, run both on one graph, compare outputs and the gradients of the pairs."""
    graph = cases.tiny(kind)
    for ours, theirs in pairs:
        theirs.data = ours.detach().reshape(theirs.shape).clone()
    out = model(cases.whole(graph, model)).logits
    expected = reference(graph.x, graph.edge_index, **options)
    cases.close(out, expected)
    weight = cases.seeded(*out.shape)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for ours, theirs in pairs:
        cases.close(ours.grad, theirs.grad.reshape(ours.shape))


def single(name, **options):
    """One layer that maps to the classes, with a bias away from zero."""
    model = cases.small_model(name, layers=1, **options)
    for i, parameter in enumerate(model.parameters()):
        parameter.data += 0.1 * cases.seeded(*parameter.shape, seed=i)
    return model, model.convs[0]


@pytest.mark.parametrize("kind", KINDS)
def test_gcn_layer_equals_gcnconv(kind):
    model, conv = single("gcn")
    reference = pyg.GCNConv(5, 3).double()
    pairs = [(conv.lin.weight, reference.lin.weight), (conv.lin.bias, reference.bias)]
    agree(model, reference, pairs, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("aggregator", ["mean", "sum", "max"])
def test_sage_layer_equals_sageconv(aggregator, kind):
    model, conv = single(f"sage-{aggregator}")
    reference = pyg.SAGEConv(5, 3, aggr=aggregator).double()
    pairs = [
        (conv.lin_l.weight, reference.lin_l.weight),
        (conv.lin_l.bias, reference.lin_l.bias),
        (conv.lin_r.weight, reference.lin_r.weight),
    ]
    agree(model, reference, pairs, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concat", [True, False])
def test_gat_layer_equals_gatconv(concat, kind):
    options = {"heads": 1, "out_heads": 1} if concat else {"heads": 2, "out_heads": 3}
    model, conv = single("gat", **options)
    heads = options["out_heads"]
    reference = pyg.GATConv(5, 3, heads=heads, concat=concat).double()
    pairs = [
        (conv.lin.weight, reference.lin.weight),
        (conv.att_src, reference.att_src),
        (conv.att_dst, reference.att_dst),
        (conv.bias, reference.bias),
    ]
    agree(model, reference, pairs, kind)


def test_hidden_gat_layer_concatenates_heads_as_gatconv():
    model = cases.small_model("gat", heads=2, layers=2)
    graph, conv = cases.tiny(), model.convs[0]
    reference = pyg.GATConv(5, 2, heads=2).double()
    for ours, theirs in [
        (conv.lin.weight, reference.lin.weight),
        (conv.att_src, reference.att_src),
        (conv.att_dst, reference.att_dst),
    ]:
        theirs.data = ours.detach().reshape(theirs.shape).clone()
    hidden = model(cases.whole(graph, model)).hidden[0]
    cases.close(hidden, reference(graph.x, graph.edge_index))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False])
def test_gatv2_layer_equals_gatv2conv(shared, kind):
    model, conv = single("gatv2", heads=2, out_heads=2, share_weights=shared)
    reference = pyg.GATv2Conv(5, 3, heads=2, concat=False, share_weights=shared).double()
    pairs = [
        (conv.lin_l.weight, reference.lin_l.weight),
        (conv.lin_l.bias, reference.lin_l.bias),
        (conv.att, reference.att),
        (conv.bias, reference.bias),
    ]
    if not shared:
        pairs.append((conv.lin_r.weight, reference.lin_r.weight))
        pairs.append((conv.lin_r.bias, reference.lin_r.bias))
    agree(model, reference, pairs, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [1, 4])
def test_gcnii_layer_equals_gcn2conv(layer, kind):
    model = cases.small_model("gcnii", layers=layer, alpha=0.3, theta=0.6, activation="none")
    reference = pyg.GCN2Conv(4, alpha=0.3, theta=0.6, layer=layer).double()
    reference.weight1.data = model.convs[-1].weight.detach().t().clone()
    graph = cases.tiny(kind)
    hidden = model(cases.whole(graph, model)).hidden
    h0 = model.encoder(graph.x)
    read = hidden[-2] if layer > 1 else h0
    cases.close(hidden[-1], reference(read, h0, graph.edge_index))


@pytest.mark.parametrize("kind", KINDS)
def test_sgc_equals_sgconv(kind):
    model, conv = single("sgc", hops=3)
    reference = pyg.SGConv(5, 3, K=3).double()
    pairs = [(conv.lin.weight, reference.lin.weight), (conv.lin.bias, reference.lin.bias)]
    agree(model, reference, pairs, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_appnp_propagates_as_appnp(kind):
    model = cases.small_model("appnp", hops=4, alpha=0.15)
    graph = cases.tiny(kind)
    batch = cases.whole(graph, model)
    z0 = model.mlp.run(batch.x, batch, None, hidden=False).logits
    cases.close(model(batch).logits, pyg.APPNP(4, 0.15)(z0, graph.edge_index))


@pytest.mark.parametrize("name", ["batch", "layer", "graph", "pair"])
def test_norm_equals_pygs(name):
    reference = {
        "batch": pyg.BatchNorm(6),
        "layer": pyg.LayerNorm(6, mode="node"),
        "graph": pyg.GraphNorm(6),
        "pair": pyg.PairNorm(),
    }[name].double()
    ours = build_norm(name, 6).double()
    for i, (a, b) in enumerate(zip(ours.parameters(), reference.parameters())):
        a.data = 1.0 + 0.3 * cases.seeded(6, seed=i)
        b.data = a.detach().clone()
    x, y = (cases.seeded(9, 6, seed=7).requires_grad_() for _ in range(2))
    out, expected = ours(x), reference(y)
    cases.close(out, expected, 1e-10)
    (out * cases.seeded(9, 6)).sum().backward()
    (expected * cases.seeded(9, 6)).sum().backward()
    cases.close(x.grad, y.grad, 1e-10)


def test_batch_norm_keeps_running_statistics_and_uses_them_in_evaluation():
    ours, reference = build_norm("batch", 4).double(), pyg.BatchNorm(4).double()
    for seed in range(3):
        x = 2.0 + cases.seeded(8, 4, seed=seed)
        ours(x)
        reference(x)
    cases.close(ours.eval()(x), reference.eval()(x), 1e-10)


@pytest.mark.parametrize("mode", ["cat", "max"])
def test_dense_skip_equals_jumping_knowledge(mode):
    model = cases.small_model("gcn", layers=3, skip=f"dense-{mode}")
    graph = cases.tiny()
    convs = [pyg.GCNConv(i, 4).double() for i in (5, 4, 4)]
    h, outputs = graph.x, []
    for theirs, conv in zip(convs, model.convs):
        theirs.lin.weight.data, theirs.bias.data = conv.lin.weight.data, conv.lin.bias.data
        h = theirs(h, graph.edge_index).relu()
        outputs.append(h)
    expected = model.head(pyg.JumpingKnowledge(mode)(outputs))
    cases.close(model(cases.whole(graph, model)).logits, expected)


def test_self_loops_are_added_once():
    """A graph that has all its loops already gives what PyG gives without adding any."""
    from graphdyn.graph import Graph

    loops = torch.arange(12).repeat(2, 1)
    edges = torch.cat([cases.edge_list(), loops], 1).unique(dim=1)
    plain = cases.tiny()
    graph = Graph.from_edge_index(edges, 12, x=plain.x, y=plain.y, num_classes=3, split=plain.split)
    model, conv = single("gat", out_heads=1)
    reference = pyg.GATConv(5, 3, add_self_loops=False).double()
    reference.lin.weight.data = conv.lin.weight.data
    reference.att_src.data, reference.att_dst.data = (
        conv.att_src.data[None],
        conv.att_dst.data[None],
    )
    reference.bias.data = conv.bias.data
    expected = reference(graph.x, graph.edge_index)
    cases.close(model(cases.whole(graph, model)).logits, expected)
    cases.close(model(cases.whole(plain, model)).logits, expected)
