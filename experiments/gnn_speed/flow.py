"""Gradient flow of linear and ReLU graph networks: the models, several runs at once, and the descent.

Notation of Xu, Zhang, Jegelka & Kawaguchi 2021: X (features x nodes), S the shift operator, I the training
nodes, B_1..B_H the trunk, W the head; loss |f - Y|_F^2 / n over n training nodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch

import graphdyn as gd
from graphdyn.graph import Propagation

REFRESH = 25  # steps between two looks at the curvature
STRAY = 0.1  # relative deviation of a step's decrease from that of the flow; then it is taken back
Tensors = list[torch.Tensor]


class GIN(gd.GCN):
    """The same layers with the shift A + I."""

    propagation = Propagation("none", self_loops=True)


SHIFTS = {"gcn": gd.GCN, "gin": GIN}
# Name here -> (skip of graphdyn's GCN, whether the head reads the features, too).
ARCHITECTURES = {
    "plain": ("none", False),
    "residual": ("identity", False),
    "dense": ("dense-cat", True),
}


@dataclass(frozen=True, eq=False)
class Task:
    """A data set under a shift: X S^l at the training nodes, for every l, and the labels.

    Attributes:
        graph: The data.
        shift: Name in SHIFTS.
        scales: (features, n) X S^l for l = 0, 1, ...
        y: (classes, n) one-hot.
    """

    graph: gd.Graph
    shift: str
    scales: list[np.ndarray]
    y: torch.Tensor

    @classmethod
    def of(cls, graph: gd.Graph, shift: str, most: int) -> "Task":
        """With X S^0 .. X S^most."""
        matrix = graph.adjacency(SHIFTS[shift].propagation)
        csc = matrix.csc
        values = np.ones(csc.num_edges) if matrix.values is None else matrix.values.double().numpy()
        s = sp.csr_array((values, csc.indices.numpy(), csc.indptr.numpy()), (graph.num_nodes,) * 2)
        x = graph.x if isinstance(graph.x, torch.Tensor) else graph.x.to_dense()
        rows, scales = x.double().numpy(), []
        train = graph.split.train
        for _ in range(most + 1):
            scales.append(rows[train.numpy()].T)
            rows = s @ rows
        labels = torch.nn.functional.one_hot(graph.y[train], graph.num_classes)
        return cls(graph, shift, scales, labels.double().T)

    def model(self, arch: str, depth: int, hidden: int, seed: int, activation: str) -> Any:
        """graphdyn's own, float64."""
        kind, skip = SHIFTS[self.shift], ARCHITECTURES[arch][0]
        sizes = self.graph.num_features, self.graph.num_classes
        options = {"hidden": hidden, "layers": depth, "skip": skip, "seed": seed}
        return kind(*sizes, activation=activation, bias=False, head="linear", **options).double()

    def features_head(self, seed: int) -> torch.Tensor:
        """(classes, features) W_0 of the dense architecture, Glorot."""
        shape = self.y.shape[0], self.scales[0].shape[0]
        rng = gd.Key(seed).fold("features head").generator()
        bound = (6 / sum(shape)) ** 0.5
        return (2 * torch.rand(shape, generator=rng, dtype=torch.float64) - 1) * bound

    def labels(self, kind: str) -> torch.Tensor:
        """True ones, or the same ones dealt out at random."""
        return self.y if kind == "true" else self.y[:, gd.Key(9).permutation(self.y.shape[1])]


class Net(Protocol):
    """R runs. ``heads`` are W, or W_0..W_H; ``trunk`` is B_1..B_H; each with R in front."""

    heads: Tensors
    trunk: Tensors

    def __call__(self) -> torch.Tensor:
        """(R, classes, n)."""


class LinearNet:
    """The linear network in closed form: products from the left, on data turned to their own span.

    B_1 only meets the columns of X S^l, so it is kept in an orthonormal basis of their span: nothing changes
    but the cost.

    Args:
        task: The data.
        arch: Name in ARCHITECTURES.
        models: graphdyn's models, one a run, whose initial weights to take.
        features: W_0 of each run, for the dense architecture.
    """

    def __init__(self, task: Task, arch: str, models: list[Any], features: Tensors):
        self.arch, self.depth = arch, len(models[0].convs)
        used = task.scales[: self.depth + 1]
        used = used[-1:] if arch == "plain" else used
        basis, s, _ = np.linalg.svd(np.concatenate(used, axis=1), full_matrices=False)
        self.basis = torch.tensor(basis[:, s > 1e-13 * s[0]])
        self.data = [self.basis.T @ torch.tensor(z) for z in used]
        trunks = [[c.lin.weight.detach() for c in m.convs] for m in models]
        self.trunk = [torch.stack(layer) for layer in zip(*trunks)]
        self.trunk[0] = self.trunk[0] @ self.basis
        heads = torch.stack([m.head.weight.detach() for m in models])
        self.heads = [heads]
        if arch == "dense":
            self.heads = [torch.stack(features) @ self.basis, *heads.chunk(self.depth, -1)]
        self.heads = [w.clone().requires_grad_() for w in self.heads]
        self.trunk = [b.clone().requires_grad_() for b in self.trunk]

    def __call__(self) -> torch.Tensor:
        if self.arch == "plain":
            return self._through(self.heads[0], self.depth) @ self.data[0]
        if self.arch == "dense":
            parts = [self._through(w, k) @ z for k, (w, z) in enumerate(zip(self.heads, self.data))]
            return torch.stack(parts).sum(0)
        return self._residual()

    def _through(self, u: torch.Tensor, depth: int) -> torch.Tensor:
        for b in reversed(self.trunk[:depth]):
            u = u @ b
        return u

    def _residual(self) -> torch.Tensor:
        """A polynomial in S: each layer but the first, which changes the width, multiplies by B S + 1."""
        powers = {0: self.heads[0]}
        for b in reversed(self.trunk[1:]):
            longer = {k + 1: u @ b for k, u in powers.items()}
            powers = {k: _sum(longer.get(k), powers.get(k)) for k in {*longer, *powers}}
        parts = [u @ self.trunk[0] @ self.data[k + 1] for k, u in powers.items()]
        return torch.stack(parts).sum(0)


class GraphNet:
    """One run of graphdyn's model on the whole graph, any activation."""

    def __init__(self, task: Task, arch: str, model: Any, features: torch.Tensor):
        self.model, self.batch = model, gd.full_batch(task.graph, model.propagation)
        self.rows, self.x = task.graph.split.train, torch.tensor(task.scales[0])
        self.trunk = [c.lin.weight for c in model.convs]
        self.heads = [model.head.weight]
        self.features = features.clone().requires_grad_() if arch == "dense" else None
        self.heads += [] if self.features is None else [self.features]

    def __call__(self) -> torch.Tensor:
        out = self.model(self.batch, hidden=False).logits[self.rows].T
        return (out if self.features is None else out + self.features @ self.x)[None]


@dataclass(eq=False)
class Flow:
    """A descent of R runs.

    Attributes:
        time: (K, R) flow time, the sum of step sizes.
        loss: (K, R).
        head: (K, R) the heads' share of |grad L|^2.
        error: (R,) largest relative deviation of a step's decrease from step size times |grad L|^2.
    """

    time: np.ndarray
    loss: np.ndarray
    head: np.ndarray
    error: np.ndarray

    def first_term(self, until: int) -> np.ndarray:
        """(R,) share of the decrease of the loss that the heads have brought about."""
        steps = -np.diff(self.loss[: until + 1], axis=0)
        return (steps * self.head[:until]).sum(0) / steps.sum(0)


def descend(
    net: Net,
    y: torch.Tensor,
    steps: int,
    share: float,
    look: Callable[[int], None] = lambda k: None,
) -> Flow:
    """Gradient descent with steps of ``share`` times 2 / largest eigenvalue of the Gauss-Newton matrix.

    Args:
        net: R runs, each with a step size of its own.
        y: (R, classes, n).
        steps: K.
        share: Of the stability limit; the curvature is looked at every REFRESH steps, and steps that stray from
            the flow are halved.
        look: Called before each step with its number.
    """
    weights, (runs, _, n) = [*net.heads, *net.trunk], y.shape
    rng = gd.Key(0).fold("power iteration").generator()
    v = [torch.randn(w.shape, generator=rng, dtype=torch.float64) for w in weights]
    time, rows, errors = torch.zeros(runs, dtype=torch.float64), [], []
    for k in range(steps):
        look(k)
        losses = loss(net, y)
        grads = torch.autograd.grad(losses.sum(), weights)
        if k % REFRESH == 0:
            curvature, v = top_eigenvalue(net, weights, v, runs, 3 if k else 20)
            eta = share * n / curvature  # 2 / largest eigenvalue, the Hessian being 2 / n J^T J
        squares = torch.stack([g.reshape(runs, -1).square().sum(1) for g in grads])
        whole = squares.sum(0)
        rows.append(torch.stack([time, losses.detach(), squares[: len(net.heads)].sum(0) / whole]))
        eta, error = _step(net, y, weights, grads, eta, losses.detach(), whole)
        time = time + eta
        errors.append(error)
    table = torch.stack(rows).numpy()
    return Flow(table[:, 0], table[:, 1], table[:, 2], torch.stack(errors).amax(0).numpy())


def loss(net: Net, y: torch.Tensor) -> torch.Tensor:
    """(R,) mean squared error."""
    return (net() - y).square().sum((1, 2)) / y.shape[-1]


def _step(
    net: Net,
    y: torch.Tensor,
    weights: Tensors,
    grads: Sequence[torch.Tensor],
    eta: torch.Tensor,
    losses: torch.Tensor,
    whole: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Step along the gradients; runs whose loss does not fall as the flow's does take half of it, and again."""
    before = [w.detach().clone() for w in weights]
    with torch.no_grad():
        while True:
            for w, old, g in zip(weights, before, grads):
                w.copy_(old - scaled(g, eta))
            error = ((losses - loss(net, y)) / (eta * whole) - 1).abs()
            stray = (error > STRAY) & (eta * whole > 1e-12 * losses)
            if not stray.any():
                return eta, error
            eta = torch.where(stray, eta / 2, eta)


def top_eigenvalue(
    net: Net, weights: Tensors, v: Tensors, runs: int, rounds: int
) -> tuple[torch.Tensor, Tensors]:
    """(R,) largest eigenvalue of J^T J by power iteration; J v from central differences, J^T from autograd.

    They are exact for this purpose: differences are those of a polynomial, or of one piece of it.
    """
    for _ in range(rounds):
        v = [scaled(a, 1 / _norm(v, runs)) for a in v]
        with torch.no_grad():
            along = (_moved(net, weights, v, 1e-5) - _moved(net, weights, v, -1e-5)) / 2e-5
        v = [*torch.autograd.grad((net() * along).sum(), weights)]
    return _norm(v, runs), v


def scaled(tensor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Each of R runs times its own factor."""
    runs = len(factor)
    return (tensor.reshape(runs, -1) * factor[:, None]).view_as(tensor)


def _moved(net: Net, weights: Tensors, v: Tensors, by: float) -> torch.Tensor:
    for w, a in zip(weights, v):
        w += by * a
    out = net()
    for w, a in zip(weights, v):
        w -= by * a
    return out


def _norm(v: Tensors, runs: int) -> torch.Tensor:
    return torch.stack([a.reshape(runs, -1).square().sum(1) for a in v]).sum(0).sqrt()


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor:
    if a is None or b is None:
        return b if a is None else a
    return a + b
