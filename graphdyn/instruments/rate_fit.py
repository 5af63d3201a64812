"""RateFit: how fast the training loss falls now, from an exponential through the losses that were noted.

Valid where the end of the curve is one exponential: near a minimum, with one mode left, and losses that are hardly
noisy (full batches, or batches that make up most of the problem). The model is L_t = L_inf + c exp(-r t), c > 0,
least squares by variable projection (Golub & Pereyra 1973): L_inf and c are linear and drop out, r is searched.
It must explain 99.5 % of the variance of the raw losses and 90 % of that of their later half, or else fast modes
that are gone would speak for the present; over at least one time constant. Curves are never smoothed, for an
average over time has a rate of its own. Gradient descent on a quadratic with eigenvalue h decays
with r = -2 log|1 - eta h|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from graphdyn.errors import InputError
from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.keys import Key
from graphdyn.snapshot import Snapshot

LEAST = 16  # losses of a window
SHRINK = 0.8  # from one window to the next
EXPLAINED, LATER = 0.995, 0.9  # shares of the variance: of a window, of its later half
REPLICATES = 200
EDGE = 4.0  # replicates look for a rate up to so many times larger or smaller
Array = np.ndarray


class Decay(NamedTuple):
    """L_t = limit + scale exp(-rate (t - start)), fitted.

    Attributes:
        rate: Per unit of t.
        limit: L_inf.
        scale: c.
        start: The first t.
        r2: Share of the variance of the losses that is explained.
        later: The same of the later half of them.
    """

    rate: float
    limit: float
    scale: float
    start: float
    r2: float = 0.0
    later: float = 0.0

    def __call__(self, t: Array) -> Array:
        """(n,) the curve."""
        return self.limit + self.scale * np.exp(-self.rate * (t - self.start))


class RateFit(Instrument):
    """Rate of the training loss, on the longest window that ends now and fits.

    ============  ==========  =====================================================================
    reading       unit        what it is
    ============  ==========  =====================================================================
    ``rate``      1/step      r; standard error by a bootstrap of moving blocks of residuals
    ``epoch``     1/epoch     r times targets of the problem over targets a step; needs a problem
    ``target``    1/target    r over target gradients a step, so far counted or else those of the problem
    ``edge``      1/edge      r over edges a step, so far counted
    ``limit``     loss        L_inf
    ``r2``        1           share of the variance of the window's losses that is explained
    ``window``    steps       that the window spans
    ============  ==========  =====================================================================

    Intervals of 95 % for r cover 93 to 96 % where noise is independent, and about 90 % where it is correlated by
    0.5 from step to step. No prediction: the smallest eigenvalue is not known here. It reads the losses, so it
    waits for a device once a measurement.

    Args:
        optimum: L_inf, where it is known; else it is fitted.
        most: Losses to keep; beyond that, every second one is forgotten.

    Raises:
        InputError: If fewer would be kept than a window needs.
    """

    needs = Need.LOSSES

    def __init__(self, *, optimum: float | None = None, most: int = 2048, **options: Any):
        super().__init__(**options)
        if most < 2 * LEAST:
            raise InputError(f"RateFit keeps {most} losses; let it keep at least {2 * LEAST}.")
        self.optimum, self.most = optimum, most
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._seen: int | None = None
        self._stride = 1

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If no window fits, or there are too few losses.
        """
        self._keep(s)
        if len(self._steps) < LEAST:
            raise Invalid(f"{len(self._steps)} losses were noted; a fit takes {LEAST}.")
        t, y = np.array(self._steps, float), np.array(self._losses)
        fit, start = longest(t, y, self.optimum)
        t, y = t[start:], y[start:]
        se = bootstrap(t, y, fit, s.key.fold("rate_fit"), known=self.optimum is not None)
        found: dict[str | tuple[str, str], Any] = {
            "limit": fit.limit,
            "r2": fit.r2,
            "window": t[-1] - t[0],
        }
        for name, per_step in {"rate": 1.0, **_units(s)}.items():
            found[name] = Estimate(fit.rate / per_step, se / per_step, len(t))
        return found

    def _keep(self, s: Snapshot) -> None:
        new = [pair for pair in s.losses if self._seen is None or pair[0] > self._seen]
        if new:
            values = torch.stack([loss.detach().double() for _, loss in new]).cpu().numpy()
            self._seen = new[-1][0]
            self._steps += [step for step, _ in new]
            self._losses += [float(v) for v in values]
            self._thin()

    def _thin(self) -> None:
        while True:
            places = [i for i, step in enumerate(self._steps) if step % self._stride == 0]
            if len(places) <= self.most:
                break
            self._stride *= 2
        self._steps = [self._steps[i] for i in places]
        self._losses = [self._losses[i] for i in places]

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        curve = {"steps": list(self._steps), "losses": list(self._losses)}
        return curve | {"seen": self._seen, "stride": self._stride}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._steps, self._losses = list(state["steps"]), list(state["losses"])
        self._seen, self._stride = state["seen"], state["stride"]


def longest(t: Array, y: Array, optimum: float | None = None) -> tuple[Decay, int]:
    """The fit on the longest window that ends at the last loss and fits, and where it starts.

    Args:
        t: (n,) ascending.
        y: (n,) losses.
        optimum: L_inf, where it is known.

    Raises:
        Invalid: If none fits.
    """
    length, best = len(t), 0.0
    while length >= LEAST:
        fit = decay(t[-length:], y[-length:], optimum)
        if fit is not None:
            if fit.r2 > EXPLAINED and fit.later > LATER:
                return fit, len(t) - length
            best = max(best, fit.r2)
        length = int(length * SHRINK)
    raise Invalid(
        f"no window of the loss is an exponential decay (R^2 is at most {best:.4f}; {EXPLAINED} is asked for, and "
        f"{LATER} of its later half); "
        "larger batches make less noise, more steps bring the curve to its end."
    )


def decay(t: Array, y: Array, optimum: float | None = None) -> Decay | None:
    """Least squares; ``None`` where the loss does not fall, or by less than a time constant.

    Args:
        t: (n,) ascending.
        y: (n,) losses.
        optimum: L_inf, where it is known.
    """
    span = t[-1] - t[0]
    total = np.square(y - y.mean()).sum()
    if not np.isfinite(total) or total <= (1e-12 * np.abs(y).max()) ** 2 * len(y):
        return None
    u, known = (t - t[0]) / span, optimum is not None
    target = y - (y.mean() if optimum is None else optimum)
    grid = np.geomspace(1.0, 2.0 * len(t), 65)
    for zoom in range(7):
        gains = _explained(np.exp(-grid[:, None] * u), target[None, :], known)[:, 0]
        best = int(gains.argmax())
        if zoom == 0 and best in (0, len(grid) - 1):
            return None
        grid = np.geomspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 17)
    rate = float(grid[8] / span)
    b = np.exp(-rate * (t - t[0]))
    centred = b if known else b - b.mean()
    c = float(centred @ target / (centred @ centred))
    limit = float(y.mean() - c * b.mean()) if optimum is None else optimum
    if c <= 0:
        return None
    fit = Decay(rate, limit, c, float(t[0]))
    half = len(t) // 2
    return fit._replace(r2=_r2(y, fit(t)), later=_r2(y[half:], fit(t)[half:]))


def bootstrap(t: Array, y: Array, fit: Decay, key: Key, *, known: bool = False) -> float:
    """Standard error of the rate: residuals come back in blocks of n^(1/3), and the rate is fitted anew.

    Moving blocks are those of Kuensch 1989. Residuals are orthogonal to the three smooth curves that were fitted,
    and blocks of length l are as smooth: they lack 3 l / n of the variance, for which residuals are scaled.

    Args:
        t: (n,) of the window.
        y: (n,) losses of the window.
        fit: On it.
        key: Of the resampling.
        known: Whether L_inf was given.
    """
    n = len(t)
    block = int(np.ceil(n ** (1 / 3)))
    count = -(-n // block)
    residual = (y - fit(t)) * np.sqrt(n / (n - 3 * block))
    ids = torch.arange(REPLICATES * count).view(REPLICATES, count, 1)
    starts = key.integers(ids, n - block + 1).numpy()
    drawn = residual[(starts + np.arange(block)).reshape(REPLICATES, -1)[:, :n]]
    replicas = fit(t) + drawn - (0.0 if known else drawn.mean(1, keepdims=True))
    target = replicas - (fit.limit if known else replicas.mean(1, keepdims=True))
    rates = fit.rate * np.geomspace(1 / EDGE, EDGE, 129)
    gains = _explained(np.exp(-rates[:, None] * (t - t[0])), target, known)
    return float(_peak(np.log(rates), gains).std(ddof=1) * fit.rate)


def _explained(basis: Array, target: Array, known: bool) -> Array:
    """(K, B) sum of squares that (K, n) curves explain of (B, n) losses; means are taken out beforehand."""
    if not known:
        basis = basis - basis.mean(1, keepdims=True)
    products = basis @ target.T
    return np.square(products) / np.square(basis).sum(1)[:, None]


def _r2(y: Array, fitted: Array) -> float:
    total = np.square(y - y.mean()).sum()
    return float(1 - np.square(y - fitted).sum() / total) if total > 0 else 0.0


def _peak(x: Array, heights: Array) -> Array:
    """(B,) where parabolas through the three points about each column's maximum have theirs."""
    top = heights.argmax(0).clip(1, len(x) - 2)
    columns = np.arange(heights.shape[1])
    low, mid, high = (heights[top + k, columns] for k in (-1, 0, 1))
    bend = low - 2 * mid + high
    shift = np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, 1.0), 0.0)
    return x[top] + shift.clip(-1, 1) * (x[1] - x[0])


def _units(s: Snapshot) -> dict[str, float]:
    """Epochs, target gradients and edges a step, as far as they are known."""
    found, step = {}, max(s.step, 1)
    if s.problem is not None:
        found["epoch"] = s.problem.batch_size / s.problem.num_targets
        found["target"] = s.problem.batch_size
    if "targets" in s.counters:
        found["target"] = s.counters["targets"] / step
    if s.counters.get("edges"):
        found["edge"] = s.counters["edges"] / step
    return found
