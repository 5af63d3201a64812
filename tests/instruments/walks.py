"""Losses in closed form under torch's own optimisers, watched by a recorder, for instruments of the weights."""

import math

import torch

from graphdyn.groups import Groups
from graphdyn.keys import Key
from graphdyn.problem import FunctionProblem
from graphdyn.recorder import Recorder
from graphdyn.snapshot import Snapshot


class Vector(torch.nn.Module):
    """One parameter w."""

    def __init__(self, start):
        super().__init__()
        self.w = torch.nn.Parameter(start)


def of_direction(model, c):
    """Minus <c, w / |w|>: a loss that does not see the scale of w."""
    return -(c @ model.w) / model.w.norm()


def noise(width):
    """Key -> standard normal numbers."""
    return lambda key: torch.randn(width, generator=key.generator(), dtype=torch.float64)


def scale_invariant(width):
    """The problem of :func:`of_direction` under pure noise."""
    return FunctionProblem(of_direction, noise(width), num_targets=1, batch_size=1)


def walk(model, optimizer, instruments, problem, steps, gradient, *, seed=0, before=None):
    """Train on gradients in closed form: ``gradient(w, noise) -> g``; rows by (name, group)."""
    rng = torch.Generator().manual_seed(seed)
    with Recorder(model, optimizer, instruments, problem=problem, to=None) as recorder:
        for step in range(steps):
            if before is not None:
                before(step)
            c = torch.randn(model.w.shape, generator=rng, dtype=model.w.dtype)
            model.w.grad = gradient(model.w.detach(), c)
            optimizer.step()
    return rows(recorder)


def moments(model, optimizer, steps, gradient, problem=None, *, by="layer", seed=0):
    """Snapshots after each of some steps on gradients in closed form, made by hand; symmetry is handed on."""
    rng, symmetry = torch.Generator().manual_seed(seed), None
    groups = Groups(model, by)
    of = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    for step in range(steps):
        before = groups.weights()
        options = {n: of[id(groups.parameters[m[0]])] for n, m in groups.members.items()}
        kind = {"optimizer": type(optimizer).__name__}
        settings = {
            n: kind | {k: v for k, v in o.items() if k != "params"} for n, o in options.items()
        }
        for p in model.parameters():
            c = torch.randn(p.shape, generator=rng, dtype=p.dtype)
            p.grad = gradient(p.detach(), c)
        optimizer.step()
        s = Snapshot(step + 1, 0, model, optimizer, groups, problem, Key(step), settings, before)
        s.symmetry = symmetry
        yield s
        symmetry = s.symmetry


def rows(recorder):
    """Metrics by (name, group), in order."""
    found = {}
    recorder.sink.flush(wait=True)
    for clock, row in recorder.sink.rows:
        if hasattr(row, "value"):
            found.setdefault((row.name, row.group), []).append((clock.step, row))
    return found


def last(found, name, group):
    """The latest value, and what was predicted for it."""
    row = found[name, group][-1][1]
    return row.value, row.pred


def on_sphere(w, c):
    """The gradient of :func:`of_direction`."""
    size = w.norm()
    unit = w / size
    return -(c - unit * (unit @ c)) / size


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            (b1, b2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(lr * torch.sign(b1 * m + (1 - b1) * p.grad))
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


def rms(values):
    return math.sqrt(sum(v * v for v in values) / len(values))
