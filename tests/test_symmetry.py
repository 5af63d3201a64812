"""Symmetries of architectures: the published table, foreign models, and the loss itself as judge."""

import copy

import numpy as np
import oracles
import pytest
import torch
from instruments import layered
from torch import nn

from graphdyn import models
from graphdyn.data.synthetic import csbm
from graphdyn.estimate import Invalid
from graphdyn.keys import Key
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import FunctionProblem
from graphdyn.samplers import build as build_sampler
from graphdyn.symmetry import find_symmetry, label, mode_of

DEEP = {"layers": 3, "hidden": 8, "head": "linear"}


def graph():
    return csbm(60, 4.0, 3, 7, split="random-0.5-0.25-0.25", key=Key(3))


def problem(model, g=None):
    g = graph() if g is None else g
    plans = build_sampler("full").prepare(g, model.propagation, model.num_hops)
    return NodeProblem(model, g, plans)


def found(name, **options):
    model = models.build(name, 7, 3, **options)
    return model, find_symmetry(model, problem(model).toy)


def scale(*names, minus=()):
    return dict.fromkeys(names, 1) | dict.fromkeys(minus, -1)


def affine(layer):
    return f"norms.{layer}.weight", f"norms.{layer}.bias"


def W(layer):
    return f"convs.{layer}.lin.weight"


def b(layer):
    return f"convs.{layer}.lin.bias"


HEAD = "head.weight"
LAST = scale(*affine(2), minus=[HEAD])
ROWS_NORM = {
    "invariant": [scale(W(k), b(k)) for k in range(3)],
    "rescaling": [*(scale(*affine(k), minus=[W(k + 1)]) for k in range(2)), LAST],
    "silent": [],
}
BATCH = {
    "invariant": [*(scale(W(k)) for k in range(3)), scale(*affine(0)), scale(*affine(1))],
    "rescaling": [LAST],
    "silent": [b(0), b(1), b(2)],
}
STREAM = scale(*affine(0), *affine(1), *affine(2), minus=[HEAD])
TABLE = {
    "no norm, no bias": (
        ("gcn", DEEP | {"bias": False}),
        {
            "invariant": [],
            "rescaling": [scale(W(0), minus=[n]) for n in (W(1), W(2), HEAD)],
            "silent": [],
        },
    ),
    "no norm, bias": (
        ("gcn", DEEP),
        {
            "invariant": [],
            "rescaling": [scale(W(k), b(k), minus=[n]) for k, n in enumerate((W(1), W(2), HEAD))],
            "silent": [],
        },
    ),
    "batch norm": (("gcn", DEEP | {"norm": "batch"}), BATCH),
    "weighted batch norm": (("gcn", DEEP | {"norm": "weighted-batch"}), BATCH),
    "layer norm": (("gcn", DEEP | {"norm": "layer"}), ROWS_NORM),
    "graph norm": (("gcn", DEEP | {"norm": "graph"}), ROWS_NORM),
    "pair norm": (
        ("gcn", DEEP | {"norm": "pair"}),
        {"invariant": [scale(W(k)) for k in range(3)], "rescaling": [], "silent": BATCH["silent"]},
    ),
    "SAGE and batch norm": (
        ("sage", DEEP | {"norm": "batch"}),
        {
            "invariant": [
                *(scale(f"convs.{k}.lin_l.weight", f"convs.{k}.lin_r.weight") for k in range(3)),
                *(scale(*affine(k)) for k in range(2)),
            ],
            "rescaling": [LAST],
            "silent": [f"convs.{k}.lin_l.bias" for k in range(3)],
        },
    ),
    "GAT and batch norm": (
        ("gat", DEEP | {"norm": "batch", "heads": 2, "activation": "relu"}),
        {
            "invariant": [],
            "rescaling": [
                *(
                    scale(W(k), minus=[f"convs.{k}.att_src", f"convs.{k}.att_dst"])
                    for k in range(3)
                ),
                *(scale(W(k), minus=affine(k - 1)) for k in (1, 2)),
                LAST,
            ],
            "silent": [f"convs.{k}.bias" for k in range(3)],
        },
    ),
    "batch norm and identity skips": (
        ("gcn", DEEP | {"norm": "batch", "skip": "identity"}),
        {
            "invariant": [scale(W(k)) for k in range(3)],
            "rescaling": [STREAM],
            "silent": BATCH["silent"],
        },
    ),
    "GCNII": (
        ("gcnii", {"layers": 5, "hidden": 8}),
        {
            "invariant": [],
            "rescaling": [scale("encoder.weight", "encoder.bias", minus=[HEAD])],
            "silent": [],
        },
    ),
}


def space(generators, names):
    rows = np.array([[g.get(n, 0) for n in names] for g in generators], float)
    if not len(rows):
        return np.zeros((len(names), len(names)))
    q, _ = np.linalg.qr(rows.T)
    return q @ q.T


@pytest.mark.parametrize("row", TABLE)
def test_the_table(row):
    (name, options), expected = TABLE[row]
    model, s = found(name, **options)
    names = [n for n, _ in model.named_parameters()]
    assert {label(g) for g in s.invariant} == {label(g) for g in expected["invariant"]}
    assert set(s.silent) == set(expected["silent"])
    every = [*expected["invariant"], *expected["rescaling"]]
    assert len(s.rescaling) == len(expected["rescaling"])
    mine = space([*s.invariant, *s.rescaling], names)
    np.testing.assert_allclose(mine, space(every, names), atol=1e-12)
    assert all(min(g.values()) < 0 < max(g.values()) for g in s.rescaling)


ROOT = {"aggregator": "mean", "alpha": 0.1, "theta": 0.5}


def dense_loss(name, model, values):
    """The loss of a model on a graph of its own, by dense algebra, at any weights."""
    g = csbm(40, 5.0, 3, 7, key=Key(99))
    logits, _ = oracles.model(
        name, g.edge_index, g.num_nodes, g.x.double(), values, vars(model.options) | ROOT
    )
    y = torch.arange(g.num_nodes) % 3
    return nn.functional.cross_entropy(logits, y).detach()


JUDGED = [
    *("no norm, bias", "batch norm", "layer norm", "graph norm", "pair norm"),
    *("SAGE and batch norm", "GAT and batch norm", "batch norm and identity skips", "GCNII"),
]


@pytest.mark.parametrize("row", JUDGED)
def test_the_loss_on_other_data_and_weights_does_not_see_a_generator_and_sees_all_else(row):
    name, options = TABLE[row][0]
    model, s = found(name, **options)
    model.double()
    rng = torch.Generator().manual_seed(6)
    at = {  # sizes that keep every part alive
        n: torch.randn(p.shape, generator=rng, dtype=p.dtype)
        * (4 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.7)
        for n, p in model.named_parameters()
    }
    before = dense_loss(name, model, at)

    def change(generator, eps):
        moved = {n: v * np.exp(generator.get(n, 0) * eps) for n, v in at.items()}
        return abs(float(dense_loss(name, model, moved) - before))

    kept = [max(change(g, 0.4), change(g, -0.7)) for g in (*s.invariant, *s.rescaling)]
    one = [{n: 1} for n in at if {n: 1} not in s.invariant and n not in s.silent]
    seen = [change(g, 0.4) for g in one]
    assert max(kept) < 3e-4
    assert min(seen) > 3 * max(kept)


def test_heads_of_attention_share_one_generator():
    """GATv2: att against all that it reads; the bias of a layer in front of a norm is silent."""
    _, s = found("gatv2", norm="batch", heads=4, activation="relu", **DEEP)
    first = {"convs.0.att": 1} | dict.fromkeys(
        [f"convs.0.lin_{side}.{part}" for side in "lr" for part in ("weight", "bias")], -1
    )
    assert first in s.rescaling
    assert not s.invariant
    assert set(s.silent) == {f"convs.{k}.bias" for k in range(3)}


def test_an_activation_that_is_not_homogeneous_leaves_less():
    _, s = found("gcn", **(DEEP | {"activation": "elu"}))
    assert not s.invariant
    assert not s.rescaling


def test_twelve_layers():
    _, s = found("gcnii", layers=12, hidden=8, norm="batch")
    expected = ["encoder.weight", "encoder.bias", *(n for k in range(11) for n in affine(k))]
    assert [set(g) for g in s.invariant] == [set(expected)]
    assert [label(g) for g in s.rescaling] == ["norms.11.weight + norms.11.bias - head.weight"]


# ----------------------------------------------------------------------------- models of others


class Net(nn.Module):
    """A plain torch net on (x, y); the forward is given."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def lin(a, b, bias=False):
    return nn.Linear(a, b, bias=bias)


def toy(key):
    rng = key.fold("data").generator()
    x = torch.randn(20, 6, generator=rng, dtype=torch.float64)
    y = torch.randint(3, (20,), generator=rng)
    return lambda model: nn.functional.cross_entropy(model(x), y)


def search(forward, **parts):
    return find_symmetry(Net(forward, **parts), toy)


def labels(generators):
    return {label(g) for g in generators}


def test_tied_weights_count_as_often_as_they_are_used():
    def forward(m, x):
        h = torch.relu(m.inner(x))
        h = m.norm(m.once(x) + torch.relu(m.twice(torch.relu(m.twice(h)))))
        return m.out(torch.relu(h))

    norm = nn.BatchNorm1d(6, affine=False)
    s = search(forward, inner=lin(6, 6), once=lin(6, 6), twice=lin(6, 6), norm=norm, out=lin(6, 3))
    # inner (twice)^2 scales as once: (inner, once) and (2 inner, -twice) span the space
    assert labels(s.invariant) == {"inner.weight + once.weight"}
    assert labels(s.rescaling) == {"2 inner.weight - twice.weight"}


def test_coefficients_that_are_not_one():
    def forward(m, x):
        return m.out(m.norm(m.once(x) + torch.relu(m.twice(torch.relu(m.twice(x))))))

    norm = nn.LayerNorm(6, elementwise_affine=False)
    s = search(forward, once=lin(6, 6), twice=lin(6, 6), norm=norm, out=lin(6, 3))
    assert labels(s.invariant) == {"2 once.weight + twice.weight"}
    assert s.scale_invariant == {}  # no common factor


def test_residual_stream_without_a_last_norm_has_no_invariant_set():
    def forward(m, x):
        h = m.enter(x)
        h = h + m.one(torch.relu(m.norm(h)))
        return m.out(h)

    parts = {"enter": lin(6, 8), "one": lin(8, 8), "norm": nn.BatchNorm1d(8), "out": lin(8, 3)}
    s = search(forward, **parts)
    assert not s.invariant
    assert labels(s.rescaling) == {
        "one.weight - norm.weight - norm.bias",
        "enter.weight + one.weight - out.weight",
    }


def test_functional_dropout_does_not_hide_a_symmetry():
    def forward(m, x):
        h = nn.functional.dropout(torch.relu(m.one(x)), 0.5, training=True)
        return m.two(m.drop(h))

    s = search(forward, one=lin(6, 8), two=lin(8, 3), drop=nn.Dropout(0.5))
    assert labels(s.rescaling) == {"one.weight - two.weight"}
    assert s.residual < 1e-12


def batch_net(**options):
    parts = {"one": lin(6, 8, True), "norm": nn.BatchNorm1d(8, **options), "two": lin(8, 3)}
    return Net(lambda m, x: m.two(torch.relu(m.norm(m.one(x)))), **parts)


def test_frozen_parts_change_the_answer():
    model = batch_net()
    s = find_symmetry(model, toy)
    assert labels(s.invariant) == {"one.weight"}
    assert labels(s.rescaling) == {"norm.weight + norm.bias - two.weight"}
    assert s.silent == ("one.bias",)
    model.norm.eval().running_mean.fill_(0.3)
    still = find_symmetry(model, toy)
    assert not still.invariant
    assert labels(still.rescaling) == {"norm.weight + norm.bias - two.weight"}
    assert not still.silent
    model.norm.train().bias.requires_grad_(False).fill_(0.2)
    frozen = find_symmetry(model, toy)
    assert labels(frozen.invariant) == {"one.weight"}
    assert not frozen.rescaling
    assert len({s.mode, still.mode, frozen.mode}) == 3


def test_a_model_in_evaluation_is_looked_at_in_training():
    model = batch_net()
    before = find_symmetry(model, toy)
    assert find_symmetry(model.eval(), toy) == before
    assert mode_of(model) == ((), ())


def test_an_eps_that_is_not_small_breaks_the_symmetry_and_a_small_one_is_in_the_residual():
    assert find_symmetry(batch_net(eps=0.5), toy).invariant == ()
    exact, rough = (find_symmetry(batch_net(eps=e), toy) for e in (1e-12, 1e-4))
    assert labels(exact.invariant) == labels(rough.invariant) == {"one.weight"}
    assert exact.residual < 1e-9 < 1e-6 < rough.residual


def test_parameters_that_nothing_reads_are_silent():
    s = search(
        lambda m, x: m.two(torch.relu(m.one(x))), one=lin(6, 4), two=lin(4, 3), rest=lin(2, 2)
    )
    assert s.silent == ("rest.weight",)


def test_the_model_is_left_as_it_is_and_its_hooks_do_not_run():
    model = batch_net()
    state = copy.deepcopy(model.state_dict())
    called = []
    model.one.register_forward_hook(lambda *a: called.append(1))
    generator = torch.get_rng_state()
    find_symmetry(model, toy)
    assert not called
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())
    assert model.training


def test_equal_keys_give_equal_results_and_other_keys_the_same_structure():
    model = batch_net()
    first, again, other = (find_symmetry(model, toy, key=Key(k)) for k in (0, 0, 1))
    assert first == again
    assert (first.invariant, first.rescaling) == (other.invariant, other.rescaling)
    assert first.residual != other.residual


def test_what_cannot_be_computed_is_said():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(6, 3))

        def forward(self, x):
            return x @ self.w @ torch.ones(3, 3)  # float32, whatever the model is

    with pytest.raises(Invalid, match="float64 copy"):
        find_symmetry(Fixed(), toy)
    with pytest.raises(Invalid, match="no finite gradient"):
        search(lambda m, x: m.one(x).detach().requires_grad_() * torch.nan, one=lin(6, 3))


def test_problems_make_small_data():
    model = batch_net()

    def draw(key):
        rng = key.generator()
        return {"x": torch.randn(9, 6, generator=rng), "y": [torch.randint(3, (9,), generator=rng)]}

    def loss(m, batch):
        return nn.functional.cross_entropy(m(batch["x"]), batch["y"][0])

    p = FunctionProblem(loss, draw, num_targets=9, batch_size=9)
    assert labels(find_symmetry(model, p.toy).invariant) == {"one.weight"}


def test_multilabel_graphs_have_toys():
    import dataclasses

    g = graph()
    y = nn.functional.one_hot(g.y, 3).float()
    g = dataclasses.replace(g, y=y, task="multilabel")
    model = models.build("gcn", 7, 3, **DEEP, norm="batch")
    s = find_symmetry(model, problem(model, g).toy)
    assert {label(x) for x in s.invariant} == {label(x) for x in BATCH["invariant"]}


def test_norms_over_ranks_are_looked_at_alone():
    class World:
        def __deepcopy__(self, memo):
            raise RuntimeError("sockets cannot be copied")

    model = batch_net()
    model.norm.world = World()
    assert labels(find_symmetry(model, toy).invariant) == {"one.weight"}


def test_a_model_that_cannot_be_copied_is_said():
    model = batch_net()
    model.kept = model.one.weight * 2  # not a leaf
    with pytest.raises(Invalid, match="cannot be copied"):
        find_symmetry(model, toy)


PYG = {
    "GCN": ({f"convs.{k}.lin.weight" for k in (0, 1)}, {f"convs.{k}.bias" for k in (0, 1)}),
    "GraphSAGE": (
        {f"convs.{k}.lin_l.weight + convs.{k}.lin_r.weight" for k in (0, 1)},
        {f"convs.{k}.lin_l.bias" for k in (0, 1)},
    ),
    "GIN": (
        {"convs.2.nn.lins.0.weight"}
        | {f"convs.{k}.nn.lins.{i}.weight" for k in (0, 1) for i in (0, 1)},
        {"convs.2.nn.lins.0.bias"}
        | {f"convs.{k}.nn.lins.{i}.bias" for k in (0, 1) for i in (0, 1)},
    ),
}


@pytest.mark.parametrize("name", PYG)
def test_unmodified_models_of_pyg(name):
    model = layered.pyg_model(name, norm="BatchNorm")
    s = find_symmetry(model, layered.pyg_problem(model, layered.graph()).toy)
    weights, silent = PYG[name]
    assert {label(g) for g in s.invariant if not any("norms" in n for n in g)} == weights
    assert set(s.silent) == silent
    assert len(s.rescaling) == 1  # the last norm against what reads it
