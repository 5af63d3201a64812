"""Six nodes, and a GCN on them by dense algebra in float64; nothing of graphdyn but its weights.

Small enough to go through every batch and every choice of neighbours.
"""

import torch

import graphdyn as gd

EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3), (1, 4), (1, 3)]
N, TRAIN, CLASSES = 6, (0, 2, 3, 5), 3


def graph():
    both = torch.tensor(EDGES + [(v, u) for u, v in EDGES]).T
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

    def __init__(self, model, g):
        self.weights = [p.detach().double().requires_grad_() for p in model.parameters()]
        a = torch.eye(N, dtype=torch.float64)
        for u, v in EDGES:
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
