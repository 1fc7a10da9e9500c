"""What a folder's weights are stored in: the index and each shard's header are looked at before anything is loaded."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from monadnock.errors import MonadnockError, first_line

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # transformers takes the first that is there
_PICKLE_INDEX = "pytorch_model.bin.index.json"
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Stored:
    """The safetensors that are loaded from a folder.

    Attributes:
        sizes: for each dtype, as safetensors names it, how many values there are.
        matrices: dtypes of what has two dimensions or more.
    """

    sizes: dict[str, int]
    matrices: frozenset[str]

    def bytes_as(self, dtype: torch.dtype) -> int:
        """Return how much memory the weights take as a dtype; floats of 8 bits are turned into it, too."""
        return sum(
            count * (dtype.itemsize if name in _FLOATS or name.startswith("F8") else 1)
            for name, count in self.sizes.items()
        )

    def widest(self) -> torch.dtype | None:
        """Return the dtype that holds every matrix as it is stored, at most float32; None if none is of floats."""
        found: torch.dtype | None = None
        for kind in (_FLOATS[name] for name in self.matrices if name in _FLOATS):
            found = kind if found is None else torch.promote_types(found, kind)
        return torch.float32 if found is torch.float64 else found


def look_at(folder: Path) -> Stored | None:
    """Read the index and the headers of the safetensors in a model folder; None if it holds a pickle.

    Raises:
        MonadnockError: if there are no weights, if the index is broken or points outside the folder, or if a shard is
            missing, cut short or damaged; with the file's name.
    """
    shards = {name: _shards(folder, name) for name in (INDEX, _PICKLE_INDEX) if (folder / name).is_file()}
    if any(folder.glob("*.safetensors")) or INDEX in shards:
        names = [SINGLE] if (folder / SINGLE).is_file() else shards.get(INDEX, [])
        return _headers(folder, names)
    if any(folder.glob("pytorch_model*.bin")):
        return None
    raise MonadnockError(f"{folder} holds a config.json but no weights (*.safetensors or pytorch_model*.bin).")


def _shards(folder: Path, name: str) -> list[str]:
    """Return the names of the files that an index names."""
    try:
        content: Any = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: what is no JSON, or no text
        raise _broken(folder, name, f"it is not JSON ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise _broken(folder, name, f"it is a {type(content).__name__}, not an object with a weight_map")
    for key in ("metadata", "weight_map"):
        if not isinstance(content.get(key), dict):
            raise _broken(folder, name, f"it has no object {key}")
    found = list(content["weight_map"].values())
    if strange := [each for each in found if not isinstance(each, str)]:
        raise _broken(folder, name, f"its weight_map has {strange[0]!r:.40} for a file's name")
    for each in found:
        if Path(each).name != each or each == "..":
            raise MonadnockError(f"{folder / name} points outside its folder ({each}); it is not read.")
    if not found:
        raise _broken(folder, name, "its weight_map names no weights")
    return sorted(set(found))


def _broken(folder: Path, name: str, found: str) -> MonadnockError:
    return MonadnockError(f"{folder} could not be loaded: {name} cannot be used: {found}; fetch that file again.")


def _headers(folder: Path, names: list[str]) -> Stored:
    """Open each file, which reads its header and compares it with the file's size."""
    sizes: dict[str, int] = {}
    matrices: set[str] = set()
    unread = f"{folder} could not be loaded: its weights cannot be read"
    for name in names:
        if not (folder / name).is_file():
            raise MonadnockError(f"{unread}: {INDEX} names {name}, which is not there; fetch that file.")
        try:
            with safe_open(folder / name, framework="pt") as file:
                for tensor in file.keys():  # noqa: SIM118 (it is no dict)
                    part = file.get_slice(tensor)
                    dtype, shape = part.get_dtype(), part.get_shape()
                    sizes[dtype] = sizes.get(dtype, 0) + math.prod(shape)
                    if len(shape) > 1:
                        matrices.add(dtype)
        except Exception as error:  # safetensors has exceptions of its own, beside the system's
            size = (folder / name).stat().st_size
            raise MonadnockError(
                f"{unread}: {name} ({size} bytes) was cut short or is damaged ({first_line(error)}); fetch that file "
                "again."
            ) from error
    return Stored(sizes, frozenset(matrices))
