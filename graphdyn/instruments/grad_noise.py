"""GradNoise: the trace of the covariance of batch gradients and the square of their mean, as U-statistics.

Valid at frozen weights, for batches that are alike and independent, or disjoint pieces of one sample; sampled
neighbourhoods and dropout add noise of their own (see ``exact``), sampled neighbourhoods a bias, too. Source:
McCandlish et al. 2018, appendix A ("An Empirical Model of Large-Batch Training"), whose two batch sizes are the
same U-statistics; corrections for a finite number of targets in :mod:`graphdyn.instruments.noise`.
"""

from __future__ import annotations

from graphdyn.estimate import Invalid, Reading
from graphdyn.instruments.by_group import by_group
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.noise import checked_source, noise_of_batches, target_or_why
from graphdyn.schedule import Schedule
from graphdyn.snapshot import Snapshot


class GradNoise(Instrument):
    r"""Noise and signal of batch gradients, by group and in total; units are those of a squared gradient.

    ================  ============================================  ========================================
    ``trace_batch``   tr Cov of the gradient of a batch             (Q - A / m) / (m - 1)
    ``square_batch``  \|E g\|^2 over batches like these; signed     (A - Q) / (m (m - 1))
    ``trace``         tr Sigma of one target                        trace_batch / (1 / b - 1 / T), or
                                                                    b trace_batch of disjoint batches
    ``square``        \|grad L\|^2 where gradients are unbiased     square_batch, + trace / T of disjoint ones
    ================  ============================================  ========================================

    with A = \|sum g\|^2 and Q = sum \|g\|^2 over m batches of b targets of T. Standard errors: jackknife over
    batches; none for micro-batches, of which inner products are not kept. ``trace`` and ``square`` are
    missing, with the reason, where targets are not a uniform sample without replacement with equal weights
    (clusters, subgraphs, Poisson and importance seeds), and where a batch has all of them.

    Args:
        source: ``"probe"``: m new batches at the present weights, independent; costs m gradients.
            ``"micro"``: the micro-batches of the last, accumulated step, at the weights before it, from one
            epoch and equally large; costs nothing.
        m: Batches of a probe; by default as the level says.
        exact: Of a probe: exact neighbourhoods, which leaves the noise of targets (and dropout) alone;
            costs m exact gradients more.
        every: When.
    """

    levels = ({"m": 8}, {"m": 4}, {"m": 3})
    cost = 8.0

    def __init__(
        self,
        source: str = "probe",
        *,
        m: int | None = None,
        exact: bool = False,
        every: Schedule | int | None = None,
    ):
        super().__init__(every=every, m=m)
        self.source, self.exact = checked_source(source), exact
        self.needs = Need.PROBLEM if source == "probe" else Need.MICRO
        self.cost = (8.0 + 8.0 * exact) if source == "probe" else 0.0

    def measure(self, s: Snapshot) -> Reading:
        """See :class:`GradNoise`."""
        noise = noise_of_batches(s, self.source, self.option("m"), exact=self.exact)
        own = by_group(s.groups, trace_batch=noise.trace, square_batch=noise.square)
        target = target_or_why(noise, s.problem, self.source)
        if isinstance(target, Invalid):
            return {**own, "trace": target, "square": target}
        return {**own, **by_group(s.groups, trace=target.trace, square=target.square)}
