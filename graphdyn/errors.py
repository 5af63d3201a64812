"""What can go wrong, said in one sentence: what was given, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GraphdynError(Exception):
    """Base of all errors that graphdyn raises on purpose; the message is one clear sentence.

    Attributes:
        told: Whether another rank of a parallel run says it, so that this one need not.
    """

    told: bool = False


class InputError(GraphdynError, ValueError):
    """Something the caller gave cannot be used. The command line ends with exit code 2."""


class DataError(InputError):
    """A raw file is missing, truncated, corrupt, unsafe, or disagrees with its card."""


class RecordError(InputError):
    """A run folder cannot be used: another configuration lies there, or it cannot be written."""


class LockedError(RecordError):
    """Another process is writing the folder."""


class Interrupted(GraphdynError):
    """The user stopped the run; the run folder can be resumed. Exit code 130."""


class RankLost(GraphdynError):
    """Another process of a parallel run went away or does not answer; nothing more can be exchanged."""


def unknown(kind: str, given: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not known, with the nearest names that are.

    Args:
        kind: What the name should be, for example ``"data set"``.
        given: The name as given.
        known: All valid names.

    Returns:
        An error to raise.
    """
    names = list(known)
    close = difflib.get_close_matches(given.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}."
    return InputError(f"unknown {kind} '{given}'; {hint}")
