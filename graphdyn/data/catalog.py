"""What ``graphdyn data list | info | get | verify`` show, as plain values."""

from __future__ import annotations

import os
from pathlib import Path

from graphdyn.data.cards import card
from graphdyn.data.download import digest, fetch_all
from graphdyn.data.places import data_root


def available(name: str, root: str | os.PathLike | None = None) -> bool:
    """Whether all raw files which loading under the default split reads are there."""
    one = card(name)
    return all((data_root(root) / f.path).exists() for f in one.files_for(one.default_split))


def info(name: str, root: str | os.PathLike | None = None) -> dict[str, object]:
    """Everything a user asks of a data set before loading it, ready to print."""
    one = card(name)
    counts = one.counts
    return {
        "name": one.name,
        "title": one.title,
        "nodes": counts.nodes,
        "edges": counts.edges,
        "features": counts.features,
        "classes": counts.classes,
        "task": one.task,
        "metric": one.metric,
        "splits": [
            s.name if not s.count else f"{s.ids[0]} .. {s.ids[-1]}" for s in one.schemes.values()
        ],
        "default split": one.default_split,
        "format": one.format,
        "license": one.license,
        "citation": one.citation,
        "homepage": one.homepage,
        "note": one.note,
        "folder": str(data_root(root) / one.folder),
        "available": available(name, root),
    }


def get(name: str, root: str | os.PathLike | None = None) -> list[Path]:
    """Download every raw file that is missing, those of all splits included.

    Returns:
        Where the files of the data set lie.

    Raises:
        DataError: If one cannot be had.
    """
    one, folder = card(name), data_root(root)
    fetch_all(one, [f for f in one.files if not (folder / f.path).exists()], folder)
    return [folder / f.path for f in one.files]


def verify(name: str, root: str | os.PathLike | None = None) -> list[dict[str, str]]:
    """Compare every raw file with its SHA-256.

    Returns:
        One row a file with ``path`` and ``status``: ``"ok"``, ``"missing"``, ``"differs"``, or
        ``"no digest known"``.
    """
    folder = data_root(root)
    return [
        {"path": f.path, "status": _status(folder / f.path, f.sha256)} for f in card(name).files
    ]


def _status(path: Path, sha256: str | None) -> str:
    if not path.exists():
        return "missing"
    if sha256 is None:
        return "no digest known"
    return "ok" if digest(path) == sha256 else "differs"
