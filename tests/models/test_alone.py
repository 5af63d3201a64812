"""Rows on their own equal the model on the graph of loops, and mixed rows are pairs in all that is read of them."""

import cases
import oracles
import pytest
import torch

from graphdyn.keys import Key
from graphdyn.models import build
from graphdyn.models.alone import Mixture, identity_block, untracked

GRAPHS = [name for name in cases.MODELS if name != "mlp"]
ROWS = 7


def rows(seed=0):
    return cases.seeded(ROWS, cases.NUM_FEATURES, seed=seed)


def moved(name, **options):
    model = cases.small_model(name, **options)
    for i, parameter in enumerate(model.parameters()):  # away from zeros and ones
        parameter.data += 0.1 * cases.seeded(*parameter.shape, seed=i)
    return model


def partner():
    return Key(3).permutation(ROWS)


@pytest.mark.parametrize(("name", "norm", "skip", "order"), cases.combinations())
def test_it_is_the_model_on_the_graph_in_which_every_node_is_its_only_neighbour(
    name, norm, skip, order
):
    model, x = moved(name, norm=norm, skip=skip, order=order), rows()
    loops = torch.arange(ROWS).expand(2, -1)
    kind, o = cases.MODELS[name][0], cases.settings(name, model)
    expected, _ = oracles.model(kind, loops, ROWS, x, cases.state(model), o)
    cases.close(model.alone(x, None, None), expected, 1e-9)


@pytest.mark.parametrize("name", ["gcn", "sage-mean"])
def test_a_layer_is_a_linear_map_of_the_row(name):
    model, x = moved(name, layers=1), rows()
    p = cases.state(model)
    if name == "gcn":
        expected = x @ p["convs.0.lin.weight"].t() + p["convs.0.lin.bias"]
    else:
        w = p["convs.0.lin_l.weight"] + p["convs.0.lin_r.weight"]
        expected = x @ w.t() + p["convs.0.lin_l.bias"]
    cases.close(model.alone(x, None, None), expected, 1e-12)


@pytest.mark.parametrize("skip", cases.SKIPS)
@pytest.mark.parametrize("order", cases.ORDERS)
@pytest.mark.parametrize("name", GRAPHS)
def test_mixing_wholly_or_not_at_all_swaps_rows_or_leaves_them_at_every_layer(name, order, skip):
    """What is forgotten (the initial state, states that the head reads) would still be the row's own."""
    if name == "gcnii" and skip == "initial":
        pytest.skip("refused by the model")
    model, x, other = (
        moved(name, order=order, skip=skip, head="linear", norm="layer"),
        rows(),
        partner(),
    )
    apart = model.alone(x, None, None)
    assert model.num_states >= 2
    for layer in range(model.num_states):
        swapped = model.alone(x, None, None, Mixture(layer, 0.0, other))
        cases.close(swapped, apart[other], 1e-10)
        cases.close(model.alone(x, None, None, Mixture(layer, 1.0, other)), apart, 1e-12)


def test_mixed_states_of_a_gcn_equal_dense_algebra():
    model, x, other, share = moved("gcn", layers=3), rows(), partner(), 0.3
    p = cases.state(model)

    def mix(h):
        return share * h + (1 - share) * h[other]

    for layer in range(3):
        h = x
        for i in range(3):
            h = mix(h) if i == layer else h
            h = h @ p[f"convs.{i}.lin.weight"].t() + p[f"convs.{i}.lin.bias"]
            h = h.relu() if i < 2 else h
        ours = model.alone(x, None, None, Mixture(layer, share, other))
        cases.close(ours, h, 1e-12)
        assert layer == 0 or not torch.allclose(
            ours, model.alone(x, None, None, Mixture(layer - 1, share, other))
        )


@pytest.mark.parametrize("name", GRAPHS)
def test_without_activation_it_does_not_matter_where_pairs_are_made(name):
    model, x = moved(name, activation="none", skip="dense-cat"), rows()
    mixtures = [Mixture(layer, 0.7, partner()) for layer in range(model.num_states)]
    first, *rest = [model.alone(x, None, None, m) for m in mixtures]
    for other in rest:
        cases.close(first, other, 1e-10)


def test_masks_belong_to_nodes_and_layers_as_in_the_model():
    model = moved("gcn", dropout=0.5, input_dropout=0.4)
    x, key = rows(), Key(4).at(step=3)
    ids = torch.tensor([5, 9, 5, 0, 1, 2, 3])
    x[2] = x[0]
    out = model.alone(x, ids, key)
    assert torch.equal(out[0], out[2])  # one node, one mask
    shuffled = model.alone(x.flip(0), ids.flip(0), key).flip(0)
    cases.close(out, shuffled, 1e-12)
    assert not torch.allclose(out, model.alone(x, ids, key.fold("other")))
    assert not torch.allclose(out, model.alone(x, ids, None))


@pytest.mark.parametrize("layer", [0, 1])
def test_sparse_features_equal_dense_ones(layer):
    graph, model = cases.tiny(sparse=True), moved("gcn", dropout=0.5, input_dropout=0.4)
    ids, key = torch.tensor([3, 0, 8, 3, 1, 2, 5]), Key(2)
    mixture = Mixture(layer, 0.3, partner())
    sparse = model.alone(graph.x.rows(ids), ids, key, mixture)
    dense = model.alone(graph.x.to_dense(torch.float64)[ids], ids, key, mixture)
    cases.close(sparse, dense, 1e-12)


def test_no_edge_is_dropped_where_there_is_none():
    model = moved("gat", edge_dropout=0.9, dropout=0.0)
    ours = model.alone(rows(), None, Key(1))
    cases.close(ours, model.alone(rows(), None, None), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["batch", "weighted-batch"])
def test_running_statistics_hear_nothing(norm, dtype):
    model = build("gcn", cases.NUM_FEATURES, 3, hidden=4, norm=norm, dropout=0.5).to(dtype)
    before = {n: b.clone() for n, b in model.named_buffers()}
    x = rows().to(dtype)
    model.alone(x, torch.arange(ROWS), Key(0), Mixture(1, 0.4, partner())).sum().backward()
    after = dict(model.named_buffers())
    assert len(before) == 3
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert all(n.track_running_stats for n in model.norms)
    batch = cases.whole(cases.tiny(dtype=dtype), model)
    with untracked(model.modules()), torch.no_grad():
        hushed = model(batch).logits
    assert all(torch.equal(before[n], after[n]) for n in before)
    cases.close(model(batch).logits.detach(), hushed, 1e-5)  # statistics of the rows, either way
    assert not all(torch.equal(before[n], b) for n, b in model.named_buffers())


def test_a_norm_in_evaluation_keeps_what_it_has_collected():
    model = cases.small_model("gcn", norm="batch").eval()
    with untracked(model.modules()):
        assert all(norm.running_mean is not None for norm in model.norms)


def test_the_block_of_loops():
    block = identity_block(3, torch.device("cpu"))
    assert block.adjacency.to_dense(torch.float64).tolist() == torch.eye(3).tolist()


def test_no_rows_are_no_logits():
    model = moved("gcn", norm="batch")
    none = torch.zeros(0, dtype=torch.int64)
    out = model.alone(rows()[:0], none, Key(0), Mixture(1, 0.5, none))
    assert out.shape == (0, cases.NUM_CLASSES)
