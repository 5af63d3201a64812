"""Numbers in words: what the study says in its first lines, and how figures are written."""

from __future__ import annotations

import math
from typing import NamedTuple

from graphdyn.report.study.accuracy import BOOTSTRAP, PERCENT, STUDENT, Gap, Scores
from graphdyn.report.study.data import Study
from graphdyn.survival import Interval


class Headline(NamedTuple):
    """The first lines of the page.

    Attributes:
        title: Who won, or that nobody did.
        text: By how much, and whether that is noise.
        verdict: clear, unclear or open (nothing can be said yet).
        leader: The method with the best mean; ``None`` if there is none.
        facts: (label, figure, remark) of the most important numbers.
    """

    title: str
    text: str
    verdict: str
    leader: str | None
    facts: list[tuple[str, str, str]]


def headline(study: Study, scores: Scores) -> Headline:
    """What a reader must know in ten seconds."""
    if not scores.ranking:
        text = "No data set has results of every method yet; what there is stands below."
        return Headline("No comparison yet", text, "open", None, [])
    leader = scores.ranking[0]
    if len(scores.ranking) == 1:
        text = "Only one method has results, so there is nothing to compare it with."
        return Headline(f"{leader} stands alone", text, "open", leader, [_score(scores, leader)])
    second = scores.ranking[1]
    ahead = scores.gap(leader, second)
    facts = [_score(scores, leader), *_gain(study, scores, leader), *_cost(study, leader)]
    if ahead is None or ahead.p is None:
        text = (
            f"It is ahead of {second} so far, but fewer than {STUDENT} pairs of seeds are complete: "
            "too few to tell a difference from noise."
        )
        return Headline(f"{leader} leads so far", text, "open", leader, facts)
    return _judged(scores, leader, second, ahead, facts)


def _judged(
    scores: Scores, leader: str, second: str, ahead: Gap, facts: list[tuple[str, str, str]]
) -> Headline:
    family = f"{p_value(ahead.holm)} after Holm's correction for {count(Scores.tests(scores.pairs), 'comparison')}"
    by = f"{ahead.difference.value:.2f} points {between(ahead.difference)}"
    if ahead.clear:
        text = f"It beats the runner-up, {second}, by {by}. This is more than noise ({family})."
        return Headline(f"{leader} wins", text, "clear", leader, facts)
    equal = [
        m for m in scores.ranking[1:] if (g := scores.gap(leader, m)) is not None and not g.clear
    ]
    behind = [m for m in scores.ranking[1:] if m not in equal]
    text = f"{leader} has the best mean, ahead of {second} by {by}, but that may well be noise ({family})."
    if behind:
        text += f" Behind by more than noise: {listed(behind)}."
    many = (
        f"{leader} and {listed(equal)}" if len(equal) < 4 else f"{leader} and {len(equal)} others"
    )
    title = "No method stands out" if not behind else f"{many} cannot be told apart"
    return Headline(title, text, "unclear", leader, facts)


def _score(scores: Scores, leader: str) -> tuple[str, str, str]:
    best = scores.methods[leader]
    ends = between(best.interval) if best.interval else f"no interval: {few(best.n)}"
    return f"{leader}, mean score", f"{best.mean:.2f} %", ends


def _gain(study: Study, scores: Scores, leader: str) -> list[tuple[str, str, str]]:
    if leader == study.baseline:
        return [("Against the baseline", "is the baseline", "no other method has a better mean")]
    found = scores.gap(leader, study.baseline)
    if found is None:
        return []
    ends = between(found.difference, sign=True) or f"no interval: {few(found.n)}"
    return [
        (
            f"Against the baseline, {study.baseline}",
            f"{signed(found.difference.value)} points",
            ends,
        )
    ]


def _cost(study: Study, leader: str) -> list[tuple[str, str, str]]:
    """Relative to the baseline, geometric mean over data sets; of the baseline itself, as it is."""
    found = []
    for what, name in (("seconds", "training time"), ("edges", "edges touched")):
        cells = [(study.cell(d, leader), study.cell(d, study.baseline)) for d in study.whole]
        costs = [(a.mean(what), b.mean(what)) for a, b in cells if a and b]
        ratios = [x / y for x, y in costs if x and y]
        if not ratios or len(ratios) < len(costs):
            continue
        if leader == study.baseline:
            mean = sum(x for x, _ in costs if x) / len(costs)
            found.append((f"Cost: {name}", amount(mean, what), "a run, mean over data sets"))
        else:
            ratio = math.exp(sum(map(math.log, ratios)) / len(ratios))
            found.append((f"Cost: {name}", f"{ratio:.2f}×", f"of {study.baseline}"))
    return found


def between(interval: Interval | None, sign: bool = False) -> str:
    """``[1.20, 3.40]``, or nothing where there is no interval."""
    if interval is None or math.isnan(interval.low):
        return ""
    low, high = (signed(v) if sign else f"{v:.2f}".replace("-", "−") for v in interval[1:])
    return f"[{low}, {high}]"


def signed(value: float) -> str:
    """With a sign, a minus as wide as a plus."""
    return "n/a" if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def p_value(p: float | None) -> str:
    """``p = 0.012``."""
    if p is None:
        return "no p"
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def share(value: float) -> str:
    """In per cent, with as many digits as say something."""
    if math.isnan(value):
        return "–"
    if value >= 10:
        return "> 1000 %"
    return "< 0.01 %" if 0 < value < 1e-4 else f"{100 * value:.2g} %"


def few(n: int) -> str:
    """Why there is no interval."""
    return f"{count(n, 'seed')}, and an interval takes {STUDENT}"


def count(n: int, what: str) -> str:
    """``3 seeds``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def listed(names: list[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def amount(value: float | None, what: str) -> str:
    """A cost with its unit: seconds, bytes, or a count."""
    if value is None or math.isnan(value):
        return "–"
    if value == math.inf:
        return "∞"
    if what == "seconds":
        return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    if what in ("bytes", "memory"):
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    return f"{value:,.0f}" if value < 1e4 else _scaled(value, 1000, ("", "k", "M", "G", "T"))


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    place = 0
    while value >= base and place < len(units) - 1:
        value, place = value / base, place + 1
    return f"{value:.3g} {units[place]}".strip() if value < 1000 else f"{value:.0f} {units[place]}"


NOTES = (
    f"Intervals are at {PERCENT}. Seeds are the unit: methods share split, initial weights and order "
    f"of targets seed by seed. With fewer than {STUDENT} seeds there is no Student's interval, with fewer "
    f"than {BOOTSTRAP} no bootstrap: the spread of so few runs is not known."
)
