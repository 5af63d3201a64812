"""What ``graphdyn reproduce`` prints: measured beside published, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphdyn.data import info
from graphdyn.files import replacing, writing
from graphdyn.reproduce import Row

if TYPE_CHECKING:
    from rich.table import Table

PICKED = {
    "metric": "the best validation {metric}, first of equals",
    "loss": "the lowest validation loss",
}


def print_known(rows: dict[str, Row], root: Path | None) -> None:
    """Every row with what was published, and whether its raw files are at hand; fits 80 columns."""
    from rich.console import Console

    table = _table("graphdyn reproduce NAME runs a row; published figures in per cent")
    for column in ("data set", "here"):
        table.add_column(column, no_wrap=True)
    for column in ("published", "band"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in rows.items():
        here = "yes" if info(row.config.dataset, root)["available"] else "-"
        table.add_row(name, row.config.dataset, here, row.published, _band(row.band))
    Console().print(table)


def print_results(results: dict[str, dict[str, Any]]) -> None:
    """Measured, published, band and verdict of each row; then its split, what picked the epoch, its source."""
    from rich.console import Console

    table = _table("test in per cent, mean ± std over seeds; gains over paired seeds in points")
    for column in ("measured", "published", "band"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for name, result in results.items():
        run = f" ({result['run']})" if result["run"] else ""
        cells = (_spread(result), result["published"], _band(result["band"]))
        table.add_row(name, *cells, result["verdict"] + run)
        if "gain" in result:
            gain = result["gain"]
            least = "-" if gain["least"] is None else f"from {gain['least']:+g}"
            cells = (f"{gain['mean']:+.2f}", "", least, gain["verdict"] + run)
            table.add_row(f"  over {gain['against']}", *cells)
    console = Console()
    console.print(table)
    for name, result in results.items():
        console.print(f"{name}: {_facts(result)}", soft_wrap=True, highlight=False, markup=False)


def write_markdown(out: Path) -> Path:
    """All results that were ever noted in a folder as a table for a README, ``out/results.md``."""
    results, path = json.loads((out / "results.json").read_text()), out / "results.md"
    with writing(out), replacing(path) as part:
        part.write_text(markdown(results), "utf-8")
    return path


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """A line a row, gains in a column of their own.

    Args:
        results: As in ``results.json``.
    """
    lines = ["| row | measured | n | published | band | verdict | gain over |", "|---" * 7 + "|"]
    for name, result in results.items():
        run = f" ({result['run']})" if result["run"] else ""
        cells = (name, _spread(result), str(result["n"]), result["published"])
        cells += (_band(result["band"]), result["verdict"] + run, _paired(result.get("gain")))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _paired(gain: dict[str, Any] | None) -> str:
    if gain is None:
        return ""
    interval = "" if gain["low"] is None else f" ({gain['low']:+.2f} to {gain['high']:+.2f})"
    least = "" if gain["least"] is None else f", at least {gain['least']:+g}: {gain['verdict']}"
    return f"{gain['against']}: {gain['mean']:+.2f}{interval}{least}"


def _table(caption: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("row", overflow="fold")
    return table


def _band(band: Any) -> str:
    return "-" if band is None else f"{band[0]:g}-{band[1]:g}"


def _spread(result: dict[str, Any]) -> str:
    std = "" if result["std"] is None else f" ± {result['std']:.2f}"
    return f"{result['mean']:.2f}{std}"


def _facts(result: dict[str, Any]) -> str:
    splits, metric = result["split"], result["metric"]
    split = f"split {splits[0]}" if len(splits) == 1 else f"{len(splits)} splits, {splits[0]} ..."
    picked = PICKED[result["select"]].format(metric=metric)
    note = f"; {result['note']}" if result["note"] else ""
    return (
        f"test {metric}, {result['n']} seed(s), {split}, epoch of {picked}{_interval(result)}; published by "
        f"{result['source']}{note}; {result['seconds']:.0f} s, {result['machine']['device']}"
    )


def _interval(result: dict[str, Any]) -> str:
    gain = result.get("gain")
    if gain is None or gain["low"] is None:
        return ""
    level = f"{100 * gain['level']:.0f} % interval of the gain"
    return f"; {level} {gain['low']:+.2f} to {gain['high']:+.2f}"
