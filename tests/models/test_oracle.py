"""Every model x norm x skip x order equals dense algebra: values, gradients, gradients of gradients."""

import cases
import oracles
import pytest
import torch

from graphdyn.loss import node_loss


def parameters_and_batch(name, kind="directed", **options):
    model = cases.small_model(name, **options)
    for i, parameter in enumerate(model.parameters()):  # away from zeros and ones
        parameter.data += 0.1 * cases.seeded(*parameter.shape, seed=i)
    graph = cases.tiny(kind)
    return model, graph, cases.whole(graph, model)


def oracle_of(name, model, graph):
    p, o = cases.state(model), cases.settings(name, model)
    kind = cases.MODELS[name][0]
    return oracles.model(kind, graph.edge_index, graph.num_nodes, graph.x, p, o)


def derivatives(logits, graph, model):
    """Loss, its gradient, and the gradient of a fixed projection of the gradient."""
    train = graph.split.train
    loss = torch.nn.functional.cross_entropy(logits[train], graph.y[train])
    return _derivatives(loss, model)


def _derivatives(loss, model):
    theta = list(model.parameters())
    first = torch.autograd.grad(loss, theta, create_graph=True, allow_unused=True)
    along = sum(
        (g * cases.seeded(*g.shape, seed=i)).sum() for i, g in enumerate(first) if g is not None
    )
    second = torch.autograd.grad(along, theta, allow_unused=True)
    zero = [torch.zeros_like(t) for t in theta]
    return tuple([z if g is None else g for g, z in zip(gs, zero)] for gs in (first, second))


@pytest.mark.parametrize(("name", "norm", "skip", "order"), cases.combinations())
def test_model_equals_dense_algebra_with_two_orders_of_gradients(name, norm, skip, order):
    model, graph, batch = parameters_and_batch(name, norm=norm, skip=skip, order=order)
    out = model(batch)
    logits, hidden = oracle_of(name, model, graph)
    cases.close(out.logits, logits)
    assert len(out.hidden) == len(hidden) == model.num_hops
    for ours, theirs in zip(out.hidden, hidden):
        cases.close(ours, theirs)
    ours = _derivatives(node_loss(out.logits, batch), model)
    for a, b in zip(ours, derivatives(logits, graph, model)):
        for x, y in zip(a, b):
            assert torch.isfinite(x).all()
            cases.close(x, y, 3e-5)


@pytest.mark.parametrize("kind", ["parallel", "undirected", "empty"])
@pytest.mark.parametrize("name", cases.MODELS)
def test_model_equals_dense_algebra_on_odd_graphs(name, kind):
    model, graph, batch = parameters_and_batch(name, kind, skip="linear")
    logits, _ = oracle_of(name, model, graph)
    cases.close(model(batch).logits, logits)


@pytest.mark.parametrize("head", ["conv", "linear"])
@pytest.mark.parametrize("order", cases.ORDERS)
@pytest.mark.parametrize("name", [n for n in cases.MODELS if n != "gcnii"])
def test_both_heads_equal_dense_algebra(name, order, head):
    options = {"order": order, "head": head, "norm": "layer", "skip": "identity"}
    model, graph, batch = parameters_and_batch(name, **options)
    cases.close(model(batch).logits, oracle_of(name, model, graph)[0])


@pytest.mark.parametrize("activation", ["relu", "elu", "none"])
def test_activations_equal_dense_algebra(activation):
    model, graph, batch = parameters_and_batch("gcn", activation=activation)
    cases.close(model(batch).logits, oracle_of("gcn", model, graph)[0])


def test_a_gcn_without_activation_is_linear_in_the_features():
    model = cases.small_model("gcn", activation="none", bias=False)
    graph = cases.tiny()
    batch = cases.whole(graph, model)
    p = cases.state(model)
    w = p["convs.0.lin.weight"].t() @ p["convs.1.lin.weight"].t() @ p["convs.2.lin.weight"].t()
    a = oracles.adjacency(graph.edge_index, graph.num_nodes)
    cases.close(model(batch).logits, a @ a @ a @ graph.x @ w)


@pytest.mark.parametrize("name", cases.MODELS)
def test_sparse_features_equal_dense_features(name):
    graph = cases.tiny(sparse=True)
    model = cases.small_model(name, skip="linear")
    sparse = cases.whole(graph, model)
    object.__setattr__(graph, "x", graph.x.to_dense(torch.float64))
    cases.close(model(sparse).logits, model(cases.whole(graph, model)).logits, 1e-12)


def test_sparse_features_can_be_skipped():
    graph = cases.tiny(sparse=True)
    model = cases.small_model("gcn", skip="identity", hidden=cases.NUM_FEATURES)
    sparse = model(cases.whole(graph, model)).logits
    object.__setattr__(graph, "x", graph.x.to_dense(torch.float64))
    cases.close(sparse, model(cases.whole(graph, model)).logits, 1e-12)


@pytest.mark.parametrize("name", ["gat", "gatv2"])
def test_attention_adds_the_log_of_the_scale(name):
    from dataclasses import replace

    model, graph, batch = parameters_and_batch(name, layers=1, out_heads=2)
    block = batch.blocks[0]
    csc = block.adjacency.csc
    scale = 1.0 + torch.arange(csc.num_edges, dtype=torch.float64)
    edges = torch.stack([csc.indices.long(), csc.dst.long()])
    p = oracles.sub(cases.state(model), "convs.0")
    if name == "gat":
        weights = (p["lin.weight"], p["att_src"], p["att_dst"], p["bias"])
        expected = oracles.gat(edges, 12, graph.x, *weights, True, scale=scale)
    else:
        src = graph.x @ p["lin_l.weight"].t() + p["lin_l.bias"]
        dst = graph.x @ p["lin_r.weight"].t() + p["lin_r.bias"]
        expected = oracles.gatv2(edges, 12, src, dst, p["att"], p["bias"], True, scale=scale)
    scaled = replace(batch, blocks=(replace(block, scale=scale),))
    cases.close(model(scaled).logits, expected)


@pytest.mark.parametrize("name", ["gcn", "gat"])
def test_gradients_of_two_orders_pass_gradgradcheck(name):
    model = cases.small_model(name, layers=2, out_heads=1) if name == "gat" else None
    model = model or cases.small_model(name, layers=2, activation="elu")
    batch = cases.whole(cases.tiny(), model)
    theta = {k: v.detach().requires_grad_() for k, v in model.named_parameters()}

    def loss(*values):
        out = torch.func.functional_call(model, dict(zip(theta, values)), (batch,))
        return node_loss(out.logits, batch)

    assert torch.autograd.gradcheck(loss, tuple(theta.values()))
    assert torch.autograd.gradgradcheck(loss, tuple(theta.values()))
