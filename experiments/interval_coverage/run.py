"""How often do the intervals of a study's report cover the truth? Simulated, where the truth is known. See README.md.

python experiments/interval_coverage/run.py [--draws 2000] [--tiny] [--write docs/statistics.md]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from graphdyn.comparison import bootstrap, holm, iqm, paired_difference, paired_p
from graphdyn.improvement import improvement, improvement_interval, profile_band
from graphdyn.keys import Key
from graphdyn.progress import progress
from graphdyn.survival import Interval, KaplanMeier, Times, log_rank

SIZES = (5, 10, 20)
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
RATE_BUDGET = 1.2  # of exponential times of mean 1: three in ten are censored
Draw = Callable[[np.random.Generator, int], np.ndarray]

SHAPES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: -rng.exponential(size=n),
}


def inside(interval, truth):
    return interval.low <= truth <= interval.high


def mean(shape):
    truth = 0.0 if shape == "normal" else -1.0
    return lambda rng, n, key: inside(paired_difference([SHAPES[shape](rng, n)]), truth)


def trimmed(shape, plain=False):
    """Of an interquartile mean; the truth is its expectation at this number of runs."""
    truths = {n: _expected_iqm(shape, n) for n in SIZES}

    def one(rng, n, key):
        kept = []

        def statistic(runs):
            kept.append(iqm(runs))
            return kept[-1]

        found = bootstrap([SHAPES[shape](rng, n)], statistic, key=key, resamplings=1000)
        if plain:
            found = Interval(0.0, *np.quantile(kept[0], [0.025, 0.975]))
        return inside(found, truths[n])

    return one


def _expected_iqm(shape, n):
    rng = Key(1).fold("truth", shape, n).numpy()
    return float(np.mean(iqm([SHAPES[shape](rng, 200_000 * n).reshape(-1, n)])))


def difference(rng, n, key):
    """Two data sets, one three times as uncertain as the other; seeds matter to both methods."""
    return inside(paired_difference([rng.normal(size=n), 3 * rng.normal(size=n)]), 0.0)


def better(effect, plain=False):
    truth = float(stats.norm.cdf(effect / 2**0.5))

    def one(rng, n, key):
        x, y = rng.normal(size=n) + effect, rng.normal(size=n)
        if not plain:
            return inside(improvement_interval([(x, y)]), truth)
        ids = rng.integers(n, size=(2, 500, n))
        found = improvement([(x[ids[0]], y[ids[1]])])
        return inside(Interval(0.0, *np.quantile(found, [0.025, 0.975])), truth)

    return one


def share(rng, n, key):
    low, high = profile_band([rng.normal(size=n) for _ in range(2)], np.array([0.5]))
    return low[0] <= stats.norm.sf(0.5) <= high[0]


def times(rng, n):
    t = rng.exponential(size=n)
    return Times(np.minimum(t, RATE_BUDGET), t < RATE_BUDGET)


def median(rng, n, key):
    return inside(KaplanMeier(times(rng, n)).median(), np.log(2))


def restricted(plain):
    truth = 1 - np.exp(-RATE_BUDGET)

    def one(rng, n, key):
        curve = KaplanMeier(times(rng, n))
        if not plain:
            return inside(curve.restricted_interval(RATE_BUDGET), truth)
        found = curve.restricted_mean(RATE_BUDGET)
        return abs(found.value - truth) <= 1.96 * found.se

    return one


def alike(rng, n, key):
    """The log-rank test, methods alike: it must stay silent."""
    return log_rank([(times(rng, n), times(rng, n))]).p >= 0.05


def quiet(raised):
    """All pairs of five methods alike: none may be called different."""

    def one(rng, n, key):
        runs = rng.normal(size=(5, n)) + rng.normal(size=n)
        p = [paired_p([runs[i] - runs[j]]) for i in range(5) for j in range(i)]
        return min(holm(p) if raised else p) >= 0.05

    return one


ROWS = {
    "mean of a cell, Student": mean("normal"),
    "mean of a cell, skewed scores": mean("skewed"),
    "interquartile mean, expanded bootstrap": trimmed("normal"),
    "interquartile mean, skewed scores": trimmed("skewed"),
    "(interquartile mean, plain percentiles)": trimmed("normal", plain=True),
    "paired difference over two data sets": difference,
    "probability of improvement 0.50, Newcombe": better(0.0),
    "probability of improvement 0.92, Newcombe": better(2.0),
    "(probability of improvement 0.92, plain bootstrap)": better(2.0, plain=True),
    "performance profile at one place, Wilson": share,
    "median time to target": median,
    "restricted mean time, Student": restricted(plain=False),
    "(restricted mean time, normal)": restricted(plain=True),
    "log-rank test keeps silent": alike,
    "Holm over ten pairs keeps silent": quiet(raised=True),
    "(ten pairs, each by itself)": quiet(raised=False),
}


def measure(draws, sizes=SIZES):
    found = {}
    with progress("coverage", len(ROWS) * len(sizes), 0) as bar:
        for i, (name, one) in enumerate(ROWS.items()):
            found[name] = []
            for j, n in enumerate(sizes):
                keys = [Key(7).fold(name, n, k) for k in range(draws)]
                found[name].append(float(np.mean([one(k.numpy(), n, k) for k in keys])))
                bar.update(i * len(sizes) + j + 1, name)
    return found


def markdown(found, draws):
    se = 100 * (0.95 * 0.05 / draws) ** 0.5
    head = [
        f"| nominal 95 %; {draws:,} draws, ± {se:.1f} | "
        + " | ".join(f"n = {n}" for n in SIZES)
        + " |"
    ]
    head.append("|---|" + "---:|" * len(SIZES))
    rows = [
        "| " + " | ".join([name, *(f"{100 * c:.1f}" for c in row)]) + " |"
        for name, row in found.items()
    ]
    return "\n".join([*head, *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--tiny", action="store_true", help="does it run?")
    parser.add_argument("--out", type=Path, default=Path("runs/interval_coverage"))
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    args = parser.parse_args()
    draws = 10 if args.tiny else args.draws
    found = measure(draws)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "coverage.json").write_text(
        json.dumps({"draws": draws, "coverage": found}, indent=2)
    )
    table = markdown(found, draws)
    print(table)
    if args.write:
        page = args.write.read_text()
        before, rest = page.split(BEGIN)
        args.write.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
