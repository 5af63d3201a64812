"""What ``graphdyn data`` prints."""

from __future__ import annotations

from pathlib import Path

from graphdyn.data import data_root, get, info, names, verify
from graphdyn.errors import DataError


def print_list(root: Path | None) -> None:
    """Every data set with its sizes, and whether its files are at hand."""
    from rich.console import Console
    from rich.table import Table

    table = Table(caption=f"data root: {data_root(root)}")
    table.add_column("name", no_wrap=True)
    for column in ("nodes", "edges", "features", "classes"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("here")
    for name in names():
        row = info(name, root)
        sizes = [_number(row[column]) for column in ("nodes", "edges", "features", "classes")]
        table.add_row(name, *sizes, "yes" if row["available"] else "-")
    Console().print(table)


def print_info(name: str, root: Path | None) -> None:
    """One data set, a line a fact."""
    for fact, value in info(name, root).items():
        if value not in (None, "", []):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{fact:14} {_number(shown)}")


def print_get(name: str, root: Path | None) -> None:
    """Download what is missing; say where everything lies."""
    for path in get(name, root):
        print(path)


def print_verify(name: str, root: Path | None) -> None:
    """Every raw file with its status.

    Raises:
        DataError: If a file is missing or differs.
    """
    rows = verify(name, root)
    for row in rows:
        print(f"{row['status']:16} {row['path']}")
    bad = [row["path"] for row in rows if row["status"] in ("missing", "differs")]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(rows)} raw files of {name} are missing or differ from the card; "
            f"delete those that differ and run `graphdyn data get {name}`."
        )


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
