"""Six nodes, and a GCN on them by dense algebra in float64; nothing of graphdyn but its weights.

Small enough to go through every batch and every choice of neighbours.
"""

from itertools import combinations, product

import torch

import graphdyn as gd

EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3), (1, 4), (1, 3)]
N, TRAIN, CLASSES = 6, (0, 2, 3, 5), 3


def graph(edges=EDGES):
    both = torch.tensor(edges + [(v, u) for u, v in edges]).T
    rng = torch.Generator().manual_seed(1)
    split = gd.Split(torch.tensor(TRAIN), torch.tensor([1]), torch.tensor([4]), "own")
    return gd.Graph.from_edge_index(
        both,
        num_nodes=N,
        x=torch.randn(N, 4, generator=rng),
        y=torch.tensor([0, 1, 2, 1, 0, 2]),
        num_classes=CLASSES,
        split=split,
    )


def gcn(seed=0):
    model = gd.GCN(4, CLASSES, hidden=5, head="linear", seed=seed)
    with torch.no_grad():  # biases that are not 0, or nobody would miss them
        for i, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return model


class Dense:
    """The same network in float64, by dense matrices; nothing of graphdyn but its weights."""

    def __init__(self, model, g, edges=EDGES):
        self.weights = [p.detach().double().requires_grad_() for p in model.parameters()]
        a = torch.eye(N, dtype=torch.float64)
        for u, v in edges:
            a[u, v] = a[v, u] = 1
        d = a.sum(1).rsqrt()
        self.a, self.x, self.y = d[:, None] * a * d, g.x.double(), g.y

    def gradient(self, omega, second=None, constant=0.0, first=None):
        """Of sum omega phi; ``second`` and ``first`` take the place of A, ``constant`` adds to layer 2."""
        w1, b1, w2, b2, w3, b3 = self.weights
        h = torch.relu((self.a if first is None else first) @ self.x @ w1.T + b1)
        z = ((self.a if second is None else second) @ h + constant) @ w2.T + b2
        loss = torch.nn.functional.cross_entropy(
            torch.relu(z) @ w3.T + b3, self.y, reduction="none"
        )
        return torch.cat([g.flatten() for g in torch.autograd.grad(omega @ loss, self.weights)])

    def omega(self, seeds, weight):
        omega = torch.zeros(N, dtype=torch.float64)
        omega[list(seeds)] = weight
        return omega


def outcomes_of_random_nodes(dense, size):
    """(g~, g) of every subset, all equally likely; edges scaled by (N - 1) / (b - 1), loops exact."""
    for chosen in combinations(range(N), size):
        keep = torch.zeros(N, N, dtype=torch.float64)
        for u in chosen:
            for v in chosen:
                keep[u, v] = 1 if u == v else (N - 1) / (size - 1)
        omega = dense.omega([v for v in chosen if v in TRAIN], N / size / len(TRAIN))
        yield dense.gradient(omega, dense.a * keep, 0.0, dense.a * keep), dense.gradient(omega)


def outcomes_of_history(dense, table, size):
    """Random seeds compute themselves; their other neighbours come from the table."""
    for chosen in combinations(TRAIN, size):
        fresh = torch.zeros(N, dtype=torch.float64)
        fresh[list(chosen)] = 1
        old = (dense.a * (1 - fresh)) @ torch.relu(table.double())
        omega = dense.omega(chosen, 1 / size)
        yield dense.gradient(omega, dense.a * fresh, old), dense.gradient(omega)


def outcomes_of_neighbors(dense, chosen):
    """(probability, g~) of everything that one neighbour a target, times its degree, may do; loops exact."""
    near = [[u for u in range(N) if u != v and dense.a[v, u]] for v in range(N)]
    omega = dense.omega(chosen, 1 / len(chosen))

    def rows(targets, picks):
        matrix = torch.zeros(N, N, dtype=torch.float64)
        for v, u in zip(targets, picks):
            matrix[v, v], matrix[v, u] = dense.a[v, v], len(near[v]) * dense.a[v, u]
        return matrix

    for last in product(*(near[v] for v in chosen)):
        reached = [*dict.fromkeys([*chosen, *last])]
        for first in product(*(near[v] for v in reached)):
            share = 1.0
            for v in (*chosen, *reached):
                share /= len(near[v])
            yield share, dense.gradient(omega, rows(chosen, last), 0.0, rows(reached, first))
