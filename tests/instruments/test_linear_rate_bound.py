"""LinearRateBound: dense algebra with NumPy, which knows no graphdyn, and who is refused."""

import numpy as np
import pytest
import torch
from cases import NUM_CLASSES, NUM_FEATURES, edge_list, small_model, tiny

import graphdyn as gd
from graphdyn.estimate import Invalid
from graphdyn.groups import Groups
from graphdyn.instruments.linear_rate_bound import (
    LinearRateBound,
    least_eigenvalue,
    smallest_scale,
    span,
)
from graphdyn.keys import Key
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import FunctionProblem
from graphdyn.snapshot import Snapshot

PLAIN = {"activation": "none", "bias": False, "head": "linear", "hidden": 8, "layers": 2}


def squared(logits, batch):
    y = torch.nn.functional.one_hot(batch.y, NUM_CLASSES)
    return (batch.seed_weight * (logits[batch.rows] - y).square().sum(1)).sum()


def snapshot(model, loss=squared, **options):
    graph = tiny("undirected")
    plans, memory = gd.method(sampler="neighbor", fanouts="2,2", batch_size=3).prepare(
        model, graph, key=Key(1)
    )
    problem = NodeProblem(model, graph, plans, memory=memory, loss=loss, **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    return Snapshot(
        step=0,
        epoch=0,
        model=model,
        optimizer=optimizer,
        groups=Groups(model),
        problem=problem,
        key=Key(4),
    )


def measured(s, **options):
    instrument = LinearRateBound(**options)
    instrument.setup(s)
    return {k: float(v.value) for k, v in instrument.measure(s).items()}


def dense(model, skip):
    """Everything once more: matrices written out, gradients by hand."""
    graph = tiny("undirected")
    a = np.eye(12)
    for u, v in edge_list("undirected").T.tolist():
        a[v, u] = 1
    d = a.sum(1) ** -0.5
    s = d[:, None] * a * d
    x, nodes = graph.x.numpy().T, graph.split.train.numpy()
    y = np.eye(NUM_CLASSES)[graph.y[nodes].numpy()].T
    b = [c.lin.weight.detach().numpy() for c in model.convs]
    w = model.head.weight.detach().numpy()
    z = [(x @ np.linalg.matrix_power(s, k).T)[:, nodes] for k in (1, 2)]
    products = [b[0], b[1] @ b[0]]
    if skip == "none":
        heads, z, products = [w], z[1:], products[1:]
    else:
        heads = [w[:, :8], w[:, 8:]]
    f = sum(h @ p @ c for h, p, c in zip(heads, products, z))
    v = 2 / 6 * (f - y)
    dw = [v @ c.T @ p.T for p, c in zip(products, z)]
    if skip == "none":
        db = [b[1].T @ w.T @ v @ z[0].T, w.T @ v @ z[0].T @ b[0].T]
    else:
        db = [
            heads[0].T @ v @ z[0].T + b[1].T @ heads[1].T @ v @ z[1].T,
            heads[1].T @ v @ z[1].T @ b[0].T,
        ]
    g = np.concatenate(z)
    sigma = np.linalg.svd(g, compute_uv=False)
    kept = sigma > 1e-12 * sigma[0]
    rows = np.linalg.svd(g)[2][: kept.sum()]
    gap = (np.square(f - y).sum() - np.square(y - y @ rows.T @ rows).sum()) / 6
    first, second = (sum(np.square(m).sum() for m in part) for part in (dw, db))
    lam = min(np.linalg.svd(p, compute_uv=False)[-1] ** 2 for p in products)
    return {
        "rate": (first + second) / gap,
        "bound": 4 / 6 * lam * sigma[kept][-1] ** 2,
        "lambda": lam,
        "smallest": lam,
        "sigma2": sigma[kept][-1] ** 2,
        "heads": first / (first + second),
    }


@pytest.mark.parametrize("skip", ["none", "dense-cat"])
def test_dense_algebra(skip):
    # Five features of six targets, of full rank, so that the span is the whole space of features.
    model = small_model("gcn", **PLAIN | {"skip": skip})
    found, truth = measured(snapshot(model)), dense(model, skip)
    assert found.pop("ratio") == pytest.approx(truth["rate"] / truth["bound"], rel=1e-5)
    assert found == pytest.approx(truth, rel=1e-5)
    assert truth["rate"] > truth["bound"]


def test_the_bound_is_kept_along_a_descent():
    model = small_model("gcn", **PLAIN | {"skip": "dense-cat"})
    s = snapshot(model)
    batch = next(s.problem.full(Key(0)))
    instrument, lowest = LinearRateBound(), np.inf
    for _ in range(20):
        now = snapshot(model)
        found = instrument.measure(now)
        lowest = min(lowest, float(found["lambda"].value))
        assert float(found["smallest"].value) == lowest
        assert float(found["ratio"].value) >= 1
        for _ in range(10):
            squared(model(batch).logits, batch).backward()
            now.optimizer.step()
            now.optimizer.zero_grad()
        resumed = LinearRateBound()
        resumed.restore(instrument.state())
        instrument = resumed


def test_a_narrow_trunk_has_no_guarantee():
    found = measured(snapshot(small_model("gcn", **PLAIN | {"hidden": 4})))
    assert (found["lambda"], found["bound"], found["ratio"]) == (0, 0, float("inf"))


def test_another_factor():
    def halved(logits, batch):
        return squared(logits, batch) * 3  # |f - Y|^2 / 2 of six targets

    model = small_model("gcn", **PLAIN)
    found, mean = measured(snapshot(model, halved), factor=0.5), measured(snapshot(model))
    assert found["bound"] == pytest.approx(3 * mean["bound"])
    assert found["rate"] == pytest.approx(3 * mean["rate"])


def test_zeros_are_left_out_of_sigma():
    rows = torch.tensor([[3.0, 0, 0], [0, 2, 2], [0, 2, 2]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    sigma2, best = smallest_scale(rows, y)  # singular values 4, 3, 0
    assert float(sigma2) == pytest.approx(9)
    assert float(best) == pytest.approx(0.5)  # the second and third target cannot be told apart
    assert span(rows.T[:, [0, 0]]).shape == (3, 1)


def test_lambda_lives_on_the_span():
    b = torch.diag(torch.tensor([3.0, 2.0, 0.1], dtype=torch.float64))
    inside = torch.eye(3, dtype=torch.float64)[:, :2]
    assert float(least_eigenvalue([b], [inside])) == pytest.approx(4)
    assert float(least_eigenvalue([b, b], [inside])) == pytest.approx(16)
    assert float(least_eigenvalue([b, b], [inside, inside])) == pytest.approx(4)


REFUSED = [
    ({"activation": "relu"}, "activation"),
    ({"bias": True}, "bias"),
    ({"norm": "batch"}, "norm"),
    ({"head": "conv"}, "head"),
    ({"skip": "identity"}, "skip"),
    ({"order": "pre"}, "order"),
    ({"dropout": 0.1}, "dropout"),
]


@pytest.mark.parametrize(("change", "what"), REFUSED)
def test_other_networks_are_refused(change, what):
    s = snapshot(small_model("gcn", **PLAIN | change))
    with pytest.raises(Invalid, match=f"change {what}"):
        LinearRateBound().setup(s)


def test_other_models_and_problems_are_refused():
    with pytest.raises(Invalid, match="graphdyn GCN"):
        LinearRateBound().setup(snapshot(small_model("gat")))
    s = snapshot(small_model("gcn", **PLAIN))
    s.problem = FunctionProblem(lambda m, b: 0, lambda k: 0, num_targets=1, batch_size=1)
    with pytest.raises(Invalid, match="graphdyn GCN on nodes"):
        LinearRateBound().setup(s)


def test_other_losses_are_refused():
    s = snapshot(small_model("gcn", **PLAIN), gd.node_loss)
    with pytest.raises(Invalid, match="about squared errors"):
        LinearRateBound().measure(s)


def test_the_graph_must_be_whole():
    s = snapshot(small_model("gcn", **PLAIN), chunk=2)
    with pytest.raises(Invalid, match="in pieces"):
        LinearRateBound().measure(s)


def test_at_the_optimum_there_is_no_rate():
    model = small_model("gcn", **PLAIN)
    s = snapshot(model)
    batch = next(s.problem.full(Key(0)))
    with torch.no_grad():
        states = model(batch).hidden[-1][batch.rows]
        y = torch.nn.functional.one_hot(batch.y, NUM_CLASSES).double()
        model.head.weight.copy_((torch.linalg.pinv(states, rtol=1e-10) @ y).T)
    assert batch.rows.numel() > NUM_FEATURES
    with pytest.raises(Invalid, match="no rate"):
        LinearRateBound().measure(s)
