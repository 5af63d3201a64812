"""Where things lie on this machine: the data root and the cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder for graphdyn (``$XDG_CACHE_HOME/graphdyn`` or the platform's own)."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser() / "graphdyn"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphdyn"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "graphdyn"
    return Path.home() / ".cache" / "graphdyn"


def data_root(root: str | os.PathLike | None = None) -> Path:
    """The folder of raw files: the argument, else ``$GRAPHDYN_DATA``, else one in the cache."""
    chosen = root or os.environ.get("GRAPHDYN_DATA")
    return Path(chosen).expanduser() if chosen else cache_folder() / "raw"
