"""Write a page or another file for people: whole or not at all, and never over a file that is somebody else's."""

import contextlib
import uuid
from collections.abc import Iterable
from pathlib import Path

from monadnock.errors import MonadnockError

HEAD = 4096  # bytes in which a file of ours says what it is


def generator(verb: str) -> bytes:
    """Return what a page says of itself, by which it may be replaced.

    Example:
        >>> generator("map")
        b'<meta name="generator" content="monadnock map">'
    """
    return f'<meta name="generator" content="monadnock {verb}">'.encode()


def write_file(path: Path, parts: Iterable[bytes], *, what: str, verb: str, mark: bytes | None = None) -> Path:
    """Write a file in one step and return its path; an older one of the same verb is replaced, any other is left.

    Args:
        path: where; its folder has to be there.
        parts: of the file, one after the other.
        what: the file in a word, as page.
        verb: whose file it is.
        mark: what such a file has in its first 4,096 bytes; by default `generator(verb)`.

    Raises:
        MonadnockError: if another file or a folder is there, or it cannot be written.
    """
    check_replaceable(path, what=what, verb=verb, mark=mark)
    draft = path.with_name(f".{path.name[:64]}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("wb") as file:
            file.writelines(parts)
        draft.replace(path)
    except OSError as error:
        raise MonadnockError(f"The {what} could not be written to {path}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):  # where it could not be made, there is nothing to remove
            draft.unlink()
    return path


def check_replaceable(path: Path, *, what: str, verb: str, mark: bytes | None = None) -> None:
    """Raise a `MonadnockError` unless there is nothing at the path, or an older file of the same verb."""
    try:
        if not path.exists():
            return
        if path.is_dir():
            raise MonadnockError(f"{path} is a folder; give a file for the {what}.")
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        told = f"The {what} cannot be written to {str(path)[:80]}: {error.strerror or error}."
        raise MonadnockError(told) from error
    if (mark or generator(verb)) not in head:
        raise MonadnockError(
            f"{path} is there and is no {what} of `monadnock {verb}`; give another file with --out, or remove it."
        )
