"""Nobody waits for a device: light instruments read no tensor's value, and neither does the recorder."""

import pytest
import torch
from instruments import trials
from torch.utils._python_dispatch import TorchDispatchMode

from graphdyn.instruments import Instrument
from graphdyn.instruments.instrument import Need
from graphdyn.keys import Key
from graphdyn.problem import FunctionProblem
from graphdyn.recorder import Recorder
from graphdyn.schedule import Every

aten = torch.ops.aten
# What a device must finish before the host can go on.
WAITS = (
    aten._local_scalar_dense,
    aten.item,
    aten.is_nonzero,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten._unique2,
    aten.unique_consecutive,
    aten.bincount,
)
COPIES = ("tolist", "numpy", "cpu")  # which the dispatcher does not see on CPU


class NoWaiting(TorchDispatchMode):
    """Refuses whatever would wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in WAITS, f"{func} waits for the device"
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            masks = [t for t in args[1] if t is not None and t.dtype in (torch.bool, torch.uint8)]
            assert not masks, "a mask is looked through for its ones, and that waits"
        return func(*args, **(kwargs or {}))


def refuse(*_, **__):
    raise AssertionError("a value of a tensor was read")


class nothing_waits:
    """Inside, reading a value raises."""

    def __enter__(self):
        self.patch, self.mode = pytest.MonkeyPatch(), NoWaiting()
        for name in COPIES:
            self.patch.setattr(torch.Tensor, name, refuse)
        self.mode.__enter__()

    def __exit__(self, *error):
        self.mode.__exit__(*error)
        self.patch.undo()


def watched(instrument):
    """Its measurements but for the first, which may set up; how many there were."""
    calls, measure = [], instrument.measure

    def guarded(s):
        calls.append(s.step)
        if len(calls) == 1:
            return measure(s)
        with nothing_waits():
            return measure(s)

    instrument.measure = guarded
    return calls


LIGHT = [n for n in trials.NAMES if Need.PROBLEM not in trials.made(n).needs]


# It fits a curve on the host, and says so.
WAITING = {"rate_fit": pytest.mark.xfail(strict=True, raises=AssertionError)}


@pytest.mark.parametrize("name", [pytest.param(n, marks=WAITING.get(n, ())) for n in LIGHT])
def test_a_light_one(name):
    instrument = trials.made(name)
    calls = watched(instrument)
    trials.run("neighbor", [instrument], steps=4, epoch=1)
    assert len(calls) > 3


def test_most_are_listed():
    assert {"effective_lr", "update_ratio", "fdt", "loss_integral", "path_length"} <= set(LIGHT)


READERS = {
    "item": lambda t: t.item(),
    "float": lambda t: float(t),
    "bool": lambda t: bool(t > 0),
    "if": lambda t: 1 if t > 0 else 0,
    "equal": lambda t: torch.equal(t, t),
    "mask": lambda t: t.reshape(1)[t.reshape(1) > 0].sum(),
    "nonzero": lambda t: t.reshape(1).nonzero().sum(),
    "list": lambda t: t.reshape(1).tolist()[0],
    "numpy": lambda t: float(t.numpy()),
    "cpu": lambda t: t.cpu(),
    "isnan": lambda t: 1.0 if torch.isnan(t) else 0.0,
}


@pytest.mark.parametrize("name", READERS)
def test_whoever_reads_is_caught(name):
    class Reader(Instrument):
        def measure(self, s):
            return {"x": READERS[name](s.weights.norm())}

    reader = Reader(every=1)
    watched(reader)
    with pytest.raises(AssertionError, match=r"waits|was read"):
        trials.run("neighbor", [reader])


class Light(Instrument):
    """Everything that a light instrument may ask for."""

    needs = Need.UPDATE | Need.LOSSES | Need.MICRO
    every = Every(1)

    def measure(self, s):
        value = s.grad.norm() + s.update.norm() + s.micro.sum()
        return {("x", "a"): value, "losses": sum((loss for _, loss in s.losses), value)}


def test_the_recorder_itself():
    """Hooks, micro-batches, clipping and losses; until rows are written."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, foreach=True)
    with Recorder(model, optimizer, [Light()]) as recorder:
        with nothing_waits():
            for _ in range(3):
                optimizer.zero_grad()
                loss = model(torch.ones(4, 3)).square().mean()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                recorder.log(loss=loss)
        recorder.sink.flush(wait=True)
    assert len([row for _, row in recorder.sink.rows if row.name == "light.x"]) == 3


@pytest.mark.gpu
def test_on_a_device():
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def draw(key):
        return torch.randn(16, 3, generator=Key(0).fold(key.bits).generator("cuda"), device="cuda")

    def loss_of(model, x):
        return model(x).square().mean()

    problem = FunctionProblem(loss_of, draw, num_targets=64, batch_size=16)
    names = [n for n in LIGHT if n not in trials.VARIANTS and n not in WAITING]
    zoo = [*map(trials.made, names), Light()]
    batches = [draw(Key(i)) for i in range(6)]
    recorder = Recorder(model, optimizer, zoo, problem=problem)
    try:
        with recorder:
            for i, x in enumerate(batches):
                if i == 3:  # all have set up by now
                    torch.cuda.set_sync_debug_mode("error")
                optimizer.zero_grad()
                loss = loss_of(model, x)
                loss.backward()
                optimizer.step()
                recorder.log(loss=loss)
            recorder.sink.flush()
            torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert recorder.firings["light"] == [1, 2, 3, 4, 5, 6]
