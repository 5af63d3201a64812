"""Synthetic graphs of a stated signal: contextual block model, degree-corrected power law.

Both are a function of a :class:`~graphdyn.keys.Key`; no global generator is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from graphdyn.data.splits import random_split
from graphdyn.data.structure import Rules, build_csc
from graphdyn.errors import InputError, unknown
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.sparse import CSC

EDGE_CHUNK = 1 << 22  # pairs drawn at once
ROW_CHUNK = 1 << 15  # feature rows drawn at once


def generate(model: str, **options: Any) -> Graph:
    """A synthetic graph by the name of its model, as cards name it.

    Raises:
        InputError: If the model is not known or an option does not fit.
    """
    models = {"csbm": csbm, "power-law": power_law}
    if model not in models:
        raise unknown("synthetic model", model, models)
    return models[model](**options)


def csbm(
    num_nodes: int = 2708,
    avg_degree: float = 3.9,
    num_classes: int = 7,
    num_features: int = 128,
    lam: float = 1.3,
    mu: float = 10.0,
    *,
    split: str | None = None,
    key: Key = Key(0),
    name: str = "csbm",
) -> Graph:
    """Contextual stochastic block model (Deshpande, Sen, Montanari, Mossel 2018).

    With K equal classes and average degree d, nodes of one class are joined with probability
    ``(d + (K - 1) lam sqrt(d)) / N`` and nodes of two with ``(d - lam sqrt(d)) / N``; a node's
    features are ``m_class + z / sqrt(F)``, z standard normal. For K = 2 this is the model of the
    paper: the means are ``+-sqrt(mu / N) u`` with u Gaussian of covariance I / F. There, for large
    d, the classes can be told better than by chance if and only if ``lam^2 + mu^2 / gamma > 1``
    with ``gamma = N / F``. For K > 2 each of the K - 1 directions that tell classes apart carries
    the signals lam (eigenvalue ``lam sqrt(d)`` of the expected adjacency) and mu (squared singular
    value of the expected features); the threshold is then a guide and no theorem.

    Args:
        num_nodes: N.
        avg_degree: d, the mean number of neighbours.
        num_classes: K.
        num_features: F.
        lam: Signal of the edges; at most sqrt(d), and at least -sqrt(d) / (K - 1).
        mu: Signal of the features, at least 0.
        split: Id of a random split, or ``None``.
        key: Randomness.
        name: For records.

    Returns:
        An undirected graph without loops, classes of equal size up to one node, dense features.

    Raises:
        InputError: If a probability would leave [0, 1] or a size does not fit.
    """
    n, d, k = num_nodes, avg_degree, num_classes
    if k < 2 or n < k or num_features < 1 or mu < 0:
        raise InputError("a csbm needs 2 classes or more, a node in each, a feature, and mu >= 0.")
    inside, across = d + (k - 1) * lam * math.sqrt(d), d - lam * math.sqrt(d)
    if not (0 <= inside <= n and 0 <= across <= n):
        raise InputError(
            f"lam={lam:g} at average degree {d:g} gives edge probabilities outside 0..1; "
            f"choose {-math.sqrt(d) / (k - 1):.3g} <= lam <= {math.sqrt(d):.3g}."
        )
    order = key.fold("classes").permutation(n).numpy()  # order[i]: id of the i-th node by class
    bounds = np.arange(k + 1) * n // k
    labels = np.empty(n, np.int64)
    labels[order] = np.repeat(np.arange(k), np.diff(bounds))
    src, dst = _block_edges(bounds, inside / n, across / n, key.fold("edges"))
    csc = _undirected(order[src], order[dst], n)
    x = _spiked_features(labels, k, num_features, mu, key.fold("features"))
    graph = Graph(csc, x, torch.from_numpy(labels), num_classes=k, name=name).check()
    return graph if split is None else graph.with_split(random_split(graph, split, key.seed))


def _block_edges(bounds: np.ndarray, inside: float, across: float, key: Key):
    """Pairs i < j of nodes sorted by class, each kept with the probability of its classes."""
    src, dst = [], []
    for a in range(len(bounds) - 1):
        na = int(bounds[a + 1] - bounds[a])
        hits = _bernoulli_hits(na * (na - 1) // 2, inside, key.fold(a, a).numpy())
        # Pair number t of i < j counts up j: t = j (j - 1) / 2 + i. Exact below 2^53.
        j = ((1 + np.sqrt(1 + 8 * hits.astype(np.float64))) / 2).astype(np.int64)
        src.append(bounds[a] + hits - j * (j - 1) // 2)
        dst.append(bounds[a] + j)
        for b in range(a + 1, len(bounds) - 1):
            nb = int(bounds[b + 1] - bounds[b])
            hits = _bernoulli_hits(na * nb, across, key.fold(a, b).numpy())
            src.append(bounds[a] + hits // nb)
            dst.append(bounds[b] + hits % nb)
    return np.concatenate(src), np.concatenate(dst)


def _bernoulli_hits(count: int, p: float, rng: np.random.Generator) -> np.ndarray:
    """Which of ``count`` trials succeed, by geometric gaps (Batagelj, Brandes 2005)."""
    if p <= 0 or count == 0:
        return np.empty(0, np.int64)
    size = int(count * p + 6 * math.sqrt(count * p) + 16)
    found, last = [], -1
    while last < count:
        hits = last + np.cumsum(rng.geometric(p, size))
        found.append(hits[hits < count])
        last = int(hits[-1])
    return np.concatenate(found)


def _spiked_features(labels: np.ndarray, k: int, width: int, mu: float, key: Key) -> torch.Tensor:
    means = key.fold("means").numpy().standard_normal((k, width)) / math.sqrt(width)
    # Centred and rescaled, so that two classes get plus and minus one vector of covariance I / F.
    means = (means - means.mean(0)) * math.sqrt(k / (k - 1))
    scale = math.sqrt(mu * (k - 1) / labels.size)
    return _noisy(labels, (scale * means).astype(np.float32), 1 / math.sqrt(width), key)


def _noisy(classes: np.ndarray, means: np.ndarray, sigma: float, key: Key) -> torch.Tensor:
    """Class means plus normal noise, float32, drawn in pieces of rows."""
    x = np.empty((classes.size, means.shape[1]), np.float32)
    for piece, start in enumerate(range(0, classes.size, ROW_CHUNK)):
        rows = x[start : start + ROW_CHUNK]
        key.fold("noise", piece).numpy().standard_normal(out=rows, dtype=np.float32)
        rows *= np.float32(sigma)
        rows += means[classes[start : start + ROW_CHUNK]]
    return torch.from_numpy(x)


def _undirected(src: np.ndarray, dst: np.ndarray, n: int) -> CSC:
    indptr, indices = build_csc(lambda: iter([(src, dst)]), n, Rules(undirected=True))
    return CSC(torch.from_numpy(indptr), torch.from_numpy(indices), n)


def power_law(
    num_nodes: int = 10_000,
    avg_degree: float = 20.0,
    exponent: float = 2.5,
    num_classes: int = 8,
    num_features: int = 64,
    homophily: float = 0.7,
    signal: float = 1.0,
    label_noise: float = 0.0,
    *,
    max_degree: float | None = None,
    split: str | None = "random-0.6-0.2-0.2",
    key: Key = Key(0),
    name: str = "power-law",
) -> Graph:
    """Degree-corrected block model with a power law of degrees (Karrer, Newman 2011).

    ``N d / 2`` pairs are drawn: the first end in proportion to the nodes' expected degrees, the
    second likewise, with probability ``homophily`` within the first one's community and else
    anywhere. Loops are dropped and repeated pairs merged, so hubs and the mean degree come out a
    little smaller. The share of edges within communities is ``homophily + (1 - homophily) / K``.

    Args:
        num_nodes: N.
        avg_degree: d, the mean number of neighbours before merging.
        exponent: Of the density of degrees, ``p(k) ~ k^-exponent``; above 2.
        num_classes: K communities of equal size up to one node.
        num_features: F; 0 for none.
        homophily: See above, in [0, 1].
        signal: Distance of class means over the standard deviation 1 of the noise: features are
            ``signal / sqrt(2) m_class + z``, the m orthonormal where F >= K (else random unit
            vectors).
        label_noise: Probability that a node's label is drawn anew, uniformly.
        max_degree: Largest expected degree; by default ``sqrt(N d)``, above which pairs must
            repeat.
        split: Id of a random split, or ``None``.
        key: Randomness.
        name: For records.

    Returns:
        An undirected graph without loops; ``node_attrs["community"]`` holds the communities.

    Raises:
        InputError: If a parameter lies outside its range.
    """
    n, k = num_nodes, num_classes
    _check_power_law(n, k, avg_degree, exponent, homophily, label_noise)
    ranks = _Ranks(-(-n // k), exponent, (max_degree or math.sqrt(n * avg_degree)) / avg_degree)
    order = key.fold("ids").permutation(n).numpy().astype(np.int32 if n < 2**31 else np.int64)
    community = np.empty(n, np.int64)
    community[order] = np.arange(n) % k

    def edges() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        total = round(n * avg_degree / 2)
        for piece, start in enumerate(range(0, total, EDGE_CHUNK)):
            rng = key.fold("edges", piece).numpy()
            src, dst = _pairs(min(EDGE_CHUNK, total - start), ranks, n, k, homophily, rng)
            yield order[src], order[dst]

    indptr, indices = build_csc(edges, n, Rules(undirected=True, drop_loops=True))
    csc = CSC(torch.from_numpy(indptr), torch.from_numpy(indices), n)
    y = _relabel(community, k, label_noise, key.fold("labels"))
    x = None
    if num_features:
        means = _unit_means(k, num_features, key.fold("means")) * (signal / math.sqrt(2))
        x = _noisy(community, means.astype(np.float32), 1.0, key.fold("features"))
    attrs = {"community": torch.from_numpy(community)}
    graph = Graph(csc, x, torch.from_numpy(y), num_classes=k, name=name, node_attrs=attrs).check()
    return graph if split is None else graph.with_split(random_split(graph, split, key.seed))


def _check_power_law(n, k, degree, exponent, homophily, label_noise) -> None:
    if exponent <= 2:
        raise InputError(f"exponent is {exponent:g}; above 2 is needed for a finite mean degree.")
    if k < 1 or n < k or degree <= 0:
        raise InputError(
            "power_law needs a class, a node in each class, and a positive avg_degree."
        )
    if not (0 <= homophily <= 1 and 0 <= label_noise <= 1):
        raise InputError("homophily and label_noise are probabilities; give values in 0..1.")


class _Ranks:
    """Ranks 0..R-1 drawn in proportion to ``(rank + shift)^-b`` by the inverse of its integral.

    With b = 1 / (exponent - 1) these weights have a power-law density of that exponent; the shift
    caps the largest weight at ``ratio`` times the mean.
    """

    def __init__(self, size: int, exponent: float, ratio: float):
        self.size, self.b = size, 1 / (exponent - 1)
        low, high = 1e-9, 1e9 * size
        for _ in range(200):  # bisection in the logarithm: the ratio falls as the shift grows
            self.shift = math.sqrt(low * high)
            low, high = (self.shift, high) if self._top() > ratio else (low, self.shift)

    def _top(self) -> float:
        a = 1 - self.b
        mean = ((self.size + self.shift) ** a - self.shift**a) / (a * self.size)
        return self.shift**-self.b / mean

    def draw(self, u: np.ndarray) -> np.ndarray:
        a = 1 - self.b
        low, high = self.shift**a, (self.size + self.shift) ** a
        rank = ((low + u * (high - low)) ** (1 / a) - self.shift).astype(np.int64)
        return np.clip(rank, 0, self.size - 1)


def _pairs(size: int, ranks: _Ranks, n: int, k: int, homophily: float, rng: np.random.Generator):
    """Two ends a pair; node ``rank * K + community`` of the order that is shuffled afterwards."""
    first = rng.integers(0, k, size)
    second = rng.integers(0, k, size)
    second = np.where(rng.random(size) < homophily, first, second)
    ends = [ranks.draw(rng.random(size)) * k + c for c in (first, second)]
    keep = (ends[0] < n) & (ends[1] < n)  # the last rank is missing in some communities
    return ends[0][keep], ends[1][keep]


def _relabel(community: np.ndarray, k: int, share: float, key: Key) -> np.ndarray:
    if share == 0:
        return community.copy()
    rng = key.numpy()
    fresh = rng.integers(0, k, community.size)
    return np.where(rng.random(community.size) < share, fresh, community)


def _unit_means(k: int, width: int, key: Key) -> np.ndarray:
    draw = key.numpy().standard_normal((k, width))
    if width >= k:
        return np.linalg.qr(draw.T)[0].T
    return draw / np.linalg.norm(draw, axis=1, keepdims=True)
