"""Tiles: what a code becomes, what it takes, and how many bits are kept."""

import base64
import zlib

import numpy as np
import pytest

from monadnock.explorer.tiles import HOPELESS, LEAST, MOST, bits_for, places, planes, tile, tiles
from tests.explorer import planted


def opened(data, count):
    size = (np.frombuffer(data, np.uint8)[:count] & 127).astype(int)
    for plane in np.frombuffer(data, np.uint8)[count:].reshape(-1, -(-count // 8)):
        size = 2 * size + np.unpackbits(plane)[:count]
    return np.where(np.frombuffer(data, np.uint8)[:count] & 128, -size, size)


@pytest.mark.parametrize("bits", range(LEAST, MOST + 1))
def test_planes_keep_the_nearest_step(bits):
    codes = np.array([*range(-32767, 32768, 7), -32767, 0, 1, 32767], np.int16)
    step = 32767 / (2**bits - 1)
    back = opened(planes(codes[None], bits), codes.size) * step
    assert np.abs(back - codes).max() <= step / 2
    assert back[-4:].tolist() == pytest.approx([-32767, 0, 1 if bits == MOST else 0, 32767])
    if bits == MOST:
        np.testing.assert_array_equal(back, codes)


def test_tiles_cover_a_matrix_once():
    codes = np.arange(300 * 520, dtype=np.int16).reshape(300, 520)
    found = dict(tiles(codes, MOST))
    assert list(found) == places(codes.shape) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    last = opened(zlib.decompress(base64.b64decode(found[1, 2]), -15), 44 * 8)
    np.testing.assert_array_equal(last, codes[256:, 512:].ravel())


def test_gaussian_weights_take_about_their_entropy():
    codes = planted.arrays(planted.gaussian(256, 8192))["codes"]
    size = sum(len(tile(codes, (0, place), 8)) for place in range(32))
    assert size * 0.75 * 8 / codes.size < 8.25  # sign, and 255 steps of which the outer ones are rare


def test_as_many_bits_are_kept_as_there_is_room_for():
    codes = planted.arrays(planted.gaussian(512, 512))["codes"]
    whole = {bits: sum(len(data) for _, data in tiles(codes, bits)) for bits in (MOST, 11, 10, LEAST)}
    assert bits_for(codes, 10 * whole[MOST]) == MOST
    assert bits_for(codes, whole[MOST] + 1000) == MOST
    assert bits_for(codes, (whole[11] + whole[10]) // 2) == 10
    assert bits_for(codes, whole[LEAST] + 1000) == LEAST
    assert bits_for(codes, 10) == HOPELESS
