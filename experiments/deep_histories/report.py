"""From rows to the picture, and to the tables of README.md."""

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

MARKS = ("<!-- deep histories: begin -->", "<!-- deep histories: end -->")
COLORS = {"full batch": "black", "gas": "tab:olive", "lmc": "tab:pink", "cluster, no memory": "tab:red"}  # fmt: skip
GIB = 2**30
Row = dict[str, Any]
Groups = dict[tuple, list[Row]]


def report(rows: list[Row], out: Path) -> None:
    """Draw the picture, print the tables, and put them into README.md if there is one.

    Args:
        rows: Of results.jsonl.
        out: Folder of the picture, and of README.md.
    """
    text = "\n\n".join((accuracy(rows), memory(rows)))
    draw(rows, out / "curves.png")
    print(text)
    path = out / "README.md"
    if path.exists():
        before, rest = path.read_text().split(MARKS[0])
        path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


def grouped(rows: list[Row], kind: str, *names: str) -> Groups:
    """Rows of a kind by the values of some of their fields, in the order of these."""
    found: Groups = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(tuple(row[name] for name in names), []).append(row)
    return dict(sorted(found.items()))


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def accuracy(rows: list[Row]) -> str:
    """Markdown: what equal seconds of training come to."""
    lines = [
        "| model | layers | method | test | validation | seeds | epochs | steps | seconds of training | evaluation, s | peak, GiB |",
        "|---" * 11 + "|",
    ]
    for key, runs in grouped(rows, "train", "model", "layers", "budget", "method").items():
        model, layers, _, method = key
        scores = [spread([100 * run[name] for run in runs]) for name in ("test", "valid")]
        counts = [str(len(runs)), *(str(runs[0][name]) for name in ("epochs", "steps"))]
        costs = [f"{fmean(run[name] for run in runs):.0f}" for name in ("seconds", "evaluate")]
        peak = f"{max(run['peak'] for run in runs) / GIB:.2f}"
        cells = [model, str(layers), method, *scores, *counts, *costs, peak]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def memory(rows: list[Row]) -> str:
    """Markdown: peaks of whole processes after one epoch, Python, torch and the graph among them."""
    lines = [
        "| model | layers | hidden | method | as run, GiB | in use, GiB | in use, with checkpoints, GiB |",
        "|---" * 7 + "|",
    ]
    for key, runs in grouped(rows, "memory", "model", "layers", "hidden", "method").items():
        peaks = {(r["returned"], r["checkpoint"]): f"{r['peak'] / GIB:.2f}" for r in runs}
        kinds = ((False, False), (True, False), (True, True))
        cells = [*map(str, key), *(peaks.get(kind, "") for kind in kinds)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Test accuracy over seconds of training: mean of the seeds, and a band of one standard deviation."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = grouped(rows, "train", "model", "layers", "budget")
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 3.8), sharey=True, squeeze=False, layout="constrained"
    )  # fmt: skip
    for axis, ((model, layers, _), found) in zip(axes[0], panels.items()):
        for (method,), runs in grouped(found, "train", "method").items():
            line(axis, method, runs)
        axis.set(title=f"{model}, {layers} layers", xlabel="CPU seconds of training")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test accuracy, %")
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def line(axis: Any, method: str, runs: list[Row]) -> None:
    """One method of a panel; all seeds are looked at after the same epochs."""
    looks = list(zip(*(run["curve"] for run in runs), strict=True))
    seconds = [fmean(p["seconds"] for p in points) for points in looks]
    scores = [[100 * p["test"] for p in points] for points in looks]
    mean = [fmean(values) for values in scores]
    std = [stdev(values) if len(values) > 1 else 0.0 for values in scores]
    axis.plot(seconds, mean, ".-", color=COLORS[method], label=method)
    low, high = ([m + sign * s for m, s in zip(mean, std)] for sign in (-1, 1))
    axis.fill_between(seconds, low, high, color=COLORS[method], alpha=0.2, lw=0)
