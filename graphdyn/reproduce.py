"""Published figures: rows of the table of experiments/accuracy, run from their recipe and judged.

A recipe is a Python file with ``ROWS``, a dictionary of :class:`Row` by name; it lies in ``experiments/accuracy``
and ships as ``graphdyn.accuracy``. Imports nothing heavy: recipes are configurations.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from graphdyn.config import Config
from graphdyn.errors import DataError, InputError, RecordError, unknown
from graphdyn.files import lock, write_json, writing

UNJUDGED = "not judged"
_PATIENCE = 20.0  # seconds to wait for another process that notes a result


@dataclass(frozen=True)
class Row:
    """One published figure and how it is measured here.

    Attributes:
        config: The whole recipe; the number of seeds included.
        published: The figure as its source prints it, in per cent.
        source: Who published it.
        band: Lowest and highest mean, in per cent, that count as reproduced; ``None``: reported only.
        against: Name of the row whose seeds are paired with these.
        gain: Least mean gain over that row, in points; ``None``: reported only.
        note: What a reader must know to compare.
    """

    config: Config
    published: str
    source: str
    band: tuple[float, float] | None = None
    against: str | None = None
    gain: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Terms:
    """How rows are run.

    Attributes:
        out: Folder of the run folders and of ``results.json``.
        seeds: How many, in place of the recipe's.
        tiny: Two seeds of three epochs: does it run? Nothing is judged.
        data_root: Folder of raw files.
    """

    out: Path = Path("runs/reproduce")
    seeds: int | None = None
    tiny: bool = False
    data_root: Path | None = None

    def config(self, name: str, row: Row) -> Config:
        """The recipe as it is run, run folder included."""
        config = replace(row.config, out=self.out / self.key(name, row), data_root=self.data_root)
        if self.tiny:
            return replace(config, seeds=2, epochs=3, layers=min(config.layers, 4))
        return config if self.seeds is None else replace(config, seeds=self.seeds)

    def key(self, name: str, row: Row) -> str:
        """Where the result lies: apart from the row's own, unless it is run as its recipe says."""
        if self.tiny:
            return f"{name}-tiny"
        return f"{name}-{self.seeds}-seeds" if self.departure(row) else name

    def departure(self, row: Row) -> str:
        """How the run differs from its recipe; empty where it does not."""
        if self.tiny:
            return "tiny"
        if self.seeds is None or self.seeds == row.config.seeds:
            return ""
        return f"{self.seeds} of {row.config.seeds} seeds"


def _folder():
    try:
        return importlib.resources.files("graphdyn.accuracy")
    except ModuleNotFoundError:  # a source tree that is not installed
        return Path(__file__).resolve().parents[1] / "experiments" / "accuracy"


@cache
def rows() -> dict[str, Row]:
    """All rows by name, recipe by recipe."""
    found: dict[str, Row] = {}
    files = (entry for entry in _folder().iterdir() if entry.name.endswith(".py"))
    for path in sorted(files, key=lambda entry: entry.name):
        for name, row in read_recipe(Path(str(path))).items():
            if name in found:
                raise InputError(f"{path} names a row '{name}' that another recipe has; rename it.")
            found[name] = row
    return found


def read_recipe(path: Path) -> dict[str, Row]:
    """The rows of one recipe; running it is all that reading is.

    Args:
        path: A Python file with ``ROWS``.
    """
    spec = importlib.util.spec_from_file_location(f"graphdyn.accuracy.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ROWS


def chosen(names: Iterable[str]) -> dict[str, Row]:
    """Rows by name, each after the row that its seeds are paired with.

    Raises:
        InputError: If a name is not known; says which are near.
    """
    known = rows()
    out: dict[str, Row] = {}
    for name in names:
        if name not in known:
            raise unknown("row", name, known)
        line = [name]
        while (partner := known[line[-1]].against) is not None:
            line.append(partner)
        out |= {one: known[one] for one in reversed(line)}
    return out


def reproduce(
    names: Iterable[str], terms: Terms = Terms(), *, told: Callable[[str], None] = print
) -> dict[str, dict[str, Any]]:
    """Run rows, judge them, and note each in ``results.json`` as soon as it is there.

    A finished run is read and not run again; one that was killed goes on.

    Args:
        names: Of the rows; partners of paired rows come along.
        terms: How to run them.
        told: Hears why a row has no result: its raw files are absent, and how to get them.

    Returns:
        By key of ``results.json``; without rows that could not be run.

    Raises:
        InputError: If a name is not known, or a recipe cannot be built; rows before it are noted.
        Interrupted: After Ctrl-C; the same call goes on.
    """
    from graphdyn.runner import run

    done: dict[str, dict[str, Any]] = {}
    for name, row in chosen(names).items():
        try:
            summary = run(terms.config(name, row))
        except DataError as error:
            told(f"{name}: {error}")
            continue
        other = done.get(terms.key(row.against, rows()[row.against])) if row.against else None
        result = judge(row, terms, summary, other)
        done[terms.key(name, row)] = result
        note(terms.out, {terms.key(name, row): result})
    return done


def judge(
    row: Row, terms: Terms, summary: dict[str, Any], other: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What ``results.json`` says of a row.

    Args:
        row: What was published.
        terms: How it was run; a tiny run is not judged.
        summary: Of the run.
        other: The same of the row that it is paired with, if that has a result.

    Returns:
        Plain JSON values; accuracies in per cent, gains in points.

    Raises:
        InputError: If the paired row has other seeds or splits.
    """
    from graphdyn.verdict import percent, within

    test, valid = summary["test"], summary["validation"]
    result = {
        "mean": percent(test["mean"]),
        "std": None if test["std"] is None else percent(test["std"]),
        "n": test["n"],
        "values": [round(100 * value, 4) for value in test["values"]],
        "validation": None if valid is None else percent(valid["mean"]),
        "select": row.config.select,
        "published": row.published,
        "source": row.source,
        "band": None if row.band is None else list(row.band),
        "verdict": within(percent(test["mean"]), row.band),
        "run": terms.departure(row),
        "note": row.note,
        **{name: summary[name] for name in ("metric", "seeds", "split", "epochs", "best_epoch")},
        "seconds": round(summary["seconds"]["total"], 1),
        "machine": {"device": summary["device"], "system": platform.platform()},
        **{name: summary[name] for name in ("versions", "id")},
    }
    if other is not None:
        result["gain"] = _gain(row, result, other)
    return _unjudged(result) if terms.tiny else result


def _gain(row: Row, result: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    from graphdyn.verdict import paired_gain

    for name in ("seeds", "split"):
        if result[name] != other[name]:
            raise InputError(
                f"the row is paired with {row.against}, but they have the {name} {result[name]} and "
                f"{other[name]}; give both recipes the same."
            )
    return {"against": row.against, **paired_gain(result["values"], other["values"], row.gain)}


def _unjudged(result: dict[str, Any]) -> dict[str, Any]:
    judged = {**result, "verdict": UNJUDGED}
    if "gain" in result:
        judged["gain"] = {**result["gain"], "verdict": UNJUDGED}
    return judged


def note(out: Path, results: dict[str, dict[str, Any]]) -> None:
    """Merge results into ``out/results.json``; other processes may do so at the same time.

    Raises:
        RecordError: If the file there is not readable, or cannot be written.
    """
    path = out / "results.json"
    with writing(out), _held(out):
        try:
            before = json.loads(path.read_text()) if path.exists() else {}
        except json.JSONDecodeError as error:
            raise RecordError(f"{path} is damaged ({error}); move it away.") from None
        write_json(path, before | results)


@contextmanager
def _held(folder: Path):
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            held = lock(folder)
            break
        except RecordError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    with held:
        yield
