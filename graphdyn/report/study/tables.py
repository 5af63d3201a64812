"""The table of results as rows, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from typing import Any, NamedTuple

from graphdyn.report.study.accuracy import PERCENT, Gap, Level, Scores
from graphdyn.report.study.data import Study
from graphdyn.report.study.times import Hits
from graphdyn.report.study.words import NOTES, amount, between, count, p_value, signed
from graphdyn.survival import Interval

ALL = "all data sets"
COSTS: tuple[str, ...] = ("seconds", "edges", "bytes", "memory")


class Row(NamedTuple):
    """One cell of the study, or a method over all data sets.

    Attributes:
        dataset: Its name, or :data:`ALL`.
        method: Its name.
        level: How well it does; ``None`` before its first run.
        gap: Against the baseline; ``None`` for the baseline itself.
        costs: Mean of a run, by kind; ``None`` where it was not counted.
        lost: Runs that failed or diverged.
    """

    dataset: str
    method: str
    level: Level | None
    gap: Gap | None
    costs: dict[str, float | None]
    lost: int


def rows(study: Study, scores: Scores) -> list[Row]:
    """Methods over all data sets first, then every cell in the order of the study."""
    found = []
    if len(study.datasets) > 1:
        nothing: dict[str, float | None] = dict.fromkeys(COSTS)
        found += [
            Row(ALL, m, scores.methods[m], scores.gap(m, study.baseline), nothing, 0)
            for m in scores.ranking
        ]
    for (d, m), cell in study.cells.items():
        costs = {what: cell.mean(what) for what in COSTS}
        lost = sum(x.lost for x in cell.missing)
        found.append(Row(d, m, scores.cells.get((d, m)), scores.against.get((d, m)), costs, lost))
    return found


def markdown(study: Study, scores: Scores) -> str:
    """The table with what must be said beside it."""
    head = [
        "data set",
        "method",
        f"{study.part} {study.metric} (%)",
        "n",
        f"{PERCENT} interval",
        f"against {study.baseline}",
        "p (Holm)",
        *COSTS,
    ]
    lines = [
        f"# {study.document.get('name', 'Study')}",
        "",
        _line(head),
        _line(["---"] * len(head)),
    ]
    lines += [_line(_texts(row)) for row in rows(study, scores)]
    lines += ["", NOTES, "", family(study, scores)]
    lost = [(c, m) for c in study.cells.values() for m in c.missing if m.lost]
    if lost:
        lines += ["", "Left out of the means:"]
        lines += [f"- {c.name}, seed {m.seed}, {m.kind}: {m.reason}" for c, m in lost]
    waiting = study.planned - len(study.runs) - len(lost)
    if waiting:
        lines += ["", f"{count(waiting, 'run')} of {study.planned} not complete yet."]
    return "\n".join(lines) + "\n"


def summary(study: Study, scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of a table that fits 80 columns."""
    heads = ["data set", "method", "score", f"against {study.baseline}", "p (Holm)"]
    texts = [_texts(row) for row in rows(study, scores)]
    return heads, [[line[i] for i in (0, 1, 2, 5, 6)] for line in texts]


def family(study: Study, scores: Scores) -> str:
    """How many comparisons there are, said out loud."""
    cells, pairs = Scores.tests(scores.against), Scores.tests(scores.pairs)
    return (
        f"Differences are paired t tests against {study.baseline}: {count(cells, 'test')} of cells, and "
        f"{count(pairs, 'test')} of all pairs of methods over the data sets of both; p values are raised by Holm's "
        "method within each of these two families."
    )


def comma(study: Study, scores: Scores, hits: Hits) -> str:
    """Every number as CSV, in points, seconds, counts and bytes; empty where there is none."""
    table = [_numbers(study, row, hits) for row in rows(study, scores)]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*table[0]] if table else ["dataset"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _numbers(study: Study, row: Row, hits: Hits) -> dict[str, Any]:
    level, gap = row.level, row.gap
    found: dict[str, Any] = {
        "dataset": row.dataset,
        "method": row.method,
        "metric": study.metric,
        "part": study.part,
        "n": level.n if level else 0,
        "lost": row.lost,
        "mean": level and level.mean,
        "std": level and level.std,
        **_ends("mean", level.interval if level else None),
        **_interval("iqm", level.iqm if level else None),
        **_interval("difference", gap.difference if gap else None),
        "pairs": gap and gap.n,
        "p": gap and gap.p,
        "p_holm": gap and gap.holm,
        **_interval("improvement", gap.improvement if gap else None),
        **row.costs,
    }
    for axis in study.axes:
        reach = hits.reaches.get((axis, row.dataset, row.method))
        found |= _interval(f"median_{axis}", reach.median if reach else None)
        found |= _interval(f"restricted_mean_{axis}", reach.mean if reach else None)
    return {name: _known(value) for name, value in found.items()}


def _interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    return {name: interval.value if interval else None, **_ends(name, interval)}


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _known(value: Any) -> Any:
    """Six digits; nothing where there is no number."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else value


def _texts(row: Row) -> list[str]:
    costs = [amount(row.costs[what], what) for what in COSTS]
    if row.level is None:
        return [row.dataset, row.method, "no run yet", "0", "", "", "", *costs]
    std = "" if row.level.std is None else f" ± {row.level.std:.2f}"
    lost = f" ({row.lost} lost)" if row.lost else ""
    against = p = ""
    if row.gap is not None:
        ends = between(row.gap.difference, sign=True)
        against = f"{signed(row.gap.difference.value)} {ends}".strip()
        p = (
            p_value(row.gap.holm).removeprefix("p = ").removeprefix("p ")
            if row.gap.holm is not None
            else ""
        )
    score, ends = f"{row.level.mean:.2f}{std}", between(row.level.interval)
    return [row.dataset, row.method, score, f"{row.level.n}{lost}", ends, against, p, *costs]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
