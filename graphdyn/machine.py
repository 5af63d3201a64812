"""What the run ran on: device, versions, peak memory; and stopping it politely."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from graphdyn.errors import InputError
from graphdyn.parallel import World

PACKAGES = (
    "graphdyn",
    "torch",
    "torch-geometric",
    "numpy",
    "scipy",
    "numba",
    "pyarrow",
    "safetensors",
)


def pick_device(name: str, world: World = World()) -> torch.device:
    """``auto`` is CUDA where there is one; of several ranks each has the GPU with its local number.

    Raises:
        InputError: If the device is unknown, or asked for and absent.
    """
    if not world.alone and name.startswith("cuda:"):
        raise InputError(
            f"device '{name}' is one GPU, but there are {world.size} ranks; say cuda, and each takes its own."
        )
    if not world.alone and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        name = f"cuda:{world.local_rank}"
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device '{name}'; expected auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not supported; expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(
                f"device '{name}' was asked for, but torch {torch.__version__} sees {count} CUDA "
                "device(s); use --device cpu, or install a CUDA build of torch."
            )
    return device


def versions() -> dict[str, str]:
    """Python and the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s)"


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: on the GPU by torch, on the CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start from the peak of the process that started this one
        line = next(s for s in status.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: torch.device) -> None:
    """Let :func:`peak_memory` count from now; where the system cannot (it is not Linux), nothing happens.

    For processes that do one run after another, and nothing else.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had now; ``None`` where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    line = next((s for s in meminfo.read_text().splitlines() if s.startswith("MemAvailable")), "")
    return int(line.split()[1]) * 1024 if line else None


def check_memory(needed: int, device: torch.device) -> None:
    """Refuse what cannot fit, before anything is allocated.

    Raises:
        InputError: If the device has less free memory than is needed.
    """
    free = free_memory(device)
    if free is not None and needed > free:
        raise InputError(
            f"the memories of this method need {needed / 2**30:.1f} GiB, but {device} has "
            f"{free / 2**30:.1f} GiB free; use bfloat16 tables, a narrower model or another method."
        )


def reuse_memory() -> bool:
    """Let this process keep the memory that it frees, for its own next allocation.

    A training step on sampled batches frees and asks for hundreds of megabytes. By default glibc gives
    each large block back to the system, which must zero every page of the next one: about a sixth of a
    step on CPU. The price is that the process stays at its peak, and that its heap has holes: batches are
    of different sizes. It holds for the whole process and cannot be taken back; it changes no number.
    Who would rather have the smaller peak says so to glibc, ``MALLOC_MMAP_THRESHOLD_=1048576`` in the
    environment, and nothing is done here.

    Returns:
        Whether it took effect: Linux with glibc alone, unless the environment says otherwise.
    """
    if not sys.platform.startswith("linux") or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30)) and bool(mallopt(trim_threshold, (1 << 31) - 1))


@contextmanager
def settings(threads: int | None, deterministic: bool) -> Iterator[None]:
    """Torch's process-wide switches for the length of a run, put back afterwards."""
    before = torch.get_num_threads()
    mode = torch.are_deterministic_algorithms_enabled()
    if threads is not None:
        torch.set_num_threads(threads)
    if deterministic:
        # cuBLAS refuses deterministic mode without it, and reads it when CUDA starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(mode)


class Stop:
    """Whether somebody asked the run to stop."""

    requested = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let the first Ctrl-C or SIGTERM finish the epoch; the second Ctrl-C interrupts at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: Any) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
