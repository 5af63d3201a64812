"""Figures for a paper: scores with intervals, scores against cost, times to the target, profiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.files import replacing, writing
from graphdyn.improvement import profile, profile_band
from graphdyn.report.figures import COLORS
from graphdyn.report.study.accuracy import LEVEL, PERCENT, POINTS, Scores
from graphdyn.report.study.charts import UNITS
from graphdyn.report.study.cost_charts import averaged, steps
from graphdyn.report.study.data import Study
from graphdyn.report.study.score_charts import relative, thresholds
from graphdyn.report.study.times import Hits

WIDTH = 7.0  # inches: the text width of most journals
SHORT = {"steps": "steps", "edges": "edges", "seconds": "seconds", "bytes": "bytes gathered"}
LINES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "graphdyn",  # the same study gives the same file
}


def draw_study(study: Study, scores: Scores, hits: Hits) -> list[Path]:
    """Write ``figures/*.png`` and ``*.svg``; returns their paths.

    Raises:
        RecordError: If they cannot be written.
    """
    import matplotlib

    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, draw in DRAWINGS.items():
            figure = draw(study, scores, hits)
            if figure is not None:
                drawn += [
                    _save(figure, study.folder / "figures" / f"{name}.{kind}")
                    for kind in ("png", "svg")
                ]
    return drawn


def _accuracy(study: Study, scores: Scores, hits: Hits) -> Any:
    """Every run as a dot, means with Student's intervals."""
    datasets = _with_runs(study)
    if not datasets:
        return None
    figure, grid = _panels(len(datasets), 1.0 + 0.26 * len(study.methods))
    for axes, dataset in zip(grid, datasets):
        for place, method in enumerate(study.methods):
            cell = study.cell(dataset, method)
            if cell is None:
                continue
            level, color = scores.cells[dataset, method], _color(study, method)
            runs = POINTS * cell.scores()
            axes.plot(runs, np.full(runs.size, place + 0.22), "|", color=color, ms=4, alpha=0.6)
            if level.interval is not None:
                axes.plot(level.interval[1:], [place, place], color=color, lw=1.6)
            axes.plot(level.mean, place, "o", color=color, ms=4)
        axes.set(
            title=dataset,
            xlabel=f"{study.part} {study.metric} (%)",
            ylim=(len(study.methods) - 0.4, -0.6),
        )
        axes.set_yticks(range(len(study.methods)), study.methods if axes is grid[0] else [])
    figure.supxlabel(f"dots: means, lines: {PERCENT} intervals, ticks: runs", fontsize=7)
    return figure


def _cost(study: Study, scores: Scores, hits: Hits) -> Any:
    """Validation metric against seconds and edges."""
    datasets, axes_of = _with_runs(study), [a for a in ("seconds", "edges") if a in study.axes]
    if not datasets or not axes_of:
        return None
    figure, grid = _panels(len(datasets), 2.1, len(axes_of))
    panels = grid.reshape(len(axes_of), -1)
    for row, axis in zip(panels, axes_of):
        for axes, dataset in zip(row, datasets):
            for method in study.methods:
                cell = study.cell(dataset, method)
                if cell is None:
                    continue
                x, mean, reach = averaged(cell, axis, 120)
                axes.plot(x, mean, **_line(study, method))
                if np.isfinite(reach).all():
                    axes.fill_between(
                        x, mean - reach, mean + reach, color=_color(study, method), alpha=0.15, lw=0
                    )
            axes.set(xscale="log", xlabel=UNITS[axis], title=dataset)
        row[0].set_ylabel(f"validation {study.metric} (%)")
    _legend(figure, study)
    return figure


def _times(study: Study, scores: Scores, hits: Hits) -> Any:
    """Share of runs that have reached the target, on each axis."""
    from matplotlib.ticker import EngFormatter

    datasets, axes_of = [d for d in study.datasets if d in hits.targets], study.axes
    if not datasets or not axes_of:
        return None
    figure, grid = _panels(len(axes_of), 1.7, len(datasets))
    for row, dataset in zip(grid.reshape(len(datasets), -1), datasets):
        for axes, axis in zip(row, axes_of):
            for method in study.methods:
                reach = hits.reaches.get((axis, dataset, method))
                if reach is not None:
                    axes.step(*steps(reach), where="post", **_line(study, method))
            axes.set(xlabel=SHORT[axis], ylim=(-3, 103))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        row[0].set_ylabel(f"{dataset}\nreached (%)")
    _legend(figure, study)
    return figure


def _profile(study: Study, scores: Scores, hits: Hits) -> Any:
    """Probability of improvement over the baseline, and performance profiles."""
    runs = relative(study, scores)
    gaps = {m: g for m in study.methods if (g := scores.gap(m, study.baseline)) is not None}
    if not runs or not gaps:
        return None
    figure, (left, right) = _panels(2, 2.6)
    for place, (method, gap) in enumerate(gaps.items()):
        i, color = gap.improvement, _color(study, method)
        if not np.isnan(i.low):
            left.plot([POINTS * i.low, POINTS * i.high], [place, place], color=color, lw=1.6)
        left.plot(POINTS * i.value, place, "o", color=color, ms=4)
    left.axvline(50, color="0.5", lw=0.8, ls=":")
    left.set(
        xlim=(-2, 102),
        ylim=(len(gaps) - 0.4, -0.6),
        xlabel=f"probability to beat {study.baseline} (%)",
    )
    left.set_yticks(range(len(gaps)), [*gaps])
    tau = thresholds(runs, 101)
    for method, own in runs.items():
        low, high = profile_band(own, tau, LEVEL)
        right.plot(tau, POINTS * profile(own, tau), **_line(study, method))
        right.fill_between(
            tau, POINTS * low, POINTS * high, color=_color(study, method), alpha=0.08, lw=0
        )
    right.set(
        xlabel=f"points above the mean of {study.baseline}", ylabel="runs that score more (%)"
    )
    _legend(figure, study)
    return figure


DRAWINGS = {"accuracy": _accuracy, "cost": _cost, "time_to_target": _times, "profile": _profile}


def _panels(columns: int, height: float, rows: int = 1) -> tuple[Any, np.ndarray]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = WIDTH * max(1.0, columns / 4)
    figure = Figure(figsize=(width, 0.5 + height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_1d(figure.subplots(rows, columns)).ravel()


def _with_runs(study: Study) -> list[str]:
    return [d for d in study.datasets if any(study.cell(d, m) for m in study.methods)]


def _color(study: Study, method: str) -> str:
    return COLORS[study.methods.index(method) % len(COLORS)]


def _line(study: Study, method: str) -> dict[str, Any]:
    turn = study.methods.index(method) // len(COLORS)
    return {"color": _color(study, method), "ls": LINES[turn % len(LINES)], "lw": 1.3}


def _legend(figure: Any, study: Study) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=m, **_line(study, m)) for m in study.methods]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(5, len(handles)))


@contextmanager
def _place(path: Path) -> Iterator[Path]:
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as part:
            yield part


def _save(figure: Any, path: Path) -> Path:
    kind = path.suffix[1:]
    with _place(path) as part:
        metadata = {"Date": None} if kind == "svg" else {"Software": "graphdyn"}
        figure.savefig(part, format=kind, dpi=200, metadata=metadata)
    return path
