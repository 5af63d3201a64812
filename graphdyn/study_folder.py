"""The folder of a study: what it is, what is done, what failed.

study.json                         cells, seeds, budget; written first
tuning/<cell>.json                 trials and what they chose
cells/<cell>/seed-<n>/             an ordinary run folder
cells/<cell>/seed-<n>.failed.json  why there is none
table.md, table.csv, report.html   written last, from the rest
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphdyn.config import BUDGETS, Config
from graphdyn.errors import InputError, RecordError
from graphdyn.executors import Outcome
from graphdyn.files import write_json, writing
from graphdyn.grid import Cell, Study
from graphdyn.machine import versions
from graphdyn.work import Unit


def describe_study(study: Study, cells: Sequence[Cell], command: str) -> dict[str, Any]:
    """The document ``study.json``.

    Args:
        study: The study.
        cells: All of them.
        command: How to run it again.
    """
    reference = study.reference(list(cells))
    seeds = list(study.seed_numbers)
    identity = json.dumps([sorted(cell.config.id for cell in cells), seeds])
    spec = json.loads(json.dumps(study.plain()))
    return {
        "name": study.name,
        "id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "baseline": reference.name if reference else None,
        "target": {"metric": "valid", "value": study.target},
        "budget": _budget(study, cells),
        "evaluations": study.budget.get("evaluations"),
        "axes": _axes(cells),
        "seeds": seeds,
        "cells": [
            {"name": c.name, "slug": c.slug, "labels": c.labels, "config": told(c.config)}
            for c in cells
        ],
        "tuning": spec["tune"],
        "spec": spec,
        "command": command,
        "machine": {
            "node": platform.node(),
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": versions(),
    }


def _budget(study: Study, cells: Sequence[Cell]) -> dict[str, Any]:
    given = {n: v for n, v in study.budget.items() if n in BUDGETS}
    epochs = {c.config.last_epoch for c in cells} - {None}
    return given or ({"epochs": epochs.pop()} if len(epochs) == 1 else {})


def _axes(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    axes: dict[str, list[Any]] = {}
    for cell in cells:
        for axis, value in cell.labels.items():
            values = axes.setdefault(axis, [])
            if value not in values:
                values.append(value)
    return axes


def told(config: Config) -> dict[str, Any]:
    """The fields of a configuration that are not the defaults."""
    default = Config().canonical()
    return {n: v for n, v in config.canonical().items() if v != default[n]}


def read_study(folder: Path) -> dict[str, Any] | None:
    """What lies in a folder, or ``None`` if there is no study.

    Raises:
        RecordError: If the folder holds something else, or ``study.json`` is damaged.
    """
    path = folder / "study.json"
    if not path.exists():
        if folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
            raise RecordError(f"{folder} is not empty and holds no study; choose another --out.")
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise RecordError(f"{path} is not valid JSON; choose another --out.") from None


def check_same(folder: Path, before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Refuse to mix studies: cells and seeds may be added, and what is there stays as it is.

    Raises:
        RecordError: If something else changed; names it.
    """
    if before is None:
        return
    changed = [*_cells_changed(before, now)]
    gone = sorted(set(before["seeds"]) - set(now["seeds"]))
    changed += [f"seed(s) {', '.join(map(str, gone))} gone"] if gone else []
    if before["tuning"] != now["tuning"]:
        changed.append(f"tuning: {before['tuning']} -> {now['tuning']}")
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise RecordError(
            f"{folder} holds this study with another definition ({'; '.join(changed[:3])}{more}); "
            "cells and seeds can be added, for the rest choose another --out."
        )


def _cells_changed(before: dict[str, Any], now: dict[str, Any]):
    here = {cell["slug"]: cell for cell in now["cells"]}
    for cell in before["cells"]:
        if cell["slug"] not in here:
            yield f"cell {cell['name']} gone"
            continue
        old = Config.from_dict(cell["config"]).canonical()
        for line in Config.from_dict(here[cell["slug"]]["config"]).differences(old):
            yield f"{cell['name']}: {line}"


def write_study(folder: Path, document: dict[str, Any]) -> None:
    """Write ``study.json``."""
    with writing(folder):
        write_json(folder / "study.json", document)


def write_failure(unit: Unit, outcome: Outcome) -> None:
    """Note that a run failed."""
    entry = {"reason": outcome.reason, "error": outcome.error, "attempts": outcome.attempts}
    with writing(unit.failure.parent):
        unit.failure.parent.mkdir(parents=True, exist_ok=True)
        write_json(unit.failure, entry)


def spec_of(folder: Path) -> Study:
    """The study of a folder, as it was defined.

    Raises:
        InputError: If the folder holds none.
    """
    document = read_study(folder)
    if document is None:
        raise InputError(f"{folder} holds no study; name a study file, or the folder of a study.")
    return Study.from_dict(document["spec"])
