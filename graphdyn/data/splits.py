"""Splits: those that come with the data, and random ones as a function of a seed.

Every split has an id that names scheme, index and seed, and asking for that id gives it again:
``public``, ``geom-gcn-3``, ``random-20x500x1000-seed7`` (20 training nodes a class, then 500
validation and 1000 test nodes), ``random-0.6-0.2-0.2-seed0`` (shares of the labelled nodes),
``torch-20x500x1000-seed123`` (per class too, but drawn with torch's own generator in the order of published scripts).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphdyn.data import readers
from graphdyn.data.cards import Card, Scheme
from graphdyn.data.parts import reading, reading_npz
from graphdyn.errors import DataError, InputError
from graphdyn.graph import Graph, Split
from graphdyn.keys import Key

Ids = tuple[np.ndarray, np.ndarray, np.ndarray]
PER_CLASS = re.compile(r"random-(\d+)x(\d+)x(\d+|rest)(?:-seed(\d+))?")
TORCH = re.compile(r"torch-(\d+)x(\d+)x(\d+)(?:-seed(\d+))?")
RATIO = re.compile(r"random-(0?\.\d+)-(0?\.\d+)-(0?\.\d+)(?:-seed(\d+))?")


def check_split_id(card: Card, split: str) -> None:
    """Raise :class:`InputError`, listing the valid ids, if a data set has no such split."""
    if split in card.split_ids or any(p.fullmatch(split) for p in (PER_CLASS, TORCH, RATIO)):
        return
    schemes = [f"{s.ids[0]} .. {s.ids[-1]}" if s.count else s.name for s in card.schemes.values()]
    generic = [
        "random-20x500x1000 (per class x valid x test)",
        "torch-20x500x1000 (the same, drawn by torch)",
        "random-0.6-0.2-0.2 (ratios)",
    ]
    raise InputError(f"{card.name} has no split '{split}'; valid: {', '.join(schemes + generic)}.")


def make_split(graph: Graph, card: Card, root: Path, split: str, seed: int = 0) -> Split:
    """The split of a graph with a given id.

    Args:
        graph: With labels.
        card: Its card.
        root: Data root, for splits that come with the data.
        split: An id, see the module.
        seed: For random splits whose id names none.

    Raises:
        InputError: If the data set has no such split or is too small for it.
        DataError: If the split's file is missing or corrupt.
    """
    check_split_id(card, split)
    scheme = card.scheme_of(split)
    if scheme is not None:
        ids = _READ[scheme.read](card, root, scheme, scheme.ids.index(split))
        train, valid, test = (torch.from_numpy(np.sort(part).astype(np.int64)) for part in ids)
        return Split(train, valid, test, split)
    return random_split(graph, split, seed)


def random_split(graph: Graph, split: str, seed: int = 0) -> Split:
    """A random split of the labelled nodes.

    Args:
        graph: With labels.
        split: ``random-AxBxC`` (A training nodes a class, B validation, C or ``rest`` test nodes),
            ``torch-AxBxC`` (see :func:`torch_per_class`) or ``random-a-b-c`` (shares of the labelled
            nodes), optionally followed by ``-seedN``.
        seed: Used where the id names none.

    Raises:
        InputError: If the id is neither, or the graph is too small or has no labels.
    """
    if match := PER_CLASS.fullmatch(split):
        train, valid, test, own = match.groups()
        key = Key(int(own or seed)).fold("split")
        size = None if test == "rest" else int(test)
        return random_per_class(graph, int(train), int(valid), size, key)
    if match := TORCH.fullmatch(split):
        train, valid, test, own = match.groups()
        return torch_per_class(graph, int(train), int(valid), int(test), int(own or seed))
    if match := RATIO.fullmatch(split):
        *shares, own = match.groups()
        key = Key(int(own or seed)).fold("split")
        return random_by_ratio(graph, tuple(float(s) for s in shares), key)
    raise InputError(
        f"'{split}' is not a random split; write random-20x500x1000 or random-0.6-0.2-0.2."
    )


def random_per_class(graph: Graph, train: int, valid: int, test: int | None, key: Key) -> Split:
    """As many training nodes of every class, the rest of the labelled nodes shuffled.

    Args:
        graph: With one class a node.
        train: Training nodes a class.
        valid: Validation nodes in all.
        test: Test nodes in all; ``None`` for all that are left.
        key: Randomness; its seed becomes part of the id.

    Raises:
        InputError: If a class or the graph is too small.
    """
    order = _shuffled_labelled(graph, key)
    if graph.task == "multilabel" or graph.y is None:
        raise InputError("a split per class needs one class a node; use random-0.6-0.2-0.2.")
    y = graph.y[order]
    counts = torch.bincount(y, minlength=graph.num_classes)
    small = torch.nonzero((counts > 0) & (counts < train)).flatten()
    if small.numel():
        c = int(small[0])
        raise InputError(f"class {c} has {int(counts[c])} labelled nodes; {train} are asked for.")
    # Nodes of a class stay in shuffled order under a stable sort, so the first ones are a sample.
    by_class = torch.argsort(y, stable=True)
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    chosen = torch.zeros(order.numel(), dtype=torch.bool)
    chosen[by_class[torch.arange(order.numel()) - start < train]] = True
    rest = order[~chosen]
    size = rest.numel() - valid if test is None else test
    if size < 0 or valid + size > rest.numel():
        raise InputError(f"{rest.numel()} labelled nodes are left; {valid} + {size} asked for.")
    name = f"random-{train}x{valid}x{'rest' if test is None else test}-seed{key.seed}"
    return _split(order[chosen], rest[:valid], rest[valid : valid + size], name)


def torch_per_class(graph: Graph, train: int, valid: int, test: int, seed: int) -> Split:
    """As many training nodes of every class, drawn as ``torch.manual_seed(seed)`` scripts draw them.

    The split of "Classic GNNs are Strong Baselines" (Luo, Shi & Wu 2024) on the citation graphs: one
    ``torch.randperm`` a class, in the order of the classes, then one of all nodes that are left, class
    after class. For comparison with figures on such a split; it depends on torch's generator.

    Args:
        graph: With one class a node.
        train: Training nodes a class.
        valid: Validation nodes in all.
        test: Test nodes in all.
        seed: Of torch's CPU generator.

    Raises:
        InputError: If a class or the graph is too small.
    """
    if graph.task == "multilabel" or graph.y is None:
        raise InputError("a split per class needs one class a node; use random-0.6-0.2-0.2.")
    generator, y = torch.Generator().manual_seed(seed), graph.y.cpu()
    chosen, rest = [], []
    for c in range(graph.num_classes):
        nodes = torch.nonzero(y == c).flatten()
        if nodes.numel() < train:
            raise InputError(
                f"class {c} has {nodes.numel()} labelled nodes; {train} are asked for."
            )
        nodes = nodes[torch.randperm(nodes.numel(), generator=generator)]
        chosen.append(nodes[:train])
        rest.append(nodes[train:])
    left = torch.cat(rest)
    if valid + test > left.numel():
        raise InputError(f"{left.numel()} labelled nodes are left; {valid} + {test} asked for.")
    left = left[torch.randperm(left.numel(), generator=generator)]
    name = f"torch-{train}x{valid}x{test}-seed{seed}"
    return _split(torch.cat(chosen), left[:valid], left[valid : valid + test], name)


def random_by_ratio(graph: Graph, shares: tuple[float, ...], key: Key) -> Split:
    """Shares of the labelled nodes, shuffled; rounded down, what is left over goes to test.

    Raises:
        InputError: If the shares exceed 1, or a part would be empty.
    """
    total = sum(shares)
    if total > 1 + 1e-9:
        raise InputError(f"the shares {shares} add up to {total:g}; at most 1 is possible.")
    order = _shuffled_labelled(graph, key)
    n = order.numel()
    # 1e-9 so that 0.6 * 2485 does not fall below the integer it stands for.
    a, b = int(shares[0] * n + 1e-9), int(shares[1] * n + 1e-9)
    c = n - a - b if total > 1 - 1e-9 else int(shares[2] * n + 1e-9)
    if min(a, b, c) == 0:
        raise InputError(f"{n} labelled nodes are too few for the shares {shares}.")
    name = "random-" + "-".join(f"{s:g}" for s in shares) + f"-seed{key.seed}"
    return _split(order[:a], order[a : a + b], order[a + b : a + b + c], name)


def _shuffled_labelled(graph: Graph, key: Key) -> Tensor:
    if graph.y is None:
        raise InputError(f"{graph.name} has no labels; a random split needs some.")
    y = graph.y.cpu()
    known = ~torch.isnan(y).any(1) if graph.task == "multilabel" else y >= 0
    nodes = torch.nonzero(known).flatten()
    return nodes[torch.argsort(key.hash(nodes), stable=True)]


def _split(train: Tensor, valid: Tensor, test: Tensor, name: str) -> Split:
    return Split(train.sort().values, valid.sort().values, test.sort().values, name)


def _mask_file(card: Card, root: Path, scheme: Scheme, index: int) -> Ids:
    """One ``.npz`` a split with train_mask, val_mask, test_mask of shape (N,)."""
    path = root / scheme.file.format(index=index)
    with reading_npz(path) as file:
        train, valid, test = (file[f"{part}_mask"] for part in ("train", "val", "test"))
        return np.flatnonzero(train), np.flatnonzero(valid), np.flatnonzero(test)


def _mask_rows(card: Card, root: Path, scheme: Scheme, index: int) -> Ids:
    """The data set's ``.npz`` with train_masks, val_masks, test_masks of shape (splits, N)."""
    path = root / scheme.file
    with reading_npz(path) as file:
        train, valid, test = (file[f"{part}_masks"][index] for part in ("train", "val", "test"))
        return np.flatnonzero(train), np.flatnonzero(valid), np.flatnonzero(test)


def _index_file(card: Card, root: Path, scheme: Scheme, index: int) -> Ids:
    """One ``.npz`` a split with node ids train, valid, test."""
    path = root / scheme.file.format(index=index)
    with reading_npz(path) as file:
        return file["train"], file["valid"], file["test"]


def _index_dicts(card: Card, root: Path, scheme: Scheme, index: int) -> Ids:
    """One ``.npy`` holding a dictionary of node ids a split (LINKX, arxiv-year)."""
    from graphdyn.data.unpickle import load_object_array

    path = root / scheme.file
    splits = load_object_array(path)
    with reading(path):
        one = splits[index]
        train, valid, test = (np.array(one[p], np.int64) for p in ("train", "valid", "test"))
        return train, valid, test


def _csv_folder(card: Card, root: Path, scheme: Scheme, index: int) -> Ids:
    """A folder with train.csv.gz, valid.csv.gz, test.csv.gz of node ids (OGB)."""
    from graphdyn.data.tables import read_column

    folder = root / scheme.file
    train, valid, test = (read_column(folder / f"{p}.csv.gz") for p in ("train", "valid", "test"))
    return train, valid, test


def _by_reader(card: Card, root: Path, scheme: Scheme, index: int) -> Ids:
    """Formats whose split is stored in a way of their own."""
    reader = readers.module(card)
    if not hasattr(reader, "split_ids"):
        raise DataError(f"the format '{card.format}' of {card.name} stores no splits.")
    return reader.split_ids(card, root, index)


_READ: dict[str, Callable[[Card, Path, Scheme, int], Ids]] = {
    "reader": _by_reader,
    "mask-file": _mask_file,
    "mask-rows": _mask_rows,
    "index-file": _index_file,
    "index-dicts": _index_dicts,
    "csv-folder": _csv_folder,
}
