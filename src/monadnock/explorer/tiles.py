"""Codes of weights cut into tiles, each compressed by itself, and how many bits of them the page has room for."""

import base64
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from monadnock.explorer.weights import LEVELS

SIDE = 256  # weights on a side of a tile
MOST, LEAST = 15, 7  # bits of |code| that a tile keeps, beside the sign
HOPELESS = 8  # bits that are kept of a matrix for which there is not enough room anyway
_TOP = 7  # of them share a byte with the sign
_SAMPLES = 6  # tiles that are compressed to see what all will take


def places(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the rows and columns of tiles of a matrix, row by row."""
    down, across = (-(-length // SIDE) for length in shape)
    return [(row, column) for row in range(down) for column in range(across)]


def planes(codes: np.ndarray, bits: int) -> bytes:
    """Return a tile's codes as planes: a byte of sign and 7 highest bits for each weight, then bit by bit the others.

    Args:
        codes: int16, [row, column], from -32767 to 32767.
        bits: of |code| that are kept: it becomes the nearest of 2^bits - 1 even steps.

    Example:
        >>> planes(np.array([[-32767, 0]], np.int16), 8)
        b'\\xff\\x00\\x80'
    """
    size = np.abs(codes.ravel().astype(np.int32))
    if bits < MOST:
        size = (size * (2**bits - 1) + LEVELS // 2) // LEVELS
    low = bits - _TOP
    head = (size >> low).astype(np.uint8) | np.where(codes.ravel() < 0, 128, 0).astype(np.uint8)
    tail = [np.packbits(((size >> bit) & 1).astype(np.uint8)).tobytes() for bit in range(low - 1, -1, -1)]
    return b"".join([head.tobytes(), *tail])


def packed(data: bytes) -> bytes:
    """Return bytes compressed (raw deflate, which finds repeated bytes only: weights hold no longer repeats), base64.

    Example:
        >>> zlib.decompress(base64.b64decode(packed(b"aaaa")), -15)
        b'aaaa'
    """
    press = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
    return base64.b64encode(press.compress(data) + press.flush())


def tile(codes: np.ndarray, place: tuple[int, int], bits: int) -> bytes:
    """Return one tile of a matrix's codes as it stands in the page."""
    row, column = (each * SIDE for each in place)
    return packed(planes(codes[row : row + SIDE, column : column + SIDE], bits))


def tiles(codes: np.ndarray, bits: int, workers: int = 2) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield the place of every tile and the tile as it stands in the page."""
    todo = places(codes.shape)
    with ThreadPoolExecutor(workers) as pool:  # zlib works beside the others
        yield from zip(todo, pool.map(lambda place: tile(codes, place, bits), todo), strict=True)


def bits_for(codes: np.ndarray, room: int) -> int:
    """Return the most bits of |code|, 7 to 15, with which all tiles fit into `room` bytes, base64; 8 if none does."""
    todo = places(codes.shape)
    if codes.size * 2 * 1.34 < room:
        return MOST
    chosen = todo[:: max(1, len(todo) // _SAMPLES)]
    for bits in range(MOST, LEAST - 1, -1):
        if sum(len(tile(codes, place, bits)) for place in chosen) / len(chosen) * len(todo) < room:
            return bits
    return HOPELESS
