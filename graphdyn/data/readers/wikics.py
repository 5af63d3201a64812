"""WikiCS (Mernyei, Cangea 2020): one JSON with features, labels, links and masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from graphdyn.data.cards import Card
from graphdyn.data.parts import Parts, reading, whole


def read(card: Card, root: Path) -> Parts:
    """Read ``raw/data.json`` of the card's folder.

    Raises:
        DataError: If the file is missing or corrupt.
    """
    path = root / card.folder / "raw" / "data.json"
    with reading(path):
        content = json.loads(path.read_text())
        links = content["links"]
        count = [len(targets) for targets in links]
        src = np.repeat(np.arange(len(links)), count)
        dst = np.fromiter((v for targets in links for v in targets), np.int64, count=sum(count))
        x, y = np.array(content["features"], np.float32), np.array(content["labels"], np.int64)
    return Parts(len(y), whole(src, dst), x, y)


def split_ids(card: Card, root: Path, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One of 20 splits into train and validation; the test nodes are the same in all."""
    path = root / card.folder / "raw" / "data.json"
    with reading(path):
        content = json.loads(path.read_text())
        masks = content["train_masks"][index], content["val_masks"][index], content["test_mask"]
        train, valid, test = (np.flatnonzero(mask) for mask in masks)
        return train, valid, test
