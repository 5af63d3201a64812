"""One forward for the full graph and for blocks: exact expansion gives exactly the full graph's rows."""

from dataclasses import replace

import cases
import pytest
import torch

from graphdyn.loss import node_loss

SEEDS = [4, 11, 0, 9]
TRUNKS = [
    {},
    {"skip": "identity", "norm": "batch"},
    {"skip": "linear", "norm": "layer"},
    {"skip": "dense-cat"},
    {"skip": "dense-max", "order": "pre", "norm": "layer"},
    {"skip": "initial"},
    {"skip": "identity", "order": "pre", "norm": "batch"},
]
RUNS = [
    pytest.param(name, trunk, id=f"{name}-{'-'.join(trunk.values()) or 'plain'}")
    for name in cases.MODELS
    for trunk in TRUNKS
    if not (name == "gcnii" and trunk.get("skip") == "initial")
]


def warmed(name, graph, **options):
    """A model whose batch norms have seen the graph, so that evaluation is not the identity."""
    model = cases.small_model(name, **options)
    model(cases.whole(graph, model))
    return model


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("name", "trunk"), RUNS)
def test_blocks_give_the_logits_and_hidden_rows_of_the_full_graph(name, trunk, sparse):
    graph = cases.tiny(sparse=sparse)
    model = warmed(name, graph, **trunk).eval()
    full = model(cases.whole(graph, model))
    batch = cases.expanded_batch(graph, model, SEEDS)
    part = model(batch)
    cases.close(part.logits, full.logits[SEEDS], 1e-10)
    for block, ours, theirs in zip(batch.blocks, part.hidden, full.hidden):
        cases.close(ours, theirs[block.node_id[: block.num_dst]], 1e-10)


@pytest.mark.parametrize("name", cases.MODELS)
@pytest.mark.parametrize("trunk", [{}, {"skip": "initial"}, {"skip": "identity", "order": "pre"}])
def test_a_node_has_the_same_masks_in_a_batch_and_in_the_full_graph(name, trunk):
    if name == "gcnii" and trunk.get("skip") == "initial":
        trunk = {"skip": "linear"}
    dropout = {"dropout": 0.5, "input_dropout": 0.3, "edge_dropout": 0.4}
    if name in ("mlp", "sage-max"):
        dropout["edge_dropout"] = 0.0
    graph = cases.tiny()
    model = cases.small_model(name, norm="layer", **dropout, **trunk)
    full = model(cases.whole(graph, model)).logits
    part = model(cases.expanded_batch(graph, model, SEEDS)).logits
    cases.close(part, full[SEEDS], 1e-10)
    assert not torch.allclose(full, model.eval()(cases.whole(graph, model)).logits)


def test_sparse_and_dense_features_lose_the_same_entries():
    graph = cases.tiny(sparse=True)
    model = cases.small_model("gcn", input_dropout=0.5)
    for batch in (cases.whole(graph, model), cases.expanded_batch(graph, model, SEEDS)):
        thick = replace(batch, x=batch.x.to_dense(torch.float64))
        cases.close(model(batch).logits, model(thick).logits, 1e-10)


@pytest.mark.parametrize("name", cases.MODELS)
def test_gradients_of_an_exact_batch_are_those_of_the_full_graph(name):
    graph = cases.tiny()
    model = cases.small_model(name, dropout=0.5)
    nodes = torch.tensor(SEEDS)
    batches = cases.whole(graph, model, nodes), cases.expanded_batch(graph, model, SEEDS)
    theta = list(model.parameters())
    a, b = (
        torch.autograd.grad(node_loss(model(batch).logits, batch), theta, allow_unused=True)
        for batch in batches
    )
    for x, y in zip(a, b):
        assert (x is None) == (y is None)
        if x is not None:
            cases.close(x, y, 1e-7)  # the full batch's weights are float32


def test_the_aggregate_of_a_layer_is_linear_in_the_blocks_values():
    """A sampler scales values; the model must not normalise them away."""
    graph = cases.tiny()
    model = cases.small_model("gcn", layers=1, bias=False)
    batch = cases.whole(graph, model)
    block = batch.blocks[0]
    doubled = replace(block, adjacency=replace(block.adjacency, values=2 * block.adjacency.values))
    out = model(replace(batch, blocks=(doubled,))).logits
    cases.close(out, 2 * model(batch).logits, 1e-12)
