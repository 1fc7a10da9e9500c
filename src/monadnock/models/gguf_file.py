"""Reads the header of a GGUF file once and fast while a model loads; transformers reads it three times, slowly.

A vocabulary of 262,144 tokens is a million small entries in the header. What transformers asks of the `gguf` package is
answered from one reading; if it stops asking that way, or the header is laid out in a way unknown here, loading is
slow, not wrong.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np

_LOADING = threading.RLock()  # gguf's names are the whole process's, so GGUF files load one after the other
_headers: dict[tuple[int, ...], "_FastReader"] = {}


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Within, a `gguf.GGUFReader` of a file that was read before takes over what was found then.

    Example:
        >>> with read_once():
        ...     first, second = gguf.GGUFReader("model.gguf"), gguf.GGUFReader("model.gguf")  # doctest: +SKIP
    """
    with _LOADING:
        reader, name_map = gguf.GGUFReader, gguf.get_tensor_name_map
        gguf.GGUFReader = _SharedReader
        # transformers asks for the same map of names once for each module of the model, and only looks names up in it
        gguf.get_tensor_name_map = functools.cache(name_map)
        try:
            yield
        finally:
            gguf.GGUFReader, gguf.get_tensor_name_map = reader, name_map
            _headers.clear()


class _SharedReader(gguf.GGUFReader):
    """gguf's reader, or what stands for it; a subclass, so that it still is one to whoever asks."""

    def __init__(self, path: os.PathLike[str] | str, mode: Any = "r"):
        try:
            header = _header(path) if mode == "r" else None
        except Exception:  # gguf's own reader has the last word on a file, and says what is wrong with it
            header = None
        if header is None:
            super().__init__(path, mode)
        else:
            vars(self).update(vars(header))


def _header(path: os.PathLike[str] | str) -> "_FastReader":
    file = os.stat(path)  # noqa: PTH116 (what is no path has no Path either)
    key = file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns
    header = _headers.get(key) or _FastReader(path)
    if gguf.GGUFReader is _SharedReader:  # whoever kept our reader beyond the load gets headers that nobody holds
        _headers[key] = header
    return header


class _FastReader(gguf.GGUFReader):
    """gguf's reader, which takes an array of a header as one piece and not as a field for each element."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type != gguf.GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        element, length, start = gguf.GGUFValueType(kind[0]), int(count[0]), orig_offs + 12
        if element == gguf.GGUFValueType.STRING:
            parts, end = self._strings(start, length, count.dtype)
            data = range(3, 3 + 2 * length, 2)  # each string after its length, behind `kind` and `count`
        else:
            values = self._get(start, self.gguf_scalar_to_np[element], length)
            parts, end = [*np.asarray(values).reshape(length, 1)], start + values.nbytes  # fails where some are lacking
            data = range(2, 2 + length)
        return end - orig_offs, [kind, count, *parts], list(data), [gguf.GGUFValueType.ARRAY] + [element] * (length > 0)

    def _strings(self, start: int, count: int, size: np.dtype) -> tuple[list[np.ndarray], int]:
        # A slice of a memory map costs several times one of a plain array over the same bytes.
        plain, parts = np.asarray(self.data), []
        for _ in range(count):
            length = plain[start : start + 8].view(size)
            text = plain[start + 8 : start + 8 + int(length[0])]
            parts += (length, text)
            start += 8 + len(text)
        return parts, start
