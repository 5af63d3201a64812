"""``load(name)``: raw files, found or downloaded, to a checked Graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from graphdyn.data import cards, readers
from graphdyn.data.assemble import Layout, assemble, check_counts, graph_of
from graphdyn.data.cards import Card
from graphdyn.data.download import fetch_all
from graphdyn.data.places import data_root
from graphdyn.data.splits import check_split_id, make_split
from graphdyn.data.store import identity, open_or_build
from graphdyn.data.structure import Rules
from graphdyn.data.synthetic import generate
from graphdyn.errors import DataError, GraphdynError, InputError
from graphdyn.graph import Graph, check_split
from graphdyn.keys import Key

STORE_FROM = 4 << 20  # bytes of raw files from which parsing takes longer than mapping a store


def load(
    name: str,
    root: str | os.PathLike | None = None,
    split: str | None = None,
    *,
    seed: int = 0,
    features: Layout = "auto",
    undirected: bool | None = None,
    store: bool | Literal["auto"] = "auto",
    download: bool = True,
) -> Graph:
    """Load a data set.

    Features are as in the raw files; :func:`graphdyn.data.row_normalize` and its neighbours change
    them.

    Args:
        name: A name of ``graphdyn data list``, or the path of a card of your own
            (``my/graph.toml``).
        root: Folder of raw files; by default ``$GRAPHDYN_DATA``, else a folder in the user's cache
            (for a card of your own: where the card lies).
        split: A split id such as ``"public"``, ``"geom-gcn-3"`` or ``"random-20x500x1000-seed7"``;
            a family (``"geom-gcn"``, ``"random-20x500x1000"``) takes the member of ``seed``. By
            default the one that the card names, if any.
        seed: Member of a family of splits. The graph itself never depends on it.
        features: ``"sparse"``, ``"dense"``, ``"auto"`` (sparse if wide and mostly zero), or
            ``"none"``, which needs no raw file of features.
        undirected: Whether every edge gets its reverse; by default as the card says.
        store: Keep the parsed arrays as memory-mapped files in the cache folder; ``"auto"`` does so
            for raw files above 4 MiB. Such tensors are paged in as they are read.
        download: Whether missing raw files may be downloaded.

    Returns:
        A checked graph.

    Raises:
        InputError: If the name or the split is not known.
        DataError: If raw files are missing, corrupt, unsafe, or disagree with the card.
    """
    card, folder = cards.card(name), _root_of(name, root)
    split_id = resolve_split(card, split, seed)
    rules = _rules(card, undirected)
    if card.format == "synthetic":
        graph = _generate(card)
    else:
        _ensure_files(card.files_for(split_id, features != "none"), card, folder, download)
        graph = _from_files(card, folder, rules, features, store)
    check_counts(card, graph, rules.undirected)
    return graph if split_id is None else _split(graph, card, folder, split_id, seed)


def resplit(
    graph: Graph,
    name: str,
    root: str | os.PathLike | None = None,
    split: str | None = None,
    *,
    seed: int = 0,
) -> Graph:
    """A loaded graph under another split of its data set, without reading the graph again.

    Args:
        graph: From :func:`load`, possibly transformed; its nodes must still be those of the raw
            files.
        name: As in :func:`load`, likewise ``root``, ``split`` and ``seed``.
        root: See ``name``.
        split: See ``name``.
        seed: See ``name``.

    Returns:
        The same structure, features and labels.

    Raises:
        InputError: If the split is not known.
        DataError: If its files are missing or corrupt.
    """
    card, folder = cards.card(name), _root_of(name, root)
    split_id = resolve_split(card, split, seed)
    _ensure_files([f for f in card.files_for(split_id) if f.schemes], card, folder, True)
    return graph if split_id is None else _split(graph, card, folder, split_id, seed)


def _split(graph: Graph, card: Card, folder: Path, split_id: str, seed: int) -> Graph:
    chosen = make_split(graph, card, folder, split_id, seed).to(graph.device)
    try:
        check_split(graph, chosen)
    except InputError as error:
        raise DataError(f"split {split_id} of {card.name}: {error}") from error
    return graph.with_split(chosen)


def resolve_split(card: Card, split: str | None, seed: int) -> str | None:
    """The id of the split meant: the card's default, or the member of a family that the seed picks.

    Raises:
        InputError: If the data set has no such split; lists those it has.
    """
    split = card.default_split if split is None else split
    if split is None:
        return None
    scheme = card.schemes.get(split)
    if scheme is not None and scheme.count:
        return scheme.ids[seed % scheme.count]
    check_split_id(card, split)
    return split


def _root_of(name: str, root: str | os.PathLike | None) -> Path:
    own = root is None and name.endswith(".toml")
    return Path(name).resolve().parent if own else data_root(root)


def _raw_paths(card: Card, root: Path, layout: Layout) -> list[Path]:
    """The files that a store depends on: those listed, or all that lie there if none are."""
    if card.files:
        return [root / f.path for f in card.files_for(None, layout != "none")]
    folders = (root / card.folder, root / card.folder / "raw")
    return [path for f in folders if f.is_dir() for path in f.iterdir() if path.is_file()]


def _rules(card: Card, undirected: bool | None) -> Rules:
    both = card.undirected if undirected is None else undirected
    return Rules(undirected=both, coalesce=card.coalesce, drop_loops=card.drop_loops)


def _generate(card: Card) -> Graph:
    options = dict(card.reader)
    key = Key(options.pop("seed", 0)).fold(card.name)
    return generate(options.pop("model"), key=key, name=card.name, **options)


def _ensure_files(needed, card: Card, root: Path, allowed: bool) -> None:
    missing = [file for file in needed if not (root / file.path).exists()]
    if missing:
        fetch_all(card, missing, root, allowed)


def _from_files(card: Card, root: Path, rules: Rules, layout: Layout, use_store) -> Graph:
    paths = _raw_paths(card, root, layout)
    if use_store == "auto":
        use_store = sum(p.stat().st_size for p in paths) >= STORE_FROM
    if use_store:
        graph = _from_store(card, root, rules, layout, paths)
        if graph is not None:
            return graph
    arrays = assemble(readers.read(card, root, layout != "none"), rules, layout)
    return _checked(graph_of(card, {k: torch.from_numpy(v) for k, v in arrays.items()}))


def _from_store(card: Card, root: Path, rules: Rules, layout: Layout, paths: list[Path]):
    """The graph out of the store, built now if need be; ``None`` if the cache cannot hold it."""

    def build(allocate, scratch) -> dict:
        arrays = assemble(
            readers.read(card, root, layout != "none"), rules, layout, allocate, scratch
        )
        _checked(graph_of(card, {k: torch.from_numpy(v) for k, v in arrays.items()}))
        return arrays

    tensors = open_or_build(card.name, identity(card, rules, layout, paths), build)
    return None if tensors is None else graph_of(card, tensors)


def _checked(graph: Graph) -> Graph:
    try:
        return graph.check()
    except DataError:
        raise
    except GraphdynError as error:
        raise DataError(f"{graph.name}: {error}") from error
