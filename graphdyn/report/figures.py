"""Curves of runs as PNG: loss and metric against epochs, mean and range over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.files import replacing, writing
from graphdyn.journal import read_table
from graphdyn.report.tables import labels, read_run

# Okabe & Ito's palette: tells apart for colour-blind readers, and in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = {"train": ":", "valid": "--", "test": "-"}
NAMES = {"train": "training", "valid": "validation", "test": "test"}


def draw_curves(folders: Sequence[Path], path: Path | None = None) -> Path:
    """Draw loss and metric of the runs side by side.

    Args:
        folders: Run folders, finished or not.
        path: Where the PNG goes; by default ``curves.png`` in the first folder.

    Returns:
        The path written.

    Raises:
        RecordError: If a folder holds no run, or the PNG cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = [read_run(Path(folder)) for folder in folders]
    tables = [read_table(run["folder"]).to_pydict() for run in runs]
    metric = _metric(tables[0])
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, table in zip(_cycle(len(runs)), tables):
        for part, style in STYLES.items():
            _curve(left, table, "loss", part, color, style, 1)
            _curve(right, table, metric, part, color, style, 100)
    left.set(xlabel="epoch", ylabel="mean loss", yscale="log")
    right.set(xlabel="epoch", ylabel=f"{metric} (%)")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    _legends(figure, right, labels([run["config"] for run in runs]))
    path = Path(path or runs[0]["folder"] / "curves.png")
    with writing(path.parent), replacing(path) as part:
        FigureCanvasAgg(figure).print_png(part)
    return path


def _metric(table: dict) -> str:
    """What is scored on the parts of the split, besides the loss."""
    scored = (n for n, g in zip(table["name"], table["group"]) if g in STYLES and n != "loss")
    return next(scored, "metric")


def _cycle(n: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(n)]


def _curve(
    axes: Any, table: dict, name: str, part: str, color: str, style: str, scale: float
) -> None:
    """Median line over seeds with the band from the lowest to the highest."""
    by_epoch: dict[int, list[float]] = {}
    for key, group, epoch, value in zip(
        table["name"], table["group"], table["epoch"], table["value"]
    ):
        if key == name and group == part:
            by_epoch.setdefault(epoch, []).append(scale * value)
    if not by_epoch:
        return
    epochs = sorted(by_epoch)
    columns = [by_epoch[e] for e in epochs]
    axes.plot(epochs, [np.median(c) for c in columns], color=color, ls=style, lw=1.6)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axes.fill_between(epochs, low, high, color=color, alpha=0.10, lw=0)


def _legends(figure: Any, axes: Any, names: list[str]) -> None:
    from matplotlib.lines import Line2D

    runs = [Line2D([], [], color=c, lw=2, label=n) for c, n in zip(_cycle(len(names)), names)]
    parts = [Line2D([], [], color="0.3", ls=s, label=NAMES[p]) for p, s in STYLES.items()]
    axes.legend(
        handles=parts,
        title="median of seeds, band: lowest to highest",
        fontsize=8,
        title_fontsize=8,
        loc="lower right",
        frameon=False,
    )
    figure.legend(
        handles=runs, loc="outside upper center", ncols=min(3, len(runs)), frameon=False, fontsize=9
    )
