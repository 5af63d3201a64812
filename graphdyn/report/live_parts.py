"""What frames are made of: a title, a bar, a paragraph, a curve."""

from __future__ import annotations

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graphdyn.report.live_run import Curve
from graphdyn.report.plots import chart

STYLES = {"running": "green", "finished": "bold green", "stopped": "yellow", "waiting": "dim"}
LABEL = 9  # characters beside a chart


def title(name: str, status: str, console: Console) -> RenderableType:
    """A name on the left, what becomes of it on the right."""
    line = Table.grid(expand=True)
    line.add_column(overflow="ellipsis", no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(Text(name, style="bold"), Text(status, style=STYLES.get(status, "")))
    return line


def bar(done: float, told: str) -> RenderableType:
    """A progress bar, and what is to be said of it."""
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(ProgressBar(total=1.0, completed=done), f"{done:.0%}{told}")
    return line


def paragraph(text: str, wraps: bool, style: str = "") -> Text:
    """As many lines as it takes, or one line of which the end may be left out."""
    return Text(text, style, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")


def damaged(names: tuple[str, ...]) -> list[RenderableType]:
    """Files that could not be read."""
    return [Text(f"cannot read {', '.join(names)}", style="yellow")] if names else []


def panel(
    name: str, curve: Curve, log: bool, width: int, height: int, console: Console
) -> RenderableType:
    """A curve with what its highest and its lowest dot stand for.

    Args:
        name: Of what is drawn.
        curve: Steps and values.
        log: Logarithms are drawn, where all values have one.
        width: Characters.
        height: Lines of the curve.
        console: Where it will be shown.
    """
    step, value = curve
    log = log and bool((value > 0).all())
    letters = console.options.ascii_only
    drawn = chart(step, np.log(value) if log else value, width - LABEL, height, letters=letters)
    low, high = (float(np.exp(v)) if log else v for v in (drawn.low, drawn.high))
    labels = [f"{high:.4g}", *[""] * (height - 2), f"{low:.4g}"]
    lines = [Text.assemble((f"{s:>{LABEL - 1}} ", "dim"), t) for s, t in zip(labels, drawn.lines)]
    told = f"{name}: {value[0]:.4g} to {value[-1]:.4g}"
    return Group(Text(told[:width], style="dim", no_wrap=True, overflow="ellipsis"), *lines)
