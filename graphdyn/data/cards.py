"""Cards: what is known of each data set, one TOML file in ``datasets/`` a set."""

from __future__ import annotations

import importlib.resources
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from graphdyn.errors import DataError, unknown


@dataclass(frozen=True)
class RawFile:
    """One raw file: where it lies under the data root and where it comes from.

    Attributes:
        path: Relative to the data root, with forward slashes.
        url: Address of the file, or of the archive that holds it; ``None`` if there is none.
        sha256: Hex digest, or ``None`` where it is not known.
        member: Name inside the archive at ``url``; ``None`` for a plain file.
        schemes: Split schemes that need it; empty when every load does.
        features: Whether it holds nothing but node features.
    """

    path: str
    url: str | None = None
    sha256: str | None = None
    member: str | None = None
    schemes: tuple[str, ...] = ()
    features: bool = False


@dataclass(frozen=True)
class Scheme:
    """A family of splits that come with the data.

    Attributes:
        name: For example ``"geom-gcn"``; split ids are ``name`` or ``name-index``.
        read: How it is stored: a name known to :mod:`graphdyn.data.splits`.
        file: Path under the data root, with ``{index}`` where there is one file a split.
        count: Number of splits; 0 means a single one without index.
    """

    name: str
    read: str
    file: str = ""
    count: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all its splits."""
        if not self.count:
            return (self.name,)
        return tuple(f"{self.name}-{index}" for index in range(self.count))


@dataclass(frozen=True)
class Counts:
    """Sizes that a loaded graph must have; ``None`` where they are not known.

    Attributes:
        nodes: N.
        edges: E as loaded by default, directed edges.
        features: F.
        classes: C.
        edges_directed: E when the edges are left as stored, for sets symmetrised by default.
    """

    nodes: int | None = None
    edges: int | None = None
    features: int | None = None
    classes: int | None = None
    edges_directed: int | None = None


@dataclass(frozen=True)
class Card:
    """What is known of a data set.

    Attributes:
        name: Lower case with hyphens.
        title: As written in papers.
        format: Which reader: a module of :mod:`graphdyn.data.readers`.
        folder: Where its raw files lie, relative to the data root.
        license: Terms of use as its authors state them.
        citation: The paper to cite.
        task: ``"multiclass"`` or ``"multilabel"``.
        metric: ``"accuracy"``, ``"f1-micro"`` or ``"roc-auc"``.
        homepage: Where it is described.
        note: What a user should know.
        counts: Sizes that a loaded graph must have.
        default_split: A split id.
        schemes: Splits that come with the data, by name.
        files: Raw files.
        undirected: Add the reverse of every edge and merge duplicates.
        coalesce: Merge duplicate edges.
        drop_loops: Remove self-loops.
        reader: Options of the reader.
    """

    name: str
    format: str
    folder: str = "."
    title: str = ""
    license: str = "not stated"
    citation: str = ""
    task: str = "multiclass"
    metric: str = "accuracy"
    homepage: str = ""
    note: str = ""
    counts: Counts = Counts()
    default_split: str | None = None
    schemes: dict[str, Scheme] = field(default_factory=dict)
    files: tuple[RawFile, ...] = ()
    undirected: bool = False
    coalesce: bool = False
    drop_loops: bool = False
    reader: dict[str, Any] = field(default_factory=dict)

    @property
    def split_ids(self) -> tuple[str, ...]:
        """Ids of all splits that come with the data."""
        return tuple(i for scheme in self.schemes.values() for i in scheme.ids)

    def scheme_of(self, split: str | None) -> Scheme | None:
        """The scheme which a split id belongs to, if it comes with the data."""
        return next((s for s in self.schemes.values() if split in s.ids), None)

    def files_for(self, split: str | None, features: bool = True) -> tuple[RawFile, ...]:
        """Raw files that loading under a split reads, with or without node features."""
        scheme = self.scheme_of(split)
        needed = {scheme.name} if scheme else set()
        wanted = (f for f in self.files if features or not f.features)
        return tuple(f for f in wanted if not f.schemes or needed & set(f.schemes))


def parse_card(text: str, origin: str) -> Card:
    """Read a card.

    Args:
        text: TOML, see ``docs/extending.md``.
        origin: For error messages.

    Raises:
        DataError: If it is not TOML, or a field is missing or unknown.
    """
    try:
        table = tomllib.loads(text)
        graph = table.pop("graph", {})
        splits = table.pop("splits", {})
        default = splits.pop("default", None)
        schemes = {name: Scheme(name, **entry) for name, entry in splits.items()}
        files = tuple(f for source in table.pop("source", []) for f in _files(source))
        counts = Counts(**table.pop("counts", {}))
        return Card(
            **table, **graph, counts=counts, default_split=default, schemes=schemes, files=files
        )
    except (tomllib.TOMLDecodeError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{origin} is not a valid data set card: {error}.") from error


def _files(source: dict[str, Any]) -> list[RawFile]:
    """The files of one ``[[source]]``: an entry is a digest, or a table with ``url`` ..."""
    into, base, archive = source["into"], source.get("base"), source.get("archive")
    out = []
    for name, entry in source["files"].items():
        entry = {"sha256": entry} if isinstance(entry, str) else dict(entry)
        member = source.get("inside", "") + name if archive else None
        address = archive or (f"{base}/{name.rsplit('/', 1)[-1]}" if base else None)
        out.append(
            RawFile(
                path=name if into == "." else f"{into}/{name}",
                url=entry.get("url", address),
                sha256=entry.get("sha256") or None,
                member=entry.get("member", member),
                schemes=tuple(source.get("schemes", ())),
                features=source.get("features", False),
            )
        )
    return out


def _folder():
    try:
        return importlib.resources.files("graphdyn.datasets")
    except ModuleNotFoundError:  # a source tree that is not installed
        return Path(__file__).resolve().parents[2] / "datasets"


@cache
def names() -> tuple[str, ...]:
    """Names of all data sets that have a card, sorted."""
    found = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


@cache
def card(name: str) -> Card:
    """The card of a data set.

    Args:
        name: A name of :func:`names`, or the path of a card of your own (``my/graph.toml``).

    Raises:
        InputError: If no such card exists; names the nearest.
        DataError: If the card cannot be read.
    """
    if name.endswith(".toml"):
        return _own_card(Path(name))
    name = name.lower()
    if name not in names():
        raise unknown("data set", name, names())
    found = parse_card((_folder() / f"{name}.toml").read_text("utf-8"), f"datasets/{name}.toml")
    if found.name != name:
        raise DataError(f"datasets/{name}.toml names itself '{found.name}'; both must agree.")
    return found


def _own_card(path: Path) -> Card:
    try:
        return parse_card(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise DataError(f"cannot read the card {path}: {error.strerror}.") from error
