"""One frame of a run: how far, how good, how it learns, what it costs; fits 60 columns, and more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphdyn.report.live_parts import bar, damaged, panel, paragraph, title
from graphdyn.report.live_readings import Reading
from graphdyn.report.live_run import SLACK, RunNow
from graphdyn.report.tables import percent
from graphdyn.report.words import count, duration, measured, percents, shorten

FEWEST = 9  # characters of a name
# Lines of a chart, number of events and paragraphs of the ledger, until at least so many instruments fit.
DETAIL, FEW = ((6, 4, 3), (4, 4, 3), (3, 2, 3), (3, 1, 2), (2, 0, 1), (0, 0, 1)), 4
# Rows of the ledger that make up the total; sampling and gathering go on beside them, in threads.
OWN = ("precompute", "wait", "compute", "memory", "instruments", "evaluate")
BESIDE = ("sample", "gather", "transfer")


def run_frame(now: RunNow, console: Console, height: int | None = None) -> RenderableType:
    """Everything that a run folder says, as far as it fits.

    Args:
        now: What was read.
        console: Where it will be shown.
        height: Lines that there are; ``None``: any number.
    """
    head = [title(_name(now), now.status, console), Text(_when(now), style=_alarm(now))]
    head += [*damaged(now.damaged), *_progress(now), *_scores(now)]
    found, ledger = now.readings, list(_ledger(now))
    room, parts = len(found), (head, ledger)
    for lines, last, paragraphs in DETAIL:
        charts, events = _charts(now, console, lines), _events(now, last, height is None)
        parts = [*head, *charts], [*ledger[:paragraphs], *events]
        if height is None:
            break
        used = console.render_lines(Group(*parts[0], *parts[1]), pad=False)
        room = height - len(used) - 2  # the head of their table, and what was left out
        if room >= min(len(found), FEW):
            break
    return Group(*parts[0], *_instruments(found, console, max(1, room)), *parts[1])


def _name(now: RunNow) -> str:
    config = now.config
    if not config:
        return str(now.folder)
    parts = [config.get("sampler"), config.get("memory")]
    method = config.get("preset") or " + ".join(p for p in parts if p) or "full"
    return f"{config.get('dataset')} · {config.get('model')} · {method}"


def _when(now: RunNow) -> str:
    """How old the news are, and whether more will come."""
    if now.status == "waiting" or now.age is None:
        return "nothing is recorded here yet"
    age = duration(now.age)
    if now.status == "finished":
        return f"finished {age} ago: {now.folder}"
    if now.status == "stopped":
        known = "nobody writes here" if now.writer is False else "its writer seems dead"
        return f"not updated for {age}, {known}; the same command goes on {_from(now)}"
    if _late(now):
        return f"not updated for {age}, though its process is there"
    if now.config and not now.state:
        return f"begun {age} ago; the first checkpoint comes after {duration(now.period)}"
    return f"as of the checkpoint {age} ago; one comes every {duration(now.period)}"


def _from(now: RunNow) -> str:
    if now.at is None:
        return "from the last seed that is done" if now.results else "from the start"
    return f"from seed {now.at['seed']}, step {now.at['step']}"


def _late(now: RunNow) -> bool:
    return (now.age or 0.0) > 2 * now.period + SLACK


def _alarm(now: RunNow) -> str:
    return "yellow" if now.status == "stopped" or (_late(now) and now.summary is None) else "dim"


def _progress(now: RunNow) -> Iterator[RenderableType]:
    if now.done is None or now.status == "waiting":
        return
    left = "" if now.left is None else f", {_most(now)}{duration(now.left)} left"
    yield bar(now.done, left)
    if now.status != "finished":
        yield Text(" · ".join(_places(now)))


def _most(now: RunNow) -> str:
    return "at most " if now.config.get("patience") else "about "


def _places(now: RunNow) -> Iterator[str]:
    """Where the run is, on every axis that ends a seed."""
    config, at = now.config, now.at
    yield f"seed {min(len(now.results) + 1, config['seeds'])} of {config['seeds']}"
    if at is None:
        return
    for name, field in {"epoch": "epochs", "step": "max_steps"}.items():
        yield f"{name} {at[name]:,}" + (f" of {config[field]:,}" if config.get(field) else "")
    for name, field in {"edges": "max_edges", "bytes": "max_bytes"}.items():
        if config.get(field):
            yield f"{name} {count(at[name])} of {count(config[field])}"
    if config.get("max_seconds"):
        yield f"{duration(at.get('trained', 0.0))} of {duration(config['max_seconds'])}"


def _scores(now: RunNow) -> Iterator[RenderableType]:
    """Test is told of the evaluation that was selected, and of no other: nobody should look for the best test."""
    rows = list(_score_rows(now))
    if rows:
        table = Table.grid(padding=(0, 2))
        for words in (("", "validation", "test", ""), *rows):
            table.add_row(*(Text(word, style="dim" if word in HEADS else "") for word in words))
        yield table


HEADS = ("validation", "test", "latest", "best", "seeds")


def _score_rows(now: RunNow) -> Iterator[tuple[str, str, str, str]]:
    if now.summary is not None:
        told = f"{now.metric}, mean ± std of {len(now.summary['seeds'])}"
        yield "seeds", percent(now.summary["validation"]), percent(now.summary["test"]), told
        return
    step, value = now.valid
    if value.size and now.at is not None:
        yield (
            "latest",
            percents([float(value[-1])]),
            "",
            f"{now.metric} at {_at(now, int(step[-1]))}",
        )
    if now.best is not None:
        scores = now.best["metric"]
        valid, test = (percents([scores[p]] if p in scores else []) for p in ("valid", "test"))
        yield "best", valid, test, f"at epoch {now.best['epoch']}"
    if now.results:
        scores = [result["metric"] for result in now.results]
        valid, test = (percents([s[p] for s in scores if p in s]) for p in ("valid", "test"))
        yield "seeds", valid, test, f"{len(scores)} done"


def _at(now: RunNow, step: int) -> str:
    return f"step {step}" if now.per_epoch is None else f"epoch {step // now.per_epoch}"


def _charts(now: RunNow, console: Console, height: int) -> Iterator[RenderableType]:
    """Side by side where there is room."""
    if not height:
        return
    of = f", seed {now.seed}" if now.config.get("seeds", 1) > 1 else ""
    loss, valid = now.loss, (now.valid[0], 100 * now.valid[1])
    given = [(f"training loss{of}", loss, True), (f"validation {now.metric}", valid, False)]
    given = [(name, curve, log) for name, curve, log in given if curve[0].size > 1]
    beside = 2 if console.width >= 80 else 1
    for i in range(0, len(given), beside):
        line = Table.grid(padding=(0, 1))
        width = console.width // beside - 2
        line.add_row(*(panel(*g, width, height, console) for g in given[i : i + beside]))
        yield line


def _instruments(
    found: tuple[Reading, ...], console: Console, room: int
) -> Iterator[RenderableType]:
    if not found:
        return
    shown = found if len(found) <= room else found[:room]
    rows = [(measured(r.value, r.se), _theory(r), _verdict(r), Text(f"{r.step}")) for r in shown]
    heads = ("latest", "theory", "so far", "step")
    cells = [tuple(Text(c) if isinstance(c, str) else c for c in row) for row in rows]
    wide = [max(len(h), *(len(row[i]) for row in cells)) for i, h in enumerate(heads)]
    room = max(FEWEST, console.width - sum(wide) - len(wide) - 1)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("instrument", no_wrap=True)
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    for r, row in zip(shown, cells):
        table.add_row(Text(shorten(_quantity(r), room)), *row)
    yield table
    if len(shown) < len(found):
        yield Text(f"and {len(found) - len(shown)} more", style="dim")


def _theory(r: Reading) -> str:
    return "" if np.isnan(r.pred) else f"{r.pred:.4g}"


def _quantity(r: Reading) -> str:
    of = "" if r.group == "all" else f" of {r.group}"
    return f"{r.name}{of}" + (f" (+{r.more})" if r.more else "")


def _verdict(r: Reading) -> Text:
    """How many groups of parameters do as theory says."""
    if not r.judged:
        return Text("")
    of = f" {r.passed}/{r.judged}" if r.judged > 1 else ""
    return Text(f"pass{of}", "green") if r.passed == r.judged else Text(f"fail{of}", "bold red")


def _ledger(now: RunNow) -> Iterator[RenderableType]:
    spent, counts = now.spent, now.counts
    total = spent.get("total", 0.0)
    if not total:
        return
    known = {name: spent.get(name, 0.0) for name in OWN}
    known["other"] = max(0.0, total - sum(known.values()))
    told = [
        f"{n} {duration(s)} ({s / total:.0%})"
        for n, s in sorted(known.items(), key=lambda i: -i[1])
        if s >= 0.005 * total
    ]
    yield Text(f"time {duration(total)}: {', '.join(told)}")
    trained = sum(spent.get(name, 0.0) for name in ("compute", "memory", "wait"))
    if known["instruments"] and trained:
        yield Text(
            f"instruments took {known['instruments'] / trained:.1%} of training{_most_of(now)}"
        )
    beside = [f"{n} {duration(spent[n])}" for n in BESIDE if spent.get(n, 0.0) >= 0.05]
    gone = [f"{count(counts['steps'])} steps", f"{count(counts['edges'])} edges"]
    gone.append(f"{count(counts['bytes'])}B of features")
    also = f"; in threads: {', '.join(beside)}" if beside else ""
    yield Text(f"{', '.join(gone)}{also}", style="dim")


def _most_of(now: RunNow) -> str:
    budget: Any = now.config.get("budget")
    return f", of {budget:.1%} that they may" if budget else ""


def _events(now: RunNow, last: int, wraps: bool) -> Iterator[RenderableType]:
    shown = now.events[max(0, len(now.events) - last) :]
    if len(now.events) > len(shown):
        told = f"events, the last {len(shown)} of" if shown else "events:"
        yield Text(f"{told} {len(now.events)}", style="dim")
    for step, name, text in shown:
        told = f"step {step}: {name}: {text}" if text else f"step {step}: {name}"
        yield paragraph(told, wraps)
