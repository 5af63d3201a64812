"""Short trainings that hold everything an instrument could disturb, and a way to run them under a recorder."""

import random
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from instruments import layered

import graphdyn as gd
from graphdyn.instruments import INSTRUMENTS
from graphdyn.instruments.grad_noise import GradNoise
from graphdyn.instruments.noise_scale import NoiseScale
from graphdyn.instruments.tail_index import TailIndex
from graphdyn.node_problem import NodeProblem
from graphdyn.pyg_problem import PygProblem
from graphdyn.recorder import Recorder
from graphdyn.schedule import Every
from graphdyn.step import update

# What a constructor wants, and constructors with another source of numbers.
ARGUMENTS = {"time_to_target": {"targets": 0.5, "window": 1}}
VARIANTS = {
    "grad_noise, micro": lambda: GradNoise("micro", every=1),
    "noise_scale, micro": lambda: NoiseScale("micro", every=1),
    "tail_index, batches": lambda: TailIndex("batches", every=2),
}
NAMES = (*INSTRUMENTS, *VARIANTS)


def made(name, every=1):
    """An instrument on a fixed schedule."""
    if name in VARIANTS:
        instrument = VARIANTS[name]()
        instrument.every = Every(every)
        return instrument
    return INSTRUMENTS[name](every=every, **ARGUMENTS.get(name, {}))


class Trial:
    """A model, its optimiser and its steps; every step draws from all global generators, as a user's loop may."""

    def __init__(self, model, optimizer, problem, batches, take, memory=None):
        self.model, self.optimizer, self.problem = model, optimizer, problem
        self.batches, self.take, self.memory = batches, take, memory

    def step(self):
        """The loss of one step, and numbers of the loop's own."""
        drawn = torch.tensor([random.random(), np.random.rand(), float(torch.rand(1))])  # noqa: NPY002
        return torch.cat([self.take(next(self.batches)).detach().reshape(1).double(), drawn])

    def state(self):
        """Every tensor that a step reads or writes, and every switch, by name."""
        found = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        found |= {f"grad.{n}": p.grad for n, p in self.model.named_parameters()}
        for i, (_, own) in enumerate(self.optimizer.state.items()):
            found |= {f"optimizer.{i}.{n}": torch.as_tensor(v) for n, v in own.items()}
        if self.memory is not None:
            found |= {f"memory.{n}": t for n, t in self.memory.state().items()}
        found["torch"] = torch.get_rng_state()
        found["numpy"] = torch.from_numpy(np.random.get_state()[1].astype(np.int64))  # noqa: NPY002
        found["python"] = torch.tensor(random.getstate()[1])
        found["modes"] = torch.tensor([m.training for m in self.model.modules()])
        return {n: None if t is None else t.detach().clone() for n, t in found.items()}

    def objects(self):
        """What must be the very same before and after a measurement: objects, and how often each was written."""
        found = []
        for module in self.model.modules():
            found += [(n, v) for n, v in vars(module).items() if n[0] != "_" or n == "_buffers"]
            found += [(n, b, None if b is None else b._version) for n, b in module._buffers.items()]
            found += [len(hooks) for n, hooks in vars(module).items() if n.endswith("_hooks")]
        for p in self.model.parameters():
            found.append((p.grad, None if p.grad is None else p.grad._version))
            found.append((p, p._version, p.requires_grad))
        return found


def _graphdyn(name, method, optimizer, **options):
    graph = layered.graph(torch.float32)
    model = gd.build(name, layered.F, layered.C, hidden=4, seed=1, **options)
    plans, memory = gd.method(**layered.METHODS[method]).prepare(model, graph)
    memory.start()
    problem = NodeProblem(model, graph, plans, memory=memory)
    made = optimizer(model.parameters())
    batches = iter(gd.Loader(plans, graph, epochs=100, workers=0))
    return Trial(
        model, made, problem, batches, lambda b: update(model, b, made, memory=memory).loss, memory
    )


def _pyg():
    """An unmodified model of PyG with torch's own dropout and norms, a part of it frozen."""
    graph = layered.graph(torch.float32)
    model = layered.pyg_model("GCN", dropout=0.5, norm="batch_norm").float()
    model.norms[0].eval()
    model.convs[1].bias.requires_grad_(False)
    loader = gd.PygLoader(
        gd.Neighbor((2, 2, 2), batch_size=10, reuse=True), graph, "gcn", num_layers=3, workers=0
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)

    def take(data):
        optimizer.zero_grad()
        out = model(data.x, data.edge_index, edge_weight=data.edge_weight)[: data.batch_size]
        losses = torch.nn.functional.cross_entropy(out, data.y[: data.batch_size], reduction="none")
        loss = (losses * data.seed_weight).sum()
        loss.backward()
        optimizer.step()
        return loss

    batches = (data for _ in range(100) for data in loader)
    return Trial(model, optimizer, PygProblem(model, loader), batches, take)


def _sgd(parameters):
    return torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=1e-2)


def _adam(parameters):
    return torch.optim.AdamW(parameters, 0.01, weight_decay=1e-2)


CASES = {
    "neighbor": lambda: _graphdyn("gcn", "neighbor", _adam, layers=2, norm="batch", dropout=0.5),
    "vr-gcn": lambda: _graphdyn("gcn", "vr-gcn", _sgd, layers=2, norm="batch", dropout=0.2),
    "gas": lambda: _graphdyn("sage", "gas", _adam, layers=3, norm="layer", skip="identity"),
    "svrg": lambda: _graphdyn("gcn", "svrg", _sgd, layers=2),
    "full": lambda: _graphdyn("gat", "full", _sgd, layers=2, heads=2, norm="batch", dropout=0.5),
    "pyg": _pyg,
}


@contextmanager
def generators():
    """Inside, global generators are at a known place; outside, where they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            random.seed(2)
            np.random.seed(3)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def run(case, instruments=None, *, deferred=False, steps=3, epoch=2, watch=nullcontext, **options):
    """Train; the state after every step, and the recorder.

    Whatever surrounds a measurement must see the same objects on both sides of it.
    """
    with generators():
        trial, states = CASES[case](), []
        if instruments is None:
            for _ in range(steps):
                loss = trial.step()
                states.append({**trial.state(), "loss": loss})
            return states, None
        seen = []
        look = (
            (lambda *_: seen.append(trial.objects())),
            (lambda *_: same(seen.pop(), trial.objects())),
        )
        hooks = trial.optimizer.register_step_pre_hook, trial.optimizer.register_step_post_hook
        before = [hook(look[0]) for hook in hooks]
        recorder = Recorder(
            trial.model,
            trial.optimizer,
            instruments,
            problem=trial.problem,
            deferred=deferred,
            **options,
        )
        with recorder:
            after = [hook(look[1]) for hook in hooks]
            for step in range(steps):
                if deferred and not step:
                    around(look, recorder.settle)
                loss = trial.step()
                recorder.log(loss=loss[0], valid=0.1 * step)
                if deferred:
                    around(look, recorder.settle)
                if (step + 1) % epoch == 0:
                    around(look, recorder.end_epoch)
                states.append({**trial.state(), "loss": loss})
        for hook in (*before, *after):
            hook.remove()
    return states, recorder


def around(look, call):
    look[0]()
    call()
    look[1]()


def same(before, after):
    """The very same objects, written as often."""
    assert len(before) == len(after)
    for a, b in zip(before, after):
        pairs = zip(a, b) if isinstance(a, tuple) else [(a, b)]
        assert all(x is y or (type(x) in (int, bool, str) and x == y) for x, y in pairs), a


def equal(a, b):
    """Bit for bit, at every step."""
    assert len(a) == len(b)
    for step, (left, right) in enumerate(zip(a, b)):
        assert left.keys() == right.keys()
        for name in left:
            x, y = left[name], right[name]
            assert (x is y is None) or torch.equal(x, y), f"{name} after step {step + 1}"
