"""From rows to the pictures, the tables of README.md and the verdicts. python experiments/error_decomposition/report.py"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

HERE = Path(__file__).parent
MARKS = ("<!-- error decomposition: begin -->", "<!-- error decomposition: end -->")
COLORS = {
    "neighbor": "tab:blue",
    "labor": "tab:cyan",
    "ladies": "tab:orange",
    "cluster": "tab:red",
    "gas": "tab:olive",
}
PARTS = ("mse", "v_emb", "b2_cond", "v_sgd", "cross", "bias2", "embedding_bias2")
STYLES = {"v_sgd": "-", "v_emb": "--", "b2_cond": ":"}
Row = dict[str, Any]


def rows_of(folder: Path) -> list[Row]:
    """Of all files of results."""
    return [row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text())]


def chosen(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Rows with these values."""
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


def mean(rows: list[Row], name: str) -> tuple[float, float]:
    """Over seeds: mean, and its standard error from the draws."""
    values, errors = [r[name] for r in rows], [r[f"{name}_se"] for r in rows]
    return fmean(values), sum(e * e for e in errors) ** 0.5 / len(rows)


def along(rows: list[Row], dataset: str) -> str:
    """Table of one data set, in units of the noise of targets (v_sgd) at the same step."""
    here = chosen(rows, part="along", dataset=dataset)
    lines = ["| method | step | loss | \\|grad\\|² | " + " | ".join(PARTS) + " |"]
    lines.append("|---" * (4 + len(PARTS)) + "|")
    for method in COLORS:
        for step in sorted({r["step"] for r in here}):
            found = chosen(here, method=method, step=step)
            unit = mean(found, "v_sgd")[0]
            cells = [method, str(step), f"{fmean(r['loss'] for r in found):.3f}"]
            cells.append(f"{fmean(r['square'] for r in found) / unit:.2f}")
            for name in PARTS:
                value, se = mean(found, name)
                cells.append(
                    f"{value:.2e}" if name == "v_sgd" else f"{value / unit:.2f} ± {se / unit:.2f}"
                )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def floor(rows: list[Row], dataset: str) -> str:
    """Table over batch sizes at the last checkpoint, in units of the squared full gradient there."""
    here = chosen(rows, part="floor", dataset=dataset)
    names = ("variance", "v_sgd", "v_emb", "b2_cond", "embedding_bias2")
    lines = [
        "| method | targets a step | " + " | ".join(names) + " |",
        "|---" * (2 + len(names)) + "|",
    ]
    for method in COLORS:
        for size in sizes_of(chosen(here, method=method)):
            found = [r for r in chosen(here, method=method) if round(r["batch"], -1) == size]
            cells = [method, f"{fmean(r['batch'] for r in found):.0f}"]
            for name in names:
                values = [mean([r], name) for r in found]
                units = [r["square"] for r in found]
                value = fmean(v / u for (v, _), u in zip(values, units))
                se = sum((s / u) ** 2 for (_, s), u in zip(values, units)) ** 0.5 / len(found)
                cells.append(f"{value:.3g} ± {se:.2g}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sizes_of(rows: list[Row]) -> list[int]:
    """Batch sizes, in tens."""
    return sorted({round(r["batch"], -1) for r in rows})


def draw(rows: list[Row], dataset: str, out: Path) -> None:
    """Left: parts along training. Right, where there is one: variance and bias over batch sizes."""
    base = chosen(rows, dataset=dataset)
    last = chosen(base, part="floor")
    figure, axes = plt.subplots(
        1, 2 if last else 1, figsize=(11 if last else 6, 4.2), squeeze=False
    )
    left = axes[0, 0]
    for method, color in COLORS.items():
        here = chosen(base, part="along", method=method)
        steps = sorted({r["step"] for r in here})
        for name, style in STYLES.items():
            y = [mean(chosen(here, step=s), name)[0] for s in steps]
            left.plot(
                [s + 1 for s in steps],
                y,
                style,
                color=color,
                label=method if name == "v_sgd" else None,
            )
    square = [fmean(r["square"] for r in chosen(base, part="along", step=s)) for s in steps]
    left.plot([s + 1 for s in steps], square, "k-", lw=2, label="|grad|²")
    left.set(
        xscale="log",
        yscale="log",
        xlabel="full-batch step + 1",
        title=f"{dataset}: solid v_sgd, dashed v_emb, dotted b2_cond",
    )
    left.legend(fontsize=7)
    if last:
        draw_floor(axes[0, 1], last)
    figure.tight_layout()
    figure.savefig(out / f"{dataset}.png", dpi=130)
    plt.close(figure)


def draw_floor(axis: Any, rows: list[Row]) -> None:
    """Variance (solid) and bias (dotted, with errors) over targets a step."""
    for method, color in COLORS.items():
        here = chosen(rows, method=method)
        groups = [[r for r in here if round(r["batch"], -1) == size] for size in sizes_of(here)]
        x = [fmean(r["batch"] for r in g) for g in groups]
        axis.plot(
            x, [mean(g, "variance")[0] for g in groups], "-o", ms=3, color=color, label=method
        )
        y, se = zip(*(mean(g, "embedding_bias2") for g in groups))
        axis.errorbar(x, y, yerr=se, fmt=":s", ms=3, color=color)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="targets a step",
        title="at the last step: solid variance, dotted bias²",
    )
    axis.axhline(fmean(r["square"] for r in rows), color="k", lw=1, label="|grad|²")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    rows, pieces = rows_of(options.results), []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        draw(rows, dataset, options.out)
        pieces += [f"### {dataset}", f"![{dataset}]({dataset}.png)", along(rows, dataset)]
        if chosen(rows, dataset=dataset, part="floor"):
            pieces += ["At the last step, in units of \\|grad\\|² there:", floor(rows, dataset)]
    text = "\n\n".join(pieces)
    print(text)
    readme = options.out / "README.md"
    if readme.exists():
        before, rest = readme.read_text().split(MARKS[0])
        readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
