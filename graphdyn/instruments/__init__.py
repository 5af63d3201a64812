"""Instruments, one quantity a file; each says when it is valid."""

from graphdyn.instruments.instrument import Instrument, Need

__all__ = ["Instrument", "Need"]
