"""Fixtures for all tests: where the real graphs lie, and one thread so that two cores stay quick."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Tests marked gpu run wherever a GPU is."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of raw files; under CI its absence is a failure, elsewhere a skip with advice."""
    root = os.environ.get("GRAPHDYN_DATA")
    if root and Path(root).is_dir():
        return Path(root)
    message = "set GRAPHDYN_DATA to a folder of raw files (see README, 'Data') to run this test"
    if os.environ.get("CI"):
        pytest.fail(f"real graphs are missing under CI: {message}")
    pytest.skip(message)
