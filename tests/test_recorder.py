"""Recorder: every step once, whatever calls it; numbers as they were; one sentence where something is wrong."""

import copy
import gc
import io
import json
import random
import subprocess
import sys
import time
import weakref

import pytest
import torch
from instruments import trials
from spy import Spy

import graphdyn as gd
from graphdyn.checkpoint import pack, unpack
from graphdyn.errors import InputError, RecordError
from graphdyn.estimate import Curve, Estimate, Invalid
from graphdyn.instruments import INSTRUMENTS, Instrument, Need
from graphdyn.journal import Event, Line, Metric, read_table
from graphdyn.recorder import Recorder
from graphdyn.schedule import At, Auto, Epoch, Every, When


class Norm(Instrument):
    """A user's instrument: one method."""

    every = Every(1)

    def measure(self, s):
        return {"w": s.weights.norm()}


def net(dtype=torch.float64):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    rng = torch.Generator().manual_seed(1)
    model.to(dtype)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=rng, dtype=dtype)
    return model


def data(step, rows=6, dtype=torch.float64):
    rng = torch.Generator().manual_seed(100 + step)
    return torch.randn(rows, 3, generator=rng, dtype=dtype)


def loss_of(model, x):
    return model(x).square().mean()


def gradients(model, x, parts=1):
    """By a copy, which nobody watches."""
    model = copy.deepcopy(model)
    return torch.autograd.grad(loss_of(model, x) / parts, [*model.parameters()])


def gradient(model, x):
    return torch.cat([g.reshape(-1) for g in gradients(model, x)])


def train(model, optimizer, steps=3, recorder=None):
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, data(step))
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.log(loss=loss)


def rows(recorder, kind=Metric):
    recorder.sink.flush(wait=True)
    return [(clock.step, row) for clock, row in recorder.sink.rows if isinstance(row, kind)]


# ---------------------------------------------------------------------------------- each step once


class Calling(torch.optim.SGD):
    """Torch hooks its step, and its parent's."""

    def step(self, closure=None):
        return super().step(closure)


class Own(torch.optim.Optimizer):
    """A user's, from the ground up; it writes to gradients as it steps."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(group["lr"])
                    p.sub_(p.grad)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adam, fused": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "calling its parent": lambda p: Calling(p, 0.1),
    "from the ground up": lambda p: Own(p, 0.1),
    "through a scheduler": lambda p: torch.optim.SGD(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_step_once(name):
    torch.optim.SGD(
        [torch.nn.Parameter(torch.ones(1))], 0.1
    )  # torch hooks a class at its first object
    model, spy = net(), Spy()
    optimizer = OPTIMIZERS[name](model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    if name == "through a scheduler":
        torch.optim.lr_scheduler.StepLR(optimizer, 2)
    with Recorder(model, optimizer, [spy, Norm()]) as recorder:
        for step in range(3):
            optimizer.zero_grad()
            loss_of(model, data(step)).backward()
            expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).clone()
            optimizer.step()
            assert torch.equal(spy.seen[-1]["grad"], expected)
            now = [p.detach().clone() for p in model.parameters()]
            moved = torch.cat([(b - a).reshape(-1) for a, b in zip(before, now)])
            assert torch.equal(spy.seen[-1]["update"], moved)
            before = now
    assert [s["step"] for s in spy.seen] == [1, 2, 3]
    assert [step for step, row in rows(recorder) if row.name == "norm.w"] == [0, 1, 2, 3]
    assert recorder.step == 3


def test_a_closure_takes_the_gradients_inside_the_step():
    model, spy = net(), Spy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, data(optimizer.count))
        loss.backward()
        if optimizer.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return loss

    with Recorder(model, optimizer, [spy]):
        for optimizer.count, optimizer.clip in ((0, False), (1, True), (2, False)):
            expected = gradient(model, data(optimizer.count))
            optimizer.step(closure)
            clipped = expected * 1e-3 / (expected.norm() + 1e-6)
            torch.testing.assert_close(
                spy.seen[-1]["grad"], clipped if optimizer.clip else expected
            )
    assert [s["modified"] for s in spy.seen] == [False, True, False]


def test_lbfgs_steps_once_though_it_looks_often():
    model, spy, calls = net(), Spy(), []
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = loss_of(model, data(0))
        loss.backward()
        return loss

    with Recorder(model, optimizer, [spy]) as recorder:
        optimizer.step(closure)
        optimizer.step(closure)
    assert recorder.step == 2 < len(calls)


def test_a_step_that_fails_is_none_and_the_next_one_counts():
    class Failing(Calling):
        def step(self, closure=None):
            if self.fails:
                raise RuntimeError("out of memory")
            return super().step(closure)

    model, spy = net(), Spy()
    optimizer = Failing(model.parameters(), 0.1)
    with Recorder(model, optimizer, [spy]) as recorder:
        for optimizer.fails in (False, True, True, False):
            loss_of(model, data(0)).backward()
            if optimizer.fails:
                with pytest.raises(RuntimeError):
                    optimizer.step()
            else:
                optimizer.step()
    assert recorder.step == 2
    assert [s["step"] for s in spy.seen] == [1, 2]


def test_micro_batches_of_an_accumulated_step():
    model, spy = net(), Spy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [spy], groups="tensor") as recorder:
        for step in range(2):
            optimizer.zero_grad()
            expected = []
            for micro in range(3):
                x = data(10 * step + micro)
                squares = [g.square().sum() for g in gradients(model, x, parts=3)]
                expected.append(torch.stack(squares))
                (loss_of(model, x) / 3).backward()
            optimizer.step()
            torch.testing.assert_close(spy.seen[-1]["micro"], torch.stack(expected))
    assert recorder.step == 2


class Looking(Instrument):
    """Takes gradients of its own."""

    every = Every(1)

    def measure(self, s):
        with s.isolated():
            loss_of(s.model, data(77)).backward()
        return {}


def test_gradients_of_instruments_are_not_counted():
    model, spy = net(), Spy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [Looking(), spy]) as recorder:
        for step in range(3):
            optimizer.zero_grad(set_to_none=False)
            loss_of(model, data(step)).backward()
            recorder.measure("looking")
            loss_of(model, data(step)).backward()
            optimizer.step()
    assert [s["micro"].shape[0] for s in spy.seen] == [2, 2, 2]
    assert [s["modified"] for s in spy.seen] == [False, False, False]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_is_none(fused):
    model, spy = net(torch.float32), Spy()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with Recorder(model, optimizer, [spy]) as recorder:
        for step in range(4):
            optimizer.zero_grad()
            x = data(step, dtype=torch.float32)
            expected = gradient(model, x)
            loss = loss_of(model, x) * (float("inf") if step == 1 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if step != 1:
                torch.testing.assert_close(spy.seen[-1]["grad"], expected)
                assert spy.seen[-1]["micro"].shape[0] == 1
                square = expected.double().square().sum()
                torch.testing.assert_close(spy.seen[-1]["micro"].sum(), square)
    assert recorder.step == 3
    assert [s["modified"] for s in spy.seen] == [False] * 3


def test_a_scaler_whose_gradients_are_unscaled_and_clipped_first():
    model, spy = net(torch.float32), Spy()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with Recorder(model, optimizer, [spy]):
        scaler.scale(loss_of(model, data(0, dtype=torch.float32))).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
    assert float(spy.seen[0]["grad"].norm()) == pytest.approx(0.1, rel=1e-4)
    assert spy.seen[0]["modified"]


def test_clipping_is_told_once():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [Norm()]) as recorder:
        for step in range(4):
            optimizer.zero_grad()
            loss_of(model, data(step)).backward()
            if step:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    found = rows(recorder, Event)
    assert [(step, row.name) for step, row in found] == [(2, "gradients modified")]


def test_the_module_inside_a_parallel_one():
    model = net()
    parallel = torch.nn.DataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), 0.1)
    recorder = Recorder(parallel, optimizer, [Norm()])
    assert recorder.model is model
    assert recorder.groups.names == ("0", "2")


class Distributed(torch.nn.parallel.DistributedDataParallel):
    """Of one process: its own constructor would want a group."""

    def __init__(self, module):
        torch.nn.Module.__init__(self)
        self.module = module

    def forward(self, *args):
        return self.module(*args)


def test_the_module_inside_a_distributed_one():
    model = Distributed(net())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    spy = Spy()
    with Recorder(model, optimizer, [spy]) as recorder:
        for step in range(2):
            optimizer.zero_grad()
            expected = gradient(model.module, data(step))
            loss_of(model, data(step)).backward()
            optimizer.step()
            torch.testing.assert_close(spy.seen[-1]["grad"], expected)
    assert recorder.model is model.module
    assert recorder.step == 2


# ------------------------------------------------------------------------- what the loop may say


def test_losses_reach_those_that_ask_once_and_in_order():
    model, often = net(), Spy()
    seldom = type("Seldom", (Spy,), {})(every=3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    said = []
    with Recorder(model, optimizer, [often, seldom]) as recorder:
        for step in range(7):
            optimizer.zero_grad()
            loss = loss_of(model, data(step))
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss)
            said.append((step, loss.item()))
    assert [s["losses"] for s in often.seen] == [[], *[[pair] for pair in said[:-1]]]
    assert [s["losses"] for s in seldom.seen] == [said[:2], said[2:5]]
    assert len(recorder._heard.losses) <= 3


def test_losses_are_forgotten_when_nobody_will_read_them():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    over = Spy(every=At([1]))
    with Recorder(model, optimizer, [over, Norm()]) as recorder:
        train(model, optimizer, 5, recorder)
        assert recorder._heard.losses == []


def test_what_is_logged_is_a_row():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [Spy()]) as recorder:
        train(model, optimizer, 1)
        recorder.log(loss=torch.tensor(2.0, requires_grad=True), valid=0.5, test=torch.tensor(0.25))
        recorder.log(loss=3.5)
        recorder.mark("milestone", "learning rate fell")
        train(model, optimizer, 1)
    logged = [(s, *r[:3]) for s, r in rows(recorder) if "spy" not in r.name]
    assert sorted(logged) == [
        (1, "loss", "step", 2.0),
        (1, "loss", "step", 3.5),
        (1, "test", "all", 0.25),
        (1, "valid", "all", 0.5),
    ]
    assert rows(recorder, Event) == [(1, Event("milestone", "learning rate fell"))]
    assert recorder.watches[0].instrument.seen[-1]["scores"] == {"valid": 0.5, "test": 0.25}
    with pytest.raises(InputError, match="log got a loss of shape"):
        recorder.log(loss=torch.ones(3))


class Mutable(Instrument):
    """Numbers that go on to change after they were said."""

    every = Every(1)

    def __init__(self):
        super().__init__()
        self.sum, self.curve = torch.zeros(()), torch.zeros(2)

    def measure(self, s):
        self.sum += 1
        self.curve += 1
        return {
            "sum": self.sum,
            "bias": next(s.model.parameters())[0, 0],
            "several": Curve([0.0, 1.0], self.curve),
            "estimated": Estimate(self.sum, self.sum, 4, self.sum),
        }


def test_rows_hold_the_numbers_of_their_step():
    model, weights = net(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [Mutable()]) as recorder:
        weights.append(float(model[0].weight.detach()[0, 0]))
        for _ in range(2):
            train(model, optimizer, 1)
            weights.append(float(model[0].weight.detach()[0, 0]))
    found = rows(recorder)
    assert [r.value for _, r in found if r.name == "mutable.sum"] == [1, 2, 3]
    assert [r.value for _, r in found if r.name == "mutable.bias"] == weights
    estimated = [r[2:6] for _, r in found if r.name == "mutable.estimated"]
    assert estimated == [(n, n, n, 4) for n in (1, 2, 3)]
    assert [r.y for _, r in rows(recorder, Line)] == [[1, 1], [2, 2], [3, 3]]


class Saying(Instrument):
    """Says what it is given."""

    every = Every(1)

    def __init__(self, *readings):
        super().__init__()
        self.readings = list(readings)

    def measure(self, s):
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if isinstance(reading, Invalid):
            raise reading
        return reading


def watched(instrument, steps=3, **options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [instrument], **options) as recorder:
        train(model, optimizer, steps)
    return recorder


@pytest.mark.parametrize(
    ("reading", "sentence"),
    [
        ({"x": torch.ones(3)}, r"saying.x has shape \(3,\)"),
        ({"x": None}, "saying.x is None"),
        (3.0, "Saying.measure gave float"),
        ({"x": Estimate(1.0, torch.ones(2))}, r"saying.x has shape \(2,\)"),
    ],
)
def test_a_reading_that_is_none(reading, sentence):
    with pytest.raises(InputError, match=sentence):
        watched(Saying(reading))


def test_invalid_in_setup_turns_an_instrument_off():
    class Never(Norm):
        asked = 0

        def setup(self, s):
            self.asked += 1
            raise Invalid("no weights of 7 kinds.")

    never = Never()
    recorder = watched(never)
    assert rows(recorder, Event) == [(0, Event("never invalid", "no weights of 7 kinds."))]
    assert rows(recorder) == []
    assert never.asked == 1
    assert recorder.firings == {"never": [0]}


def test_invalid_in_measure_is_recorded_once_a_reason():
    gaps = [
        Invalid("the norm is 3.5."),
        Invalid("the norm is 4.5e-3."),
        Invalid("nothing moved."),
        {"x": 1.0, "y": Invalid("nothing moved.")},
        {("y", "a"): Invalid("no degree."), ("y", "b"): Invalid("no edge.")},
        {"x": 2.0},
    ]
    recorder = watched(Saying(*gaps), steps=5)
    assert [(s, r.name, r.text) for s, r in rows(recorder, Event)] == [
        (0, "saying invalid", "the norm is 3.5."),
        (2, "saying invalid", "nothing moved."),
        (3, "saying.y invalid", "nothing moved."),
        (4, "saying.y invalid", "no degree."),
        (4, "saying.y invalid", "no edge."),
    ]
    assert [(s, r.value) for s, r in rows(recorder)] == [(3, 1.0), (5, 2.0)]


# ------------------------------------------------------------------------------------- sentences


def test_two_instruments_of_one_name():
    with pytest.raises(InputError, match="two instruments are called 'norm'"):
        watched_by(Norm(), Norm())


def test_one_that_needs_a_problem():
    needy = INSTRUMENTS["grad_noise"]()
    with pytest.raises(InputError, match="GradNoise draws batches of its own; give the recorder"):
        watched_by(needy)


def watched_by(*instruments, **options):
    model = net()
    return Recorder(model, torch.optim.SGD(model.parameters(), 0.1), instruments, **options)


def test_attached_twice():
    recorder = watched_by(Norm())
    with recorder, pytest.raises(InputError, match="is attached; close it before"):
        recorder.attach()


def test_a_model_without_parameters():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    with pytest.raises(InputError, match="no parameter"):
        Recorder(torch.nn.Tanh(), optimizer, [Norm()])


def test_state_of_other_instruments():
    state = watched_by(Norm()).state_dict()
    with pytest.raises(InputError, match="of the instruments norm, and here are spy"):
        watched_by(Spy()).load_state_dict(state)


def test_a_folder_of_another_run(tmp_path):
    watched(Norm(), to=tmp_path / "run")
    with pytest.raises(RecordError, match="holds what another run has measured"):
        watched(Norm(), to=tmp_path / "run")
    with pytest.raises(RecordError, match="holds what another run has measured"):
        watched(Norm(), to=tmp_path / "run")  # and not that it is locked


def test_a_folder_that_is_being_written(tmp_path):
    first = watched_by(Norm(), to=tmp_path / "run")
    with pytest.raises(RecordError, match="another process is writing"):
        watched_by(Norm(), to=tmp_path / "run")
    first.close()


def test_a_name_that_nobody_has():
    with pytest.raises(InputError, match="no instrument 'nrom' here; known: norm"):
        watched_by(Norm()).measure("nrom")


def test_a_share_that_is_none():
    with pytest.raises(InputError, match="budget is 5; it must lie in"):
        watched_by(Norm(), budget=5)


# ------------------------------------------------------------------------------------ when to measure


def test_measuring_off_schedule():
    model, spy = net(), Spy(every=100)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [spy, Norm()]) as recorder:
        found = recorder.measure("norm")["norm"]["w"]
        assert found == torch.cat([p.detach().reshape(-1) for p in model.parameters()]).norm()
        with pytest.raises(Invalid, match="no gradient is there at this moment"):
            recorder.measure("spy")
        train(model, optimizer, 2)
        with pytest.raises(Invalid, match="were not kept; measure right after a step that was due"):
            recorder.measure()
    assert recorder.firings == {"spy": [], "norm": [0, 1, 2]}
    assert [step for step, _ in rows(recorder)] == [0, 1, 2]


def test_schedules():
    schedules = {
        "at": (At([1, 4]), [1, 4]),
        "when": (When(lambda step: step % 3 == 1), [1, 4]),
        "epoch": (Epoch(2), [4]),
        "auto": (Auto(steps=2), [0, 2, 4]),
        "every": (4, [0, 4]),
    }
    zoo = [type(n.title(), (Norm,), {})(every=every) for n, (every, _) in schedules.items()]
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, zoo) as recorder:
        for _ in range(2):
            train(model, optimizer, 2)
            recorder.end_epoch()
        train(model, optimizer, 1)
    assert recorder.firings == {n: steps for n, (_, steps) in schedules.items()}
    assert recorder.epoch == 2


def test_one_that_looks_at_a_step_and_measures_by_epochs_looks_at_the_next():
    model, spy = net(), Spy(every=Epoch())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Recorder(model, optimizer, [spy]) as recorder:
        for _ in range(2):
            train(model, optimizer, 2)
            recorder.end_epoch()
        train(model, optimizer, 3)
    assert [s["step"] for s in spy.seen] == [3, 5]
    assert all(float(s["update"].norm()) > 0 for s in spy.seen)


def test_the_firings_of_another_run_are_repeated():
    rng = random.Random(1)
    first = watched(Norm(every=When(lambda _: rng.random() < 0.4)), steps=20)
    assert 3 < len(first.firings["norm"]) < 17
    again = watched(Norm(), steps=20, replay=first.firings)
    assert again.firings == first.firings
    assert rows(again) == rows(first)
    poor = watched(Norm(), steps=20, replay=first.firings, budget=1e-9)
    assert poor.firings == first.firings


def test_a_part_that_is_frozen_on_the_way():
    g = trials.layered.graph(torch.float32)
    model = gd.build("gcn", trials.layered.F, trials.layered.C, hidden=4, layers=2, seed=1)
    problem = trials.layered.node_problem(model, g, "neighbor")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    noise = trials.made("grad_noise")
    first = next(iter(model.parameters()))
    with Recorder(model, optimizer, [noise, Norm()], problem=problem) as recorder:
        for step in range(3):
            first.requires_grad_(step != 1)
            optimizer.zero_grad()
            problem.loss(model, problem.draw(gd.Key(step))).backward()
            optimizer.step()
    assert recorder.firings["grad_noise"] == [0, 1, 2, 3]


# --------------------------------------------------------------------------------------- the record


def test_closing_twice_keeps_the_rows(tmp_path):
    with Recorder(*parts(), [Norm()], to=tmp_path / "run") as recorder:
        train(recorder.model, recorder.optimizer)
        recorder.close()
    assert read_table(tmp_path / "run").num_rows == 4
    with pytest.raises(RecordError, match="was closed; choose another folder"):
        recorder.attach()


def parts():
    model = net()
    return model, torch.optim.SGD(model.parameters(), 0.1)


def test_after_an_error_a_checkpoint_goes_on(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), Recorder(*parts(), [Norm()], to=folder) as recorder:
        train(recorder.model, recorder.optimizer, 2)
        state = recorder.state_dict()
        weights = copy.deepcopy(recorder.model.state_dict())
        train(recorder.model, recorder.optimizer, 5)
        raise KeyboardInterrupt
    assert read_table(folder).num_rows == 8
    model, optimizer = parts()
    model.load_state_dict(weights)
    again = Recorder(model, optimizer, [Norm()], to=folder)
    again.load_state_dict(state)
    with again:
        train(model, optimizer, 2)
    assert read_table(folder).column("step").to_pylist() == [0, 1, 2, 3, 4]


def test_a_closed_record_does_not_go_on(tmp_path):
    recorder = Recorder(*parts(), [Norm()], to=tmp_path / "run")
    with recorder:
        train(recorder.model, recorder.optimizer, 2)
        state = recorder.state_dict()
    again = Recorder(*parts(), [Norm()], to=tmp_path / "run")
    with pytest.raises(RecordError, match="was closed, and cannot go on"):
        again.load_state_dict(state)


def test_nothing_is_left_behind():
    model, optimizer = parts()
    recorder = Recorder(model, optimizer, [Spy()])
    with recorder:
        train(model, optimizer, 2)
    for p in model.parameters():
        assert not p._backward_hooks
        assert not p._post_accumulate_grad_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    gone = weakref.ref(recorder)
    del recorder
    gc.collect()
    assert gone() is None


# ----------------------------------------------------------------------------------------- resume


def table(recorder):
    """All rows, times aside."""
    recorder.sink.flush(wait=True)
    found = []
    for clock, row in recorder.sink.rows:
        if isinstance(row, Line) or "seconds" not in row.name:
            found.append((clock.step, clock.epoch, row))
    return found


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def packed(state):
    tensors, plain = pack(state)
    tensors = {name: t.clone() for name, t in tensors.items()}
    return unpack(tensors, json.loads(json.dumps(plain, allow_nan=False)))


LONG = 8  # steps, so that running sums matter


def interrupted(carry, stop):
    """The rows of a training that stops, and goes on in a new recorder over the same objects."""
    rows, state = [], {}
    with trials.generators():
        trial = trials.CASES["neighbor"]()
        for first, last in ((0, stop), (stop, LONG)) if stop else ((0, LONG),):
            zoo = [
                trials.made(n, 3 if Need.PROBLEM in k.needs else 1) for n, k in INSTRUMENTS.items()
            ]
            recorder = Recorder(trial.model, trial.optimizer, zoo, problem=trial.problem)
            if first:
                recorder.load_state_dict(state)
            recorder.attach()
            for step in range(first, last):
                loss = trial.step()
                recorder.log(loss=loss[0], valid=0.1 * step)
                if step % 2:
                    recorder.end_epoch()
            state = carry(recorder.state_dict())
            recorder.close()
            rows += table(recorder)
    return rows


@pytest.fixture(scope="module")
def straight():
    return interrupted(saved, 0)


@pytest.mark.parametrize(("carry", "stop"), [(saved, 5), (packed, 3)], ids=["torch", "packed"])
def test_every_instrument_goes_on_as_if_nothing_had_been(carry, stop, straight):
    again = interrupted(carry, stop)
    for name in (*INSTRUMENTS, "loss", "valid"):
        left, right = (
            [str(r) for r in part if r[2].name.split(".")[0].split(" ")[0] == name]
            for part in (straight, again)
        )
        assert sorted(left) == sorted(right), name
    assert len({r[2].name.split(".")[0] for r in again}) > len(INSTRUMENTS) / 2


COMMAND = [
    sys.executable, "-m", "graphdyn", "train", "--dataset", "csbm", "--hidden", "8", "--epochs", "12", "--norm", "batch",
    "--seeds", "1", "--threads", "1", "--checkpoint-seconds", "0", "--measure-every", "3",
    "--instruments", "light+grad_noise",
]  # fmt: skip


def killed(folder, parts):
    """A run that is killed once it has written so many checkpoints."""
    process = subprocess.Popen([*COMMAND, "--out", str(folder)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("metrics/*.arrow"))) < parts:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_run_killed_with_nine_has_the_same_rows(tmp_path):
    killed(tmp_path / "killed", 3)
    for folder in ("killed", "straight"):
        subprocess.run([*COMMAND, "--out", str(tmp_path / folder)], check=True, capture_output=True)
    for name in ("metrics", "curves", "events"):
        one, other = (
            read_table(tmp_path / folder, name).drop_columns("seconds").to_pylist()
            for folder in ("killed", "straight")
        )
        resumed = [r["step"] for r in one if r["name"] == "resumed"]
        assert len(resumed) == (name == "events")  # what is said of the kill, and of nothing else
        one, other = (
            [str(r) for r in rows if "seconds" not in r["name"] and r["name"] != "resumed"]
            for rows in (one, other)
        )
        assert one == other
        assert name != "metrics" or any("grad_noise.trace" in row for row in one)


def test_what_was_told_is_not_told_again_after_a_resume():
    state, told = None, 0
    for _ in range(2):
        model, optimizer = parts()
        recorder = Recorder(model, optimizer, [Norm()])
        if state is not None:
            recorder.load_state_dict(state)
        with recorder:
            loss_of(model, data(0)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            state = recorder.state_dict()
        told += len(rows(recorder, Event))
    assert told == 1
