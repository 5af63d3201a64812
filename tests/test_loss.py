"""The loss is a weighted sum over the rows that carry one; oracles are written from the definition."""

import math
from dataclasses import replace

import cases
import pytest
import torch

from graphdyn.loss import node_loss, node_losses


def batch_of(task="multiclass"):
    return cases.whole(cases.tiny(task=task), cases.small_model("mlp"))


def test_cross_entropy_of_each_row_is_minus_the_log_probability_of_its_class():
    batch = batch_of()
    logits = cases.seeded(12, 3)
    expected = [
        math.log(sum(math.exp(float(z)) for z in logits[v])) - float(logits[v, c])
        for v, c in zip(batch.rows.tolist(), batch.y.tolist())
    ]
    cases.close(node_losses(logits, batch), torch.tensor(expected, dtype=torch.float64), 1e-12)


def test_loss_is_the_weighted_sum_and_never_a_mean():
    batch, logits = batch_of(), cases.seeded(12, 3)
    weight = torch.tensor([0.5, 0.0, 2.0, 1.0, 3.0, 0.25])
    batch = replace(batch, seed_weight=weight)
    expected = sum(w * x for w, x in zip(weight.tolist(), node_losses(logits, batch).tolist()))
    assert float(node_loss(logits, batch)) == pytest.approx(expected)


def test_a_full_batch_gives_the_mean_over_its_nodes():
    batch, logits = batch_of(), cases.seeded(12, 3)
    mean = torch.nn.functional.cross_entropy(logits[batch.rows], batch.y)
    cases.close(node_loss(logits, batch), mean, 1e-7)


def test_multilabel_loss_is_the_mean_over_labelled_classes():
    batch, logits = batch_of("multilabel"), cases.seeded(12, 3)
    y = batch.y.clone()
    y[1, 2] = y[3, 0] = y[3, 1] = float("nan")
    y[5] = float("nan")
    batch = replace(batch, y=y)
    expected = []
    for v, labels in zip(batch.rows.tolist(), y.tolist()):
        p = [1 / (1 + math.exp(-float(z))) for z in logits[v]]
        terms = [-math.log(q if t else 1 - q) for q, t in zip(p, labels) if not math.isnan(t)]
        expected.append(sum(terms) / max(1, len(terms)))
    cases.close(node_losses(logits, batch), torch.tensor(expected, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_missing_labels_have_no_loss_and_no_gradient(task):
    batch = batch_of(task)
    y = batch.y.clone()
    y[2] = float("nan") if task == "multilabel" else -1
    batch = replace(batch, y=y)
    logits = cases.seeded(12, 3).requires_grad_()
    losses = node_losses(logits, batch)
    assert float(losses[2].detach()) == 0.0
    losses.sum().backward()
    assert not logits.grad[batch.rows[2]].any()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[batch.rows[0]].any()


def test_half_precision_logits_give_a_float32_loss():
    batch, logits = batch_of(), cases.seeded(12, 3)
    half = node_loss(logits.bfloat16(), batch)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(node_loss(logits, batch)), rel=0.02)


def test_rows_may_repeat():
    batch, logits = batch_of(), cases.seeded(12, 3).requires_grad_()
    twice = replace(
        batch, rows=batch.rows[[0, 0]], y=batch.y[[0, 0]], seed_weight=torch.ones(2).double()
    )
    (once,) = torch.autograd.grad(node_losses(logits, batch)[0], logits)
    (double,) = torch.autograd.grad(node_loss(logits, twice), logits)
    cases.close(double, 2 * once, 1e-12)
