"""The one exception that users meet: a sentence that says what was asked, what was found and what to do."""

import difflib
from collections.abc import Iterable


class MonadnockError(Exception):
    """Bad input or an impossible request, told in one sentence; the command line prints it and exits with 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a clause naming the known names that are closest to `name`, or all of them if none is close.

    Example:
        >>> nearest("lama", ["llama", "opt"])
        'did you mean llama?'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error; the next one too where the first only announces it."""
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, KeyError):
        return f"{type(error).__name__} {error}".strip()
    return " ".join(line.strip() for line in lines[: 1 + lines[0].rstrip().endswith(":")]).rstrip(".")
