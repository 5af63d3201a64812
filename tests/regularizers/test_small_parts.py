"""Soft losses, sharpening, single draws and the moving average, each against its formula."""

import cases
import numpy as np
import pytest
import torch
from scipy import stats

from graphdyn.keys import Key
from graphdyn.models import build
from graphdyn.regularizers.average import Average
from graphdyn.regularizers.draws import beta, coin, uniform
from graphdyn.regularizers.soft_loss import sharpen, soft_losses


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_both_losses_are_their_formulas():
    z, t = cases.seeded(6, 4), torch.softmax(cases.seeded(6, 4, seed=1), 1)
    p, q = softmax(z.numpy()), t.numpy()
    bce = -(q * np.log(p) + (1 - q) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(soft_losses(z, t, "bce"), bce, rtol=1e-12)
    np.testing.assert_allclose(soft_losses(z, t, "ce"), -(q * np.log(p)).sum(1), rtol=1e-12)


def test_losses_of_certain_predictions_stay_finite_with_their_gradients():
    z = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    for kind in ("bce", "ce"):
        loss = soft_losses(z, torch.tensor([[0.0, 0.5, 0.5]]), kind).sum()
        (grad,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad).all()


def test_binary_cross_entropy_is_that_of_torch_with_its_gradient():
    z = (3 * cases.seeded(20, 5)).requires_grad_()
    t = torch.softmax(3 * cases.seeded(20, 5, seed=2), 1)
    ours = soft_losses(z, t, "bce").mean()
    theirs = torch.nn.functional.binary_cross_entropy(z.softmax(1), t)
    cases.close(ours, theirs, 1e-10)
    cases.close(*(torch.autograd.grad(loss, z)[0] for loss in (ours, theirs)), 1e-8)
    sure = torch.tensor([[500.0, 0.0]])
    assert soft_losses(sure, torch.tensor([[0.0, 1.0]]), "bce").item() == 100.0


def test_what_is_not_a_number_stays_so():
    """The loop says in a sentence that the loss exploded; nothing here may get in its way."""
    z = torch.full((2, 3), float("nan"))
    for kind in ("bce", "ce"):
        assert soft_losses(z, torch.full((2, 3), 1 / 3), kind).isnan().all()


def test_half_precision_is_computed_in_float32():
    z, t = cases.seeded(5, 3, dtype=torch.float32), torch.full((5, 3), 1 / 3)
    for kind in ("bce", "ce"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = soft_losses(z.bfloat16(), t, kind)
        assert torch.equal(out, soft_losses(z.bfloat16().float(), t, kind))


def test_sharpening_is_a_power_and_survives_underflow():
    p = torch.softmax(cases.seeded(8, 5), 1)
    powers = p.numpy() ** 10
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(sharpen(p, 0.1), expected, rtol=1e-10)
    cases.close(sharpen(p, 1.0), p, 1e-14)
    even = torch.full((1, 400), 1 / 400)  # to the 20th power 0 in float32
    cases.close(sharpen(even, 0.05), even, 1e-6)
    assert sharpen(torch.tensor([[1.0, 0.0]]), 0.1).tolist() == [[1.0, 0.0]]


def test_the_coin_is_fair_and_single_numbers_have_their_distributions():
    keys = [Key(1).at(step=i).fold("graphmix", "coin") for i in range(4000)]
    heads = np.mean([coin(k) for k in keys])
    assert abs(heads - 0.5) <= 5 * 0.5 / 4000**0.5
    assert heads != 0.5
    assert stats.kstest([uniform(k) for k in keys], "uniform").pvalue > 1e-4
    assert stats.kstest([beta(k, 0.4) for k in keys], stats.beta(0.4, 0.4).cdf).pvalue > 1e-4
    assert stats.kstest([beta(k, 0.4) for k in keys], "uniform").pvalue < 1e-6
    assert beta(keys[0], 1.0) == uniform(keys[0])


def weights(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def walk(model, steps):
    """Weights after each of a few steps that nobody computed."""
    for t in range(steps):
        with torch.no_grad():
            for i, p in enumerate(model.parameters()):
                p += cases.seeded(*p.shape, seed=10 * t + i, dtype=p.dtype)
        yield weights(model)


@pytest.mark.parametrize("decay", [0.999, 0.6])
def test_the_average_is_the_mean_until_decay_and_then_forgets(decay):
    model = build("gcn", 3, 2, hidden=4).double()
    average, seen = Average(model, decay), []
    for t, now in enumerate(walk(model, 6)):
        average.update()
        share = min(1 - 1 / (t + 1), decay)
        before = seen[-1] if seen else {n: 0 * p for n, p in now.items()}
        seen.append({n: share * before[n] + (1 - share) * p for n, p in now.items()})
        live = weights(model)
        with average.in_place():
            for n, p in model.named_parameters():
                cases.close(p.detach(), seen[-1][n], 1e-12)
        for n, p in model.named_parameters():
            assert torch.equal(p, live[n])  # training goes on where it was


def test_the_average_comes_back_from_a_checkpoint():
    model = build("gcn", 3, 2, hidden=4, norm="batch")
    average = Average(model, 0.9)
    for _ in walk(model, 3):
        average.update()
    state = {n: t.clone() for n, t in average.state().items()}
    other = Average(model, 0.9)
    other.restore(state)
    assert all(torch.equal(t, state[n]) for n, t in other.state().items())
    assert any("running_mean" in n for n in state)


def test_an_average_that_shares_memory_with_the_model_would_erase_it():
    """What the authors' code does: the first share of the old average is 0, and it is the weights themselves."""
    model = build("gcn", 3, 2, hidden=4)
    ours, shared = Average(model, 0.999), Average(model, 0.999)
    shared.values = dict(model.named_parameters())
    (_,) = walk(model, 1)
    live = weights(model)
    ours.update()
    assert all(torch.equal(p, live[n]) for n, p in model.named_parameters())
    with (
        torch.no_grad()
    ):  # ema <- a ema + (1 - a) weights in two steps, as there: first the product
        for value in shared.values.values():
            value.mul_(0.0)
            value.add_(1.0 * value)
    assert all(not p.any() for p in model.parameters())
