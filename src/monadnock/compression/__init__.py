"""Compression: weights rounded to few bits or set to 0, what that costs, and what keeps the cost low."""

from monadnock.compression.applying import Compressed, compressed
from monadnock.compression.checkpoint import load_packed
from monadnock.compression.measuring import compress
from monadnock.compression.method import METHODS, Method
from monadnock.compression.spqr import Rounded, Setting, round_spqr

__all__ = [
    "METHODS",
    "Compressed",
    "Method",
    "Rounded",
    "Setting",
    "compress",
    "compressed",
    "load_packed",
    "round_spqr",
]
