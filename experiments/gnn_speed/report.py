"""What came out, claim by claim: prediction, number, band, verdict; and the figure."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from graphdyn.survival import Hit

# Computed for Cora once before, by other code: smallest sigma^2 by depth, to the digits that were kept.
KNOWN = {
    ("cora/gcn", "plain"): {0: "1.0", 1: "0.096", 2: "0.0013", 3: "4.9e-05", 8: "7.7e-13"},
    ("cora/gcn", "dense"): {0: "1.0", 8: "3.7"},
    ("cora/gcn/row", "plain"): {0: "0.0055", 1: "0.00018", 2: "5.3e-06"},
}
LEVEL = {
    "gcn": "0.5",
    "gin": "0.9",
}  # the lowest loss that every architecture and depth reaches in time
KEYS = ("dataset", "shift", "activation", "arch", "depth", "start", "seed", "labels")


def claims(results: dict[str, Any]) -> list[dict[str, str]]:
    """One row a claim, or a part of it."""
    rows: list[dict[str, str]] = []
    if results["conditions"]:
        rows += [*_condition(results["conditions"]), *_theorem(results["settings"])]
    linear = [r for r in results["speed"] if r["activation"] == "none"]
    rectified = [r for r in results["speed"] if r["activation"] == "relu"]
    if linear and rectified:
        rows += _order(linear, rectified)
    if linear:
        rows += [*_depth(linear), *_skips(linear), *_labels(linear)]
    rows += _alignment(results["alignment"])
    rows += _first_term(linear) if linear else []
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """Markdown."""
    names = ("claim", "prediction", "measured", "band", "verdict")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(r[n] for n in names)} |" for r in rows)])


def _claim(
    claim: str, prediction: str, measured: str, band: str, verdict: str | bool
) -> dict[str, str]:
    said = {True: "holds", False: "does not hold"}.get(verdict, verdict)  # type: ignore[call-overload]
    return {
        "claim": claim, "prediction": prediction, "measured": measured, "band": band, "verdict": str(said),
    }  # fmt: skip


# --- the theorem --------------------------------------------------------------------------------------


def _condition(found: dict[str, dict[str, list[float]]]) -> list[dict[str, str]]:
    checked = [
        (float(f"{found[name][kind][h]:.1e}"), float(value))
        for (name, kind), values in KNOWN.items()
        for h, value in values.items()
        if name in found and h < len(found[name][kind])
    ]
    worst = max(abs(a / b - 1) for a, b in checked)
    rows = [
        _claim("(i)", "σ² of Cora as computed before", f"{len(checked)} values, off by at most {100 * worst:.1g} % at two digits", "1 %", worst <= 0.01),
    ]  # fmt: skip
    for name, both in found.items():
        if name.count("/") == 1:
            deep = len(both["plain"]) - 1
            for kind in ("plain", "dense"):
                least = min(both[kind])
                text = f"{both[kind][0]:.2g} at H=0, {both[kind][-1]:.2g} at H={deep}"
                rows.append(
                    _claim("(i)", f"σ²_min > 0, {name}, {kind}", text, "> 0 at every H", least > 0)
                )
    return rows


def _theorem(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    lowest = [r["lambda_T"] for r in rows]
    kept = [r["lambda_T"] / r["lambda_0"] for r in rows]
    ratio = [r["rate_over_bound"] for r in rows]
    over = max(r["gap_over_bound"] for r in rows)
    off = max(r["identity"] for r in rows)
    return [
        _claim("(ii)", f"λ_T > 0 in {len(rows)} settings", f"{min(lowest):.2g} to {max(lowest):.2g}; λ_T / λ_0 at least {min(kept):.2g}", "all > 0", min(lowest) > 0),
        _claim("(ii)", "the bound holds", f"largest (L - L*) / bound after the start: {over:.4f}", "≤ 1", over <= 1),
        _claim("(ii)", "how tight it is", f"rate / bound {min(ratio):.2g} to {max(ratio):.2g}, median {np.median(ratio):.2g}", "none", "far from tight"),
        _claim("(ii)", "-dL/dt = Σ |∂L/∂W|² + Σ |∂L/∂B|²", f"a step's decrease is off by at most {100 * off:.1f} %", "2 %", off < 0.02),
    ]  # fmt: skip


def _alignment(found: dict[str, dict[str, list[float]]]) -> list[dict[str, str]]:
    out = []
    for name, both in found.items():
        pairs = [*zip(both["true"], both["shuffled"])]
        wins = sum(a > b for a, b in pairs)
        text = f"{wins} of {len(pairs)} powers of S; at H={len(pairs) - 1} {pairs[-1][0]:.3f} against {pairs[-1][1]:.3f}"
        out.append(
            _claim(
                "(vi)",
                f"labels agree with features more than the best of 20 shuffles, {name}",
                text,
                "at every power",
                wins == len(pairs),
            )
        )
    return out


# --- speed --------------------------------------------------------------------------------------------


def _order(linear: list, rectified: list) -> list[dict[str, str]]:
    out = []
    for dataset, shift in sorted({(r["dataset"], r["shift"]) for r in rectified}):
        ours = [r for r in rectified if (r["dataset"], r["shift"]) == (dataset, shift)]
        twins = {_key(r, "activation"): r for r in linear}
        pairs = [
            (
                _hit(r, LEVEL[shift], "time"),
                _hit(twins[_key(r, "activation")], LEVEL[shift], "time"),
            )
            for r in ours
        ]
        both = [(a.time, b.time) for a, b in pairs if a.hit and b.hit]
        tau = kendalltau(*zip(*both)).statistic if len(both) > 2 else float("nan")
        out.append(
            _claim(
                "(iii)",
                f"linear and ReLU in one order, {dataset}/{shift}",
                f"Kendall's τ {tau:.2f} over {len(both)} of {len(pairs)} networks",
                "τ ≥ 0.6",
                bool(tau >= 0.6),
            )
        )
    return out


def _depth(rows: list) -> list[dict[str, str]]:
    depths = sorted({r["depth"] for r in rows})
    out = []
    for shift in ("gcn", "gin"):
        for arch in ("plain", "dense"):
            own = [r for r in rows if (r["shift"], r["arch"], r["labels"]) == (shift, arch, "true")]
            for clock in ("time", "steps"):
                found = [
                    _pairs(own, "depth", deep, flat, LEVEL[shift], clock)
                    for flat, deep in pairwise(depths)
                ]
                out.append(_faster("(iv)", f"deeper is faster, {arch} {shift}", found, clock))
    return out


def _skips(rows: list) -> list[dict[str, str]]:
    out = []
    for shift in ("gcn", "gin"):
        own = [r for r in rows if (r["shift"], r["labels"]) == (shift, "true")]
        for arch in ("dense", "residual"):  # of one layer, residual is plain
            own = [r for r in own if arch == "dense" or r["depth"] > 1]
            for clock in ("time", "steps"):
                found = [_pairs(own, "arch", arch, "plain", LEVEL[shift], clock)]
                out.append(_faster("(v)", f"{arch} faster than plain, {shift}", found, clock))
    return out


def _labels(rows: list) -> list[dict[str, str]]:
    out = []
    for shift in ("gcn", "gin"):
        own = [r for r in rows if r["shift"] == shift]
        found = [_pairs(own, "labels", "true", "shuffled", LEVEL[shift], "time")]
        out.append(_faster("(vi)", f"true labels faster than shuffled, {shift}", found, "time"))
    return out


def _first_term(rows: list) -> list[dict[str, str]]:
    out = []
    for arch in ("plain", "dense"):
        for start in ("zero head", "glorot"):
            true, shuffled = (
                [
                    r["first_term"]
                    for r in rows
                    if (r["arch"], r["start"], r["labels"]) == (arch, start, kind)
                ]
                for kind in ("true", "shuffled")
            )
            text = f"{np.median(true):.2f} ({min(true):.2f} to {max(true):.2f}); shuffled {np.median(shuffled):.2f}"
            out.append(
                _claim(
                    "(vii)",
                    f"heads do most of the work, {arch}, {start}",
                    text,
                    "> 0.5 in all",
                    _verdict(np.mean(np.array(true) > 0.5)),
                )
            )
    return out


def _faster(claim: str, prediction: str, found: list, clock: str) -> dict[str, str]:
    ratios = [r for pairs in found for r in pairs if r is not None]
    open_ = sum(r is None for pairs in found for r in pairs)
    if not ratios:
        return _claim(
            claim,
            prediction,
            f"{clock}: no pair decided ({open_} open)",
            "all pairs",
            "not decided",
        )
    wins = float(np.mean(np.array(ratios) < 1))
    text = f"{clock}: in {sum(r < 1 for r in ratios)} of {len(ratios)} pairs, median ratio {np.median(ratios):.2g}"
    text += f" ({open_} open)" if open_ else ""
    return _claim(claim, prediction, text, "all pairs", _verdict(wins))


def _verdict(share: float) -> str:
    if share == 1:
        return "holds"
    return "mostly holds" if share >= 0.75 else "mixed" if share > 0.25 else "does not hold"


def _pairs(
    rows: list, what: str, first: Any, second: Any, level: str, clock: str
) -> list[float | None]:
    """Time of the first over time of the second, all else equal.

    One that is censored later than the other hits gives a bound on the right side of 1, 0 or infinity; where
    neither says who is faster, ``None``.
    """
    others = {_key(r, what): r for r in rows if r[what] == second}
    out: list[float | None] = []
    for row in rows:
        if row[what] == first:
            a, b = _hit(row, level, clock), _hit(others[_key(row, what)], level, clock)
            if a.hit and b.hit:
                out.append(a.time / b.time)
            elif a.hit and a.time <= b.time:
                out.append(0.0)
            elif b.hit and b.time <= a.time:
                out.append(float("inf"))
            else:
                out.append(None)
    return out


def _hit(row: dict, level: str, clock: str) -> Hit:
    return Hit(*row["hits"][level][clock])


def _key(row: dict, but: str) -> tuple:
    return tuple(row[k] for k in KEYS if k != but)


# --- the figure ---------------------------------------------------------------------------------------


def draw(results: dict[str, Any], path: Path) -> None:
    """Curves of depth and skips, true and shuffled labels, for each data set and shift."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [
        r
        for r in results["speed"]
        if r["activation"] == "none" and r["start"] == "zero head" and r["seed"] == 0
    ]
    if not rows:
        return
    places = sorted({(r["dataset"], r["shift"]) for r in rows})
    figure = Figure(figsize=(4.2 * len(places), 7), layout="constrained")
    axes = figure.subplots(2, len(places), squeeze=False)
    depths = sorted({r["depth"] for r in rows})
    colors = dict(zip(depths, ("#0072B2", "#009E73", "#E69F00", "#D55E00")))
    for column, place in enumerate(places):
        own = [r for r in rows if (r["dataset"], r["shift"]) == place]
        for r in own:
            if r["arch"] in ("plain", "dense") and r["labels"] == "true":
                style = {"plain": "-", "dense": "--"}[r["arch"]]
                _curve(
                    axes[0, column], r, colors[r["depth"]], style, f"{r['arch']}, H = {r['depth']}"
                )
            if r["arch"] == "plain" and r["depth"] in (depths[0], depths[-1]):
                style = {"true": "-", "shuffled": ":"}[r["labels"]]
                _curve(
                    axes[1, column],
                    r,
                    colors[r["depth"]],
                    style,
                    f"{r['labels']}, H = {r['depth']}",
                )
        axes[0, column].set_title(f"{place[0]}, {place[1].upper()}: depth and skips", fontsize=10)
        axes[1, column].set_title("labels, plain", fontsize=10)
    for axis in axes.flat:
        axis.set(xscale="log", xlabel="flow time", ylim=(0, 1.05))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel("training loss")
        axis.legend(fontsize=7, frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


def _curve(axis: Any, row: dict, color: str, style: str, label: str) -> None:
    times, losses = row["curve"]
    axis.plot(times[1:], losses[1:], color=color, ls=style, lw=1.4, label=label)
