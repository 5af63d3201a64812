"""Small runs for the tests of memories that evaluate a batch twice, and gradients by dense algebra."""

import copy
from itertools import combinations
from types import SimpleNamespace

import torch
from cases import edge_list, expanded_batch, small_model
from oracles import adjacency

from graphdyn.keys import Key
from graphdyn.loader import gather
from graphdyn.memories import Setting
from graphdyn.samplers import build
from graphdyn.step import update

# A few nodes of every layer, so that each of them is far from its full-graph output.
SAMPLERS = {
    "neighbor": {"fanouts": (1,), "batch_size": 2},
    "labor": {"fanouts": (2,), "batch_size": 3},
    "fastgcn": {"nodes": (4,), "batch_size": 3},
    "ladies": {"nodes": (4,), "batch_size": 3},
    "cluster": {"parts": 4, "parts_per_batch": 2},
    "node": {"batch_size": 5},
    "full": {},
}
NOISY = {"dropout": 0.5, "input_dropout": 0.3, "edge_dropout": 0.2, "norm": "batch"}


def plain(graph):
    """A GCN that the dense oracle knows, and its matrix."""
    return small_model("gcn", layers=2, bias=True), adjacency(edge_list(), graph.num_nodes)


def setting(model, graph, sampler="neighbor", every=3):
    """What a memory is bound to; by hand where no sampler is asked for."""
    if sampler is None:
        return Setting(model, graph, SimpleNamespace(num_batches=every, find=lambda kind: None))
    recipe = build(sampler, **SAMPLERS[sampler])
    return Setting(model, graph, recipe.prepare(graph, model.propagation, model.num_hops))


def batch_of(where, step, seed=0):
    """The batch of a step."""
    plans, graph = where.plans, where.graph
    key = Key(seed).at(epoch=step // plans.num_batches, step=step)
    return gather(plans.plan(key), graph.x, graph.y)


def still(model):
    """An optimiser that leaves the parameters as they are."""
    return torch.optim.SGD(model.parameters(), lr=0.0)


def gradient_of(model):
    """A copy of ``.grad`` by name."""
    return {n: p.grad.clone() for n, p in model.named_parameters()}


def run(where, optimizer, memory, steps, seed=0):
    """Some steps of training; the corrected gradient of each."""
    out = []
    for step in steps:
        update(where.model, batch_of(where, step, seed), optimizer, memory=memory)
        out.append(gradient_of(where.model))
    return out


def pairs(graph, model, key=Key(5)):
    """Every batch of two training nodes with exact embeddings; all equally likely."""
    return [expanded_batch(graph, model, [*c], key) for c in combinations(TRAIN, 2)]


TRAIN = (0, 2, 4, 6, 9, 11)


def move(model, scale, seed):
    """Change all parameters at random, from a private generator."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn(p.shape, generator=rng, dtype=torch.float64))


def flat(tensors):
    """All tensors as one vector, in the order of their names."""
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def dense_gradient(matrix, x, y, parameters, rows):
    """Gradient of the mean loss of rows under a GCN of two layers with ReLU, by autograd on dense tensors."""
    p = {n: t.detach().clone().requires_grad_() for n, t in parameters.items()}
    h = torch.relu(matrix @ x @ p["convs.0.lin.weight"].t() + p["convs.0.lin.bias"])
    z = matrix @ h @ p["convs.1.lin.weight"].t() + p["convs.1.lin.bias"]
    rows = torch.tensor(rows)
    log_p = torch.log_softmax(z[rows], 1)
    loss = -log_p[torch.arange(len(rows)), y[rows]].mean()
    return dict(zip(p, torch.autograd.grad(loss, [*p.values()])))


def assert_resumes(fresh):
    """Nine steps in one go end where five, a checkpoint and four end; ``fresh`` builds a run."""
    where, optimizer, memory = fresh()
    run(where, optimizer, memory, range(5))
    saved = copy.deepcopy((where.model.state_dict(), optimizer.state_dict(), memory.state()))
    other, again, resumed = fresh()
    other.model.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    resumed.restore(saved[2])
    run(where, optimizer, memory, range(5, 9))
    run(other, again, resumed, range(5, 9))
    for a, b in zip(where.model.state_dict().values(), other.model.state_dict().values()):
        assert torch.equal(a, b)
    return memory, resumed
