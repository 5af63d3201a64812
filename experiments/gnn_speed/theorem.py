"""The theorem of Xu et al. 2021: its condition on the graph, its bound, and what the bound leaves out.

With the mean over n training nodes, L_T - L* <= (L_0 - L*) exp(-4 lambda_T sigma^2 T / n): sigma^2 the smallest
non-zero squared singular value of X(S^H)_I (dense: of all X(S^l)_I under each other), lambda_T the smallest
eigenvalue of Bbar^T Bbar so far, on the span of these columns, which is all that the proof uses.
"""

from itertools import product
from typing import Any

import numpy as np
import torch
from flow import LinearNet, Task, descend

import graphdyn as gd

WIDTH, SEEDS, SHARE = 160, 4, 0.01  # wider than the training nodes are many; of the stability limit
INITS, DEPTHS = ("glorot", "orthogonal"), (1, 2, 4)
LOOKS = 6  # at lambda, along a run
TINY = 1e-13  # singular values below this share of the largest are zeros


def conditions(task: Task) -> dict[str, list[float]]:
    """sigma^2_min by depth H = 0, 1, ...: of X(S^H)_I, its largest beside it, and of all up to H together."""
    plain, dense, largest = [], [], []
    stacked = np.zeros((0, task.y.shape[1]))
    for z in task.scales:
        s = np.linalg.svd(z, compute_uv=False)
        plain.append(float(s[-1] ** 2) if s[-1] > TINY * s[0] else 0.0)
        largest.append(float(s[0] ** 2))
        # A QR step keeps the stack square: R^T R is the sum of the Grams, without squaring the condition.
        stacked = np.linalg.qr(np.concatenate([stacked, z]), mode="r")
        dense.append(float(np.linalg.svd(stacked, compute_uv=False)[-1] ** 2))
    return {"plain": plain, "dense": dense, "largest": largest}


def alignment(task: Task, shuffles: int = 20) -> dict[str, list[float]]:
    """How much of the labels the features along S^l can tell at once, by l; and the same of shuffled labels.

    |Y (X S^l)_I^T|_F^2 / (|Y|_F^2 |(X S^l)_I|_2^2), in [0, 1]: the first term of dL/dt at f = 0, as a share of the most that
    any labels could make of it.
    """
    deals = [gd.Key(i).fold("deal").permutation(task.y.shape[1]).numpy() for i in range(shuffles)]
    y, true, random = task.y.numpy(), [], []
    for z in task.scales:
        scale = np.square(y).sum() * np.linalg.norm(z, 2) ** 2
        true.append(float(np.square(y @ z.T).sum() / scale))
        random.append([float(np.square(y[:, deal] @ z.T).sum() / scale) for deal in deals])
    return {"true": true, "shuffled": [max(r) for r in random]}


def spectrum(rows: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Smallest non-zero squared singular value of (features, n) rows, and the loss of the best fit."""
    _, s, v = np.linalg.svd(np.linalg.qr(rows, mode="r"), full_matrices=False)
    kept = s > TINY * s[0]
    rest = y - y @ v[kept].T @ v[kept]
    return float(s[kept][-1] ** 2), float(np.square(rest).sum() / y.shape[1])


def settings(task: Task, depth: int, arch: str, steps: int) -> list[dict[str, Any]]:
    """The bound along one descent a run, for all initialisations and seeds."""
    kinds = [*product(INITS, range(SEEDS))]
    models = [_model(task, arch, depth, init, seed) for init, seed in kinds]
    net = LinearNet(task, arch, models, [task.features_head(seed) for _, seed in kinds])
    used = [task.scales[depth]] if arch == "plain" else task.scales[: depth + 1]
    sigma, best = spectrum(np.concatenate(used), task.y.numpy())
    spans = [_span(z) for z in net.data]
    at = {round(k) for k in np.geomspace(1, steps - 1, LOOKS - 1)} | {0}
    eigenvalues: dict[int, np.ndarray] = {}

    def look(k: int) -> None:
        if k in at:
            eigenvalues[k] = _smallest(net, spans)

    flow = descend(net, task.y.expand(len(kinds), -1, -1), steps, SHARE, look)
    return [
        {"arch": arch, "depth": depth, "init": init, "seed": seed}
        | _row(flow, r, {k: v[r] for k, v in eigenvalues.items()}, sigma, best, task.y.shape[1])
        for r, (init, seed) in enumerate(kinds)
    ]


def _row(
    flow: Any, r: int, eigenvalues: dict, sigma: float, best: float, n: int
) -> dict[str, float]:
    places = sorted(eigenvalues)
    lowest = np.minimum.accumulate([eigenvalues[k] for k in places])
    time, gap = flow.time[places, r], flow.loss[places, r] - best
    bound = gap[0] * np.exp(-4 * lowest * sigma * time / n)
    measured = np.log(gap[0] / gap[-1]) / time[-1]
    return {
        "lambda_0": float(eigenvalues[0]),
        "lambda_T": float(lowest[-1]),
        "gap_over_bound": float((gap / bound)[1:].max()),
        "gap_left": float(gap[-1] / gap[0]),
        "rate_over_bound": float(measured / (4 * lowest[-1] * sigma / n)),
        "first_term": float(flow.first_term(places[-1])[r]),
        "identity": float(flow.error[r]),
    }


def _model(task: Task, arch: str, depth: int, init: str, seed: int) -> Any:
    model = task.model(arch, depth, WIDTH, seed, "none")
    for layer, conv in enumerate(model.convs if init == "orthogonal" else ()):
        rng = gd.Key(seed).fold("orthogonal", layer).generator()
        draw = torch.randn(conv.lin.weight.shape, generator=rng, dtype=torch.float64)
        u, _, v = torch.linalg.svd(draw, full_matrices=False)
        conv.lin.weight.data.copy_(u @ v)
    return model


def _span(z: torch.Tensor) -> torch.Tensor:
    u, s, _ = torch.linalg.svd(z, full_matrices=False)
    return u[:, s > TINY * s[0]]


def _smallest(net: LinearNet, spans: list[torch.Tensor]) -> np.ndarray:
    """(R,) smallest eigenvalue of Bbar_l^T Bbar_l on the span of X(S^l)_I, over the l that the head reads."""
    with torch.no_grad():
        if net.arch == "plain":
            return _squared(net.trunk, spans[0]).numpy()
        depths = range(1, net.depth + 1)
        found = [_squared(net.trunk[:k], spans[k]) for k in depths]
        return torch.stack(found).min(0).values.clamp(max=1.0).numpy()  # Bbar_0 is the identity


def _squared(trunk: list[torch.Tensor], span: torch.Tensor) -> torch.Tensor:
    product = span
    for b in trunk:
        product = b @ product
    return torch.linalg.svdvals(product)[..., -1].square()
