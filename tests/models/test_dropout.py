"""Dropout is keyed: the same step draws the same masks, another step others, evaluation none."""

from dataclasses import replace

import cases
import oracles
import pytest
import torch

from graphdyn.keys import Key
from graphdyn.models.propagate import Hop, drop_edges


def with_dropout(name, **options):
    edge = 0.0 if name in ("mlp", "sage-max") else 0.3
    given = {"dropout": 0.5, "input_dropout": 0.2, "edge_dropout": edge}
    return cases.small_model(name, **given | options)


@pytest.mark.parametrize("name", cases.MODELS)
def test_masks_are_a_function_of_the_key_alone(name):
    graph, model = cases.tiny(), with_dropout(name)
    batch = cases.whole(graph, model, key=Key(1))
    first, second = model(batch).logits, model(batch).logits
    assert torch.equal(first, second)
    assert not torch.allclose(first, model(batch.at(Key(1, step=1))).logits)
    model.eval()
    assert torch.equal(model(batch).logits, model(batch.at(Key(1, step=1))).logits)


@pytest.mark.parametrize("site", ["dropout", "input_dropout", "edge_dropout"])
def test_each_site_alone_changes_training_and_only_training(site):
    graph = cases.tiny()
    plain = cases.small_model("gcn")
    model = cases.small_model("gcn", **{site: 0.5})
    batch = cases.whole(graph, model)
    assert not torch.allclose(model(batch).logits, plain(batch).logits)
    assert torch.equal(model.eval()(batch).logits, plain.eval()(batch).logits)


def test_layers_and_sites_have_masks_of_their_own():
    """The masks of layer 1 and layer 2 would be equal with probability 2^-48."""
    ones = replace(
        cases.whole(cases.tiny(), cases.small_model("mlp")), x=torch.ones(12, 4).double()
    )
    model = cases.small_model("mlp", layers=3, hidden=4, dropout=0.5, activation="none", bias=False)
    from graphdyn.models.dropout import drop_states

    h = torch.ones(12, 4, dtype=torch.float64)
    masks = [drop_states(h, 0.5, "none", ones.key, layer, None) for layer in (1, 2)]
    assert not torch.equal(*masks)
    assert model.training


def test_relu_and_dropout_in_one_pass_equal_the_two_after_each_other():
    from graphdyn.models.dropout import drop_states

    h = cases.seeded(12, 4)
    fused = drop_states(h, 0.5, "relu", Key(2), 1, None)
    apart = drop_states(torch.relu(h), 0.5, "none", Key(2), 1, None)
    assert torch.equal(fused, apart)


def test_edge_dropout_keeps_loops_exact_and_the_expectation():
    graph, model = cases.tiny(), cases.small_model("gcn")
    block = cases.whole(graph, model).blocks[0]
    csc, values = block.adjacency.csc, block.adjacency.values
    loop = csc.indices == csc.dst
    total = torch.zeros_like(values)
    for step in range(2000):
        kept = drop_edges(Hop(block, Key(0, step=step)), 0.25).adjacency.values
        assert torch.equal(kept[loop], values[loop])
        ratio = kept[~loop] / values[~loop]
        assert bool(((ratio == 0) | ((ratio - 4 / 3).abs() < 1e-5)).all())
        total += kept
    error = (total / 2000 / values - 1).abs()
    assert float(error.max()) < 5 * (1 / 3 / 2000) ** 0.5


def test_edge_dropout_of_an_unweighted_block_starts_from_ones():
    graph, model = cases.tiny(), cases.small_model("sage-sum")
    block = cases.whole(graph, model).blocks[0]
    assert block.adjacency.values is None
    kept = drop_edges(Hop(block, Key(0)), 0.5).adjacency.values
    assert set(kept.unique().tolist()) <= {0.0, 1.0, 2.0}


def test_attention_dropout_drops_coefficients_after_the_softmax():
    """Coefficients are 0 or alpha / (1 - p), loops included; they are not renormalised."""
    model = cases.small_model("gat", layers=1, out_heads=1, edge_dropout=0.5, bias=False)
    graph = cases.tiny("empty")  # loops alone: each coefficient is exactly 1
    batch = cases.whole(graph, model)
    dropped, exact = model(batch).logits, model.eval()(batch).logits
    gone = (dropped == 0).all(1)
    assert 0 < int(gone.sum()) < 12
    cases.close(dropped[~gone], 2 * exact[~gone])


def test_appnp_draws_its_edges_anew_at_every_hop():
    graph = cases.tiny("undirected")
    model = cases.small_model("appnp", hops=2, alpha=0.0, edge_dropout=0.5)
    batch = cases.whole(graph, model)
    z0 = model.mlp.run(batch.x, batch, None, hidden=False).logits
    first, second = model(batch).hidden
    block = batch.blocks[0]
    a, b = (
        drop_edges(Hop(block, batch.key.fold("dropout", "edge", k)), 0.5).adjacency.to_dense(
            torch.float64
        )
        for k in (0, 1)
    )
    assert not torch.equal(a, b)
    cases.close(first, a @ z0, 1e-10)
    cases.close(second, b @ a @ z0, 1e-10)


def test_gcnii_drops_where_its_authors_do():
    """Before the first map, before every conv (not in the initial state), before the last map."""
    from graphdyn.models.dropout import drop_features, drop_states

    graph = cases.tiny()
    model = cases.small_model("gcnii", layers=2, dropout=0.5, input_dropout=0.4)
    batch = cases.whole(graph, model)
    a = oracles.adjacency(graph.edge_index, 12)
    h0 = torch.relu(model.encoder(drop_features(batch.x, 0.4, batch.key, None)))
    h = drop_states(h0, 0.5, "none", batch.key, 0, None)
    for layer, conv in enumerate(model.convs, start=1):
        h = torch.relu(oracles.gcnii(a, h, h0, conv.weight, 0.2, 0.7, layer))
        h = drop_states(h, 0.5, "none", batch.key, layer, None)
    cases.close(model(batch).logits, model.head(h))


def test_pre_order_drops_what_each_conv_and_the_head_read():
    from graphdyn.models.dropout import drop_states

    graph = cases.tiny()
    model = cases.small_model("gcn", layers=2, order="pre", dropout=0.5, activation="elu")
    batch = cases.whole(graph, model)
    a, h = oracles.adjacency(graph.edge_index, 12), model.encoder(batch.x)
    for layer, conv in enumerate(model.convs):
        read = drop_states(torch.nn.functional.elu(h), 0.5, "none", batch.key, layer, None)
        h = oracles.gcn(a, read, conv.lin.weight, conv.lin.bias)
    read = drop_states(torch.nn.functional.elu(h), 0.5, "none", batch.key, 2, None)
    cases.close(model(batch).logits, model.head(read))
