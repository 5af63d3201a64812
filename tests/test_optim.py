"""Optimisers and schedules by name; decay lands on the groups it was meant for."""

import pytest
import torch

from graphdyn.errors import InputError
from graphdyn.optim import advance, build_optimizer, build_schedule


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(2))
        self.b = torch.nn.Parameter(torch.ones(3))

    def parameter_groups(self):
        return {"first": [self.a], "out": [self.b]}


def test_decay_by_group():
    optimizer = build_optimizer(
        Two(), "AdamW", lr=0.1, weight_decay=0.5, weight_decay_for={"out": 0.0}
    )
    assert [(g["name"], g["weight_decay"], g["lr"]) for g in optimizer.param_groups] == [
        ("first", 0.5, 0.1),
        ("out", 0.0, 0.1),
    ]


def test_a_foreign_model_is_one_group():
    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, "sgd", momentum=0.9)
    assert [p is q for p, q in zip(optimizer.param_groups[0]["params"], model.parameters())] == [
        True,
        True,
    ]
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_optimizer(Two(), "adm"), "unknown optimiser 'adm'; did you mean adam"),
        (lambda: build_optimizer(Two(), "lbfgs"), "unknown optimiser"),
        (lambda: build_optimizer(Two(), "adam", beta=3), "refused its options"),
        (
            lambda: build_optimizer(Two(), "adam", weight_decay_for={"frist": 1.0}),
            "did you mean first",
        ),
        (lambda: build_schedule(build_optimizer(Two()), "cosine"), "unknown schedule"),
        (lambda: build_schedule(build_optimizer(Two()), "StepLR"), "refused its options"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_schedules_advance_once_a_call_and_plateau_reads_the_loss():
    optimizer = build_optimizer(Two(), "sgd", lr=1.0)
    schedule = build_schedule(optimizer, "steplr", step_size=2, gamma=0.1)
    rates = []
    for _ in range(4):
        optimizer.step()
        advance(schedule, 0.0)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1.0, 0.1, 0.1, 0.01])

    optimizer = build_optimizer(Two(), "sgd", lr=1.0)
    plateau = build_schedule(optimizer, "ReduceLROnPlateau", patience=0, factor=0.5)
    for loss in (1.0, 2.0, 0.5):
        advance(plateau, loss)
    assert optimizer.param_groups[0]["lr"] == 0.5
    advance(None, 0.0)
