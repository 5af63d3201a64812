"""Instruments that read the weights alone: they wait for no device, write nothing, and go on where they were."""

import pytest
import torch
from instruments import walks
from torch.utils._python_dispatch import TorchDispatchMode

from graphdyn.instruments.angular_update import AngularUpdate
from graphdyn.instruments.conserved_quantity import ConservedQuantity
from graphdyn.instruments.distance_from_init import DistanceFromInit
from graphdyn.instruments.effective_lr import EffectiveLR
from graphdyn.instruments.fdt import FDT
from graphdyn.instruments.path_length import PathLength
from graphdyn.instruments.symmetry_map import SymmetryMap
from graphdyn.instruments.trust_ratio import TrustRatio
from graphdyn.instruments.update_ratio import UpdateRatio
from graphdyn.problem import FunctionProblem

KINDS = [
    *(AngularUpdate, ConservedQuantity, DistanceFromInit, EffectiveLR, FDT),
    *(PathLength, SymmetryMap, TrustRatio, UpdateRatio),
]


class Waits(TorchDispatchMode):
    """Forbids what would wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def net():
    """Invariant (one) and rescaling (norm against two) generators."""
    rng = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 6),
        torch.nn.BatchNorm1d(6),
        torch.nn.ReLU(),
        torch.nn.Linear(6, 3, bias=False),
    )
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=rng)
    return model


def problem():
    def loss(model, batch):
        return torch.nn.functional.cross_entropy(model(batch), torch.arange(12) % 3)

    return FunctionProblem(
        loss, lambda key: torch.randn(12, 5, generator=key.generator()), num_targets=1, batch_size=1
    )


def moments(steps):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.02, momentum=0.5)
    return walks.moments(model, optimizer, steps, lambda w, c: c + 0.1 * w, problem())


def plain(reading):
    return {
        key: tuple(
            None if v is None else float(v)
            for v in (value if isinstance(value, tuple) else (value,))
        )
        for key, value in reading.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_measuring_waits_for_nothing_and_writes_nothing(kind):
    instrument = kind()
    for s in moments(3):
        s.find_symmetry()  # once, on CPU
        instrument.setup(s)
        state = {n: v.clone() for n, v in s.model.state_dict().items()}
        grads = [p.grad.clone() for p in s.model.parameters()]
        with Waits():
            instrument.measure(s)
        assert all(torch.equal(v, state[n]) for n, v in s.model.state_dict().items())
        assert all(torch.equal(p.grad, g) for p, g in zip(s.model.parameters(), grads))


def test_the_trap_catches():
    with pytest.raises(AssertionError, match="waits"), Waits():
        float(torch.ones(2).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_says_the_same(kind):
    whole, parts = kind(), kind()
    for k, s in enumerate(moments(9)):
        if k == 4:
            state, parts = parts.state(), kind()
            parts.restore(torch.load(_saved(state), weights_only=True))
        first, second = plain(whole.measure(s)), plain(parts.measure(s))
        assert str(first) == str(second)  # NaN is NaN


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file
