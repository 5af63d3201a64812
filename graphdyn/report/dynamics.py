"""One picture of how a run learned: convergence, learning rate and noise, each with what theory says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphdyn.files import replacing, writing
from graphdyn.report.figures import COLORS
from graphdyn.report.series import Measured, Series

MOST = 6  # curves of a panel; more are told apart by nobody


def has_dynamics(measured: Measured) -> bool:
    """Whether instruments have measured anything."""
    return any("." in name for name in measured.by_name)


def draw_dynamics(measured: Measured, title: str, path: Path) -> Path:
    """Draw the panels for which there is something; the first row answers, the second explains.

    Args:
        measured: Of one run.
        title: Above the picture.
        path: Where the PNG goes.

    Returns:
        The path.

    Raises:
        RecordError: If the PNG cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [draw for draw in PANELS if draw(None, measured)]
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(14.5, 0.6 + 3.7 * rows), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, 3)).ravel()
    for axes, draw in zip(grid, panels):
        draw(axes, measured)
        _frame(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    seeds = "" if len(measured.seeds) < 2 else f", mean of {len(measured.seeds)} seeds"
    note = "solid: measured, band: two standard errors; dashed: predicted"
    figure.suptitle(f"{title}{seeds}    ({note})", fontsize=11)
    with writing(path.parent), replacing(path) as part:
        FigureCanvasAgg(figure).print_png(part)
    return path


def _frame(axes: Any) -> None:
    """Limits from what was measured: a band that reaches below zero has no place on a logarithmic axis."""
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_yscale() == "log":
        drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
        drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
        if drawn.size:
            axes.set_ylim(drawn.min() / 1.5, drawn.max() * 1.5)


def _convergence(axes: Any, measured: Measured) -> bool:
    loss = measured.one("loss", "step")
    if loss is None or axes is None:
        return loss is not None
    axes.plot(loss.step, loss.value, color="0.8", lw=0.6)
    _line(axes, _smooth(loss), COLORS[0], "training loss")
    valid = measured.one("loss", "valid")
    if valid is not None:
        _line(axes, valid, COLORS[1], "validation loss")
    rate = measured.one("rate_fit.rate")
    told = "" if rate is None else f", falling at {rate.value[-1]:.2g} a step"
    axes.set(yscale="log", ylabel="loss")
    axes.set_title(f"Convergence: loss {loss.value[0]:.3g} to {_smooth(loss).value[-1]:.3g}{told}")
    _legend(axes)
    return True


def _learning_rate(axes: Any, measured: Measured) -> bool:
    found = measured.of("effective_lr.effective_lr")
    if axes is None:
        return bool(found)
    _lines(axes, found)
    last = _largest(found, 1)[0]
    told = f"{last.value[0]:.2g} to {last.value[-1]:.2g}"
    if 0 < last.pred[-1] < np.inf:
        told += f", {last.value[-1] / last.pred[-1]:.2f} of equilibrium"
    axes.set(yscale="log", ylabel="effective learning rate")
    axes.set_title(f"Learning rate: {told}")
    return True


# What is shown of the error of a sampled gradient, in the order of the legend.
PARTS = {
    "mse": "total",
    "v_sgd": "choice of targets",
    "v_emb": "drawn neighbours",
    "b2_cond": "bias of embeddings",
    "embedding": "embeddings",
    "square": "gradient itself",
}


def _noise(axes: Any, measured: Measured) -> bool:
    named = {what: measured.one(f"sampler_mse.{what}") for what in PARTS}
    found = {what: s for what, s in named.items() if s is not None}
    if "v_emb" in found:
        found.pop("embedding", None)
    if axes is None:
        return "mse" in found
    for color, (what, series) in zip(COLORS, found.items()):
        _line(axes, series, color, PARTS[what])
    total = found["mse"].value[-1]
    parts = {w: s.value[-1] for w, s in found.items() if w not in ("mse", "square")}
    worst = max(parts, key=lambda w: parts[w], default="mse")
    known = worst != "mse" and 0 < total < np.inf
    told = f": {parts[worst] / total:.0%} of the error is {PARTS[worst]}" if known else ""
    axes.set(yscale="log", ylabel="|error of the gradient|²")
    axes.set_title(f"Noise{told}")
    _legend(axes)
    return True


def _scale(axes: Any, measured: Measured) -> bool:
    named = (
        ("noise_scale.noise_scale", "noise scale, targets"),
        ("noise_scale.in_batches", "noise scale, batches"),
        ("noise_scale.effective_batch", "effective batch, targets"),
    )
    found = [(measured.one(name), label) for name, label in named]
    found = [(s, label) for s, label in found if s is not None and np.isfinite(s.value).any()]
    if axes is None or not found:
        return bool(found)
    for color, (series, label) in zip(COLORS, found):
        _line(axes, series, color, label)
    first, label = found[0]
    known = first.value[np.isfinite(first.value)]
    axes.set(yscale="log", ylabel=label)
    axes.set_title(f"Noise over signal: {known[0]:.3g} to {known[-1]:.3g} {label.split()[-1]}")
    _legend(axes)
    return True


def _angle(axes: Any, measured: Measured) -> bool:
    found = [s for s in measured.of("angular_update.rms") if s.group != "all"]
    predicted = [s for s in found if np.isfinite(s.pred).any()]
    if axes is None:
        return bool(found)
    _lines(axes, predicted or found)
    axes.set(yscale="log", ylabel="angle a step (radian)")
    axes.set_title(_told(predicted, "Angle a step"))
    return True


def _rest(axes: Any, measured: Measured) -> bool:
    found = [s for s in measured.of("fdt.ratio") if np.isfinite(s.value).any()]
    if axes is None:
        return bool(found)
    _lines(axes, found)
    total = next((s for s in found if s.group == "all"), found[0])
    axes.set(ylabel="drift / spread", ylim=(-2, 4))
    near = "at rest" if abs(total.value[-1] - 1) < 0.1 else "not at rest"
    axes.set_title(f"Stationarity: {total.value[-1]:.2f} in the end, {near}")
    return True


def _pace(axes: Any, measured: Measured) -> bool:
    found = [s for s in measured.of("update_ratio.ratio") if s.group != "all"]
    if axes is None:
        return bool(found)
    _lines(axes, found)
    axes.set(yscale="log", ylabel="|Δw| / |w| a step")
    axes.set_title("Pace of the layers")
    return True


def _smoothness(axes: Any, measured: Measured) -> bool:
    found = measured.of("smoothness.rw")
    if axes is None:
        return bool(found)
    _lines(axes, found)
    axes.set(yscale="log", ylabel="Dirichlet energy / |H|²")
    deepest = found[-1]
    axes.set_title(f"Smoothness: {deepest.group} {deepest.value[0]:.2g} to {deepest.value[-1]:.2g}")
    return True


def _units(axes: Any, measured: Measured) -> bool:
    found = [*measured.of("units.dead"), *measured.of("units.dead of batches")]
    if axes is None:
        return bool(found)
    _lines(axes, found, scale=100)
    axes.set(ylabel="dead units (%)", ylim=(0, None))
    axes.set_title(f"Units: {100 * max(s.value[-1] for s in found):.0f} % dead in the worst layer")
    return True


def _embedding(axes: Any, measured: Measured) -> bool:
    found = [*measured.of("embedding_error.error"), *measured.of("staleness.error")]
    if axes is None:
        return bool(found)
    _lines(axes, found)
    axes.set(yscale="log", ylabel="error of embeddings / |H|²")
    axes.set_title("Embeddings against the whole graph")
    return True


PANELS = (
    _convergence,
    _learning_rate,
    _noise,
    _scale,
    _angle,
    _rest,
    _pace,
    _smoothness,
    _units,
    _embedding,
)


def _lines(axes: Any, found: Sequence[Series], scale: float = 1.0) -> None:
    shown = _largest(found, MOST)
    for color, series in zip(COLORS, shown):
        _line(axes, series, color, series.group, scale)
    _legend(axes, more=len(found) - len(shown))


def _line(axes: Any, series: Series, color: str, label: str, scale: float = 1.0) -> None:
    x, y = series.step, scale * series.value
    dots = "o" if x.size < 12 else ""
    axes.plot(x, y, color=color, lw=1.6, label=_short(label), marker=dots, ms=3)
    known = np.isfinite(series.se) & (series.se > 0)
    if known.any():
        wide = 2 * scale * series.se[known]
        axes.fill_between(x[known], y[known] - wide, y[known] + wide, color=color, alpha=0.15, lw=0)
    if np.isfinite(series.pred).any():
        axes.plot(x, scale * series.pred, color=color, lw=1.2, ls="--")


def _largest(found: Sequence[Series], count: int) -> list[Series]:
    """Those with the largest last values, in the order in which they came."""
    if len(found) <= count:
        return list(found)
    kept = sorted(found, key=lambda s: -abs(np.nan_to_num(s.value[-1], posinf=0.0)))[:count]
    return [s for s in found if any(s is k for k in kept)]


def _smooth(series: Series) -> Series:
    """Means over a fiftieth of the steps."""
    width = max(1, series.step.size // 50)
    size = series.step.size // width * width
    step, value = (a[:size].reshape(-1, width).mean(1) for a in (series.step, series.value))
    nothing = np.full(step.size, np.nan)
    return Series(series.name, series.group, step, value, nothing, nothing)


def _told(predicted: Sequence[Series], what: str) -> str:
    if not predicted:
        return what
    last = [s.later() for s in predicted]
    off = [np.nanmedian(np.abs(s.value - s.pred) / s.pred) for s in last]
    return f"{what}: {100 * float(np.median(off)):.1f} % from theory"


def _short(label: str) -> str:
    return label if len(label) <= 34 else f"{label[:16]}…{label[-16:]}"


def _legend(axes: Any, more: int = 0) -> None:
    title = f"and {more} more" if more > 0 else None
    axes.legend(fontsize=7.5, frameon=False, title=title, title_fontsize=7.5)
