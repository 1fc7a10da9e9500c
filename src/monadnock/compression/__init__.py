"""Compression: weights rounded to few bits, each matrix by itself."""

from monadnock.compression.spqr import Rounded, Setting, round_spqr

__all__ = ["Rounded", "Setting", "round_spqr"]
