"""Raw files from their official addresses: resumed after a break, checked, renamed when whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from graphdyn.data.cards import Card, RawFile
from graphdyn.errors import DataError

CHUNK = 1 << 18
ATTEMPTS = 4
TIMEOUT = 60  # seconds without a byte


def fetch_all(card: Card, files: list[RawFile], root: Path, allowed: bool = True) -> None:
    """Download raw files of a data set to where they belong under the data root.

    Raises:
        DataError: If downloading is not allowed or fails, a file has no address, or its SHA-256 is
            another than the card's. Says the address and the folder.
    """
    for file in files:
        target = root / file.path
        if target.exists():  # it came out of the same archive as an earlier one
            continue
        if file.url is None:
            raise DataError(f"{card.name} needs {target}, which has no public address; {card.note}")
        if not allowed:
            raise DataError(
                f"{card.name} needs {target}; download {file.url} or allow downloading "
                f"(`graphdyn data get {card.name}`)."
            )
        _fetch_one(card, file, files, root)


def _fetch_one(card: Card, file: RawFile, files: list[RawFile], root: Path) -> None:
    assert file.url is not None
    target = root / file.path
    try:
        if file.member is None:
            fetch(file.url, target, file.sha256)
            return
        archive = root / card.folder / file.url.rsplit("/", 1)[-1]
        fetch(file.url, archive, None)
        extract(archive, [f for f in files if f.url == file.url], root)
        archive.unlink()
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise DataError(
            f"{file.url} could not be downloaded to {target} ({reason}); "
            f"download it by hand to that place, or set GRAPHDYN_DATA to a folder that has it."
        ) from error


def fetch(url: str, target: Path, sha256: str | None = None) -> None:
    """Download one file; go on where an earlier try stopped.

    Args:
        url: http, https or file.
        target: Where the file is renamed to when it is whole and right.
        sha256: Hex digest to check, if known.

    Raises:
        DataError: If the digest differs; the wrong file is removed.
        OSError: If the address cannot be reached or the disk not written.
    """
    missing = [f for f in (target.parent, *target.parent.parents) if not f.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with part.open("ab") as out, _alone(out.fileno()):
        if target.exists():  # another process was first
            part.unlink(missing_ok=True)
            return
        for attempt in range(ATTEMPTS):
            try:
                _receive(url, out)
                break
            except (OSError, http.client.HTTPException) as error:
                out.flush()
                if attempt == ATTEMPTS - 1 or not _worth_retrying(error):
                    if os.path.getsize(part) == 0:
                        part.unlink()
                        _remove_empty(missing)
                    raise error if isinstance(error, OSError) else OSError(repr(error)) from error
                time.sleep(0.5 * 2**attempt)
        out.flush()
        check_digest(part, sha256, url)
        part.replace(target)


def _remove_empty(folders: list[Path]) -> None:
    """Those that nothing came to lie in, deepest first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def check_digest(path: Path, sha256: str | None, origin: str) -> None:
    """Remove a downloaded file and raise :class:`DataError` if its SHA-256 is not the one known."""
    if sha256 is None:
        return
    got = digest(path)
    if got != sha256:
        path.unlink()
        raise DataError(
            f"{origin} gave a file with SHA-256 {got[:16]}..., but the card says {sha256[:16]}...; "
            "it was removed. Try again; if it stays so, the source has changed."
        )


def digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Path, files: list[RawFile], root: Path) -> None:
    """Take single members out of a zip, each to its own path under the data root.

    No name inside the archive ever becomes a path, so none can point outside the root.

    Raises:
        DataError: If the archive is corrupt (it is removed) or lacks a member.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            for file in files:
                target = root / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(target.name + ".part")
                with bundle.open(file.member or "") as source, part.open("wb") as out:
                    shutil.copyfileobj(source, out, CHUNK)
                check_digest(part, file.sha256, f"{archive}:{file.member}")
                part.replace(target)
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise DataError(f"{archive} is not a whole zip file; it was removed, try again.") from error
    except KeyError as error:
        raise DataError(f"{archive} has no member {error}; its source has changed.") from error


def _worth_retrying(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code == 429
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, TimeoutError)
    return isinstance(error, (http.client.HTTPException, ConnectionError, TimeoutError))


def _receive(url: str, out) -> None:
    """Append what is missing to ``out``; raise if the connection ends before the file does."""
    have = out.seek(0, os.SEEK_END)
    request = urllib.request.Request(quote(url, safe=":/?&=%+~,"))
    request.add_header("User-Agent", "graphdyn")
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not have:
            raise
        out.truncate(0)  # the part is no shorter than the file, so it is of another one
        return _receive(url, out)
    with response:
        if have and response.status != 206:
            out.truncate(0)
            have = 0
        rest = response.headers.get("Content-Length")
        total = None if rest is None else have + int(rest)
        with _progress(url.rsplit("/", 1)[-1], have, total) as advance:
            while piece := response.read(CHUNK):
                out.write(piece)
                have += len(piece)
                advance(len(piece))
        if total is not None and have < total:
            raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")
    return None


@contextmanager
def _progress(name: str, have: int, total: int | None) -> Iterator:
    """A bar with speed and time left on a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total, completed=have)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Hold the part file, so that parallel runs wait for one download instead of mixing theirs."""
    try:
        import fcntl
    except ImportError:  # Windows: a digest still tells a mixed file
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
