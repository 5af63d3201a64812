"""Moments to measure at: a noisy quadratic in closed form, and graphdyn models on small graphs.

The quadratic: l_i = (theta - c_i)^T H (theta - c_i) / 2 over T centres, so that the gradient of a target is
H (theta - c_i), Sigma = H Cov(c) H and grad L = H (theta - mean c), with nothing left to chance.
"""

import torch

import graphdyn as gd
from graphdyn.groups import Groups
from graphdyn.keys import Key
from graphdyn.node_problem import NodeProblem
from graphdyn.problem import FunctionProblem
from graphdyn.samplers import Simple
from graphdyn.snapshot import Snapshot

METHODS = {
    "neighbor": {"sampler": "neighbor", "fanouts": 2, "batch_size": 30},
    "labor": {"sampler": "labor", "fanouts": 2, "batch_size": 30, "seeds": "uniform"},
    "cluster": {"sampler": "cluster", "parts": 8, "parts_per_batch": 2},
    "full": {"sampler": "full"},
    "vr-gcn": {"preset": "vr-gcn", "batch_size": 30},
    "gas": {"preset": "gas", "parts": 8, "parts_per_batch": 2},
    "poisson": {"sampler": "neighbor", "seeds": "poisson", "score": "degree", "batch_size": 30},
    "saint-node": {"sampler": "saint-node", "budget": 80},
}
MODELS = {
    "gcn": (gd.GCN, {"norm": "batch"}),
    "gat": (gd.GAT, {"norm": "none", "heads": 2}),
    "sage": (gd.SAGE, {"norm": "layer", "skip": "identity"}),
    "gcnii": (gd.GCNII, {"norm": "none"}),
}
PAIRS = [(m, n) for m in MODELS for n in METHODS if (m, n) != ("gat", "vr-gcn")]  # which is refused
SIZES = (2, 3)  # of the two groups of the quadratic


class Point(torch.nn.Module):
    """theta, in two groups."""

    def __init__(self, theta):
        super().__init__()
        first, second = theta.split(SIZES)
        self.a = torch.nn.Linear(SIZES[0], 1, bias=False, dtype=theta.dtype)
        self.b = torch.nn.Linear(SIZES[1], 1, bias=False, dtype=theta.dtype)
        with torch.no_grad():
            self.a.weight.copy_(first)
            self.b.weight.copy_(second)

    @property
    def theta(self):
        return torch.cat([self.a.weight[0], self.b.weight[0]])


class Quadratic:
    """T centres, a curvature, and everything that follows."""

    def __init__(self, count=12, away=1.0, seed=0):
        rng = Key(seed).fold("quadratic").generator()
        size = sum(SIZES)
        self.count = count
        self.centres = torch.randn(count, size, generator=rng, dtype=torch.float64)
        root = torch.randn(size, size, generator=rng, dtype=torch.float64) / size**0.5
        self.h = root @ root.T + 0.3 * torch.eye(size, dtype=torch.float64)
        self.theta = self.centres.mean(0) + away * torch.linspace(-1, 1, size, dtype=torch.float64)
        self.model = Point(self.theta)

    def gradients(self):
        """(T, P) of the targets, by algebra."""
        return (self.theta - self.centres) @ self.h

    def by_group(self, vector):
        """Sums over the groups of (P,) numbers, the total last."""
        first, second = vector.split(SIZES)
        return {"a": float(first.sum()), "b": float(second.sum()), "all": float(vector.sum())}

    def trace(self):
        """The diagonal of Sigma, (T - 1)-normalised, by group."""
        return self.by_group(torch.diagonal(self.h @ torch.cov(self.centres.T) @ self.h))

    def square(self):
        """|grad L|^2 by group."""
        return self.by_group(self.gradients().mean(0).square())

    def loss(self, model, ids):
        apart = model.theta - self.centres[ids]
        return ((apart @ self.h) * apart).sum(1).mean() / 2

    def problem(self, b, *, simple=True, **options):
        """b targets a batch, drawn without replacement."""

        def draw(key):
            return key.fold("draw").permutation(self.count)[:b]

        how = Simple(b, disjoint=False) if simple else None
        return FunctionProblem(
            self.loss, draw, num_targets=self.count, batch_size=b, simple=how, **options
        )


def moment(model, problem, step=1, optimizer=None, seed=0, **fields):
    """A snapshot after a step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1) if optimizer is None else optimizer
    fields.setdefault("key", Key(seed).fold("recorder").at(step=step))
    return Snapshot(
        step=step,
        epoch=0,
        model=model,
        optimizer=optimizer,
        groups=Groups(model),
        problem=problem,
        **fields,
    )


def plain(key):
    """The group of a key of a reading; all groups together are "all"."""
    return ("all", key) if isinstance(key, str) else (key[1], key[0])


def small_graph():
    from graphdyn.data.synthetic import csbm

    return csbm(
        num_nodes=300, avg_degree=6, num_classes=3, num_features=8, split="random-0.6-0.2-0.2"
    )


def on_graph(model, method, step=1, **options):
    """A graphdyn model half trained by a method, as a moment."""
    graph = small_graph()
    make, own = MODELS[model]
    net = make(graph.num_features, graph.num_classes, hidden=8, seed=0, **own, **options)
    plans, memory = gd.method(**METHODS[method]).prepare(net, graph, key=Key(1))
    memory.start()
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    steps = gd.train(net, gd.Loader(plans, graph), optimizer, memory=memory)
    for _, _ in zip(range(3), steps):
        pass
    problem = NodeProblem(net, graph, plans, memory=memory)
    return moment(net, problem, step=step, optimizer=optimizer)


def unchanged(s, measure):
    """What measuring gives, and whether nothing of the model moved."""

    def all_of():
        state = {n: t.clone() for n, t in s.model.state_dict().items()}
        grads = {
            n: (p.grad, None if p.grad is None else p.grad.clone())
            for n, p in s.model.named_parameters()
        }
        return state, grads, torch.random.get_rng_state(), s.model.training

    before = all_of()
    found = measure(s)
    after = all_of()
    assert all(torch.equal(v, after[0][n]) for n, v in before[0].items())
    for name, (grad, values) in before[1].items():
        assert after[1][name][0] is grad
        assert grad is None or torch.equal(grad, values)
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]
    return found
