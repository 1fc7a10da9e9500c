"""Rows of a .json or .jsonl file that a user gives."""

import json
from pathlib import Path
from typing import Any

from monadnock.errors import MonadnockError


def read_rows(path: Path, what: str) -> list[Any]:
    """Read a list of anything from a .json file, or from the lines of a .jsonl file.

    Args:
        path: the file.
        what: what its rows are, for what is said if there are none.

    Raises:
        MonadnockError: if it cannot be read, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error.strerror})"
        raise MonadnockError(f"{path} {reason}; give a .json or .jsonl file of {what}.") from error
    try:
        whole = json.loads(text)
    except RecursionError as error:
        raise MonadnockError(f"{path} is nested too deeply; give a .json or .jsonl file of {what}.") from error
    except ValueError:
        lines = enumerate(text.split("\n"), 1)  # and at no other sign: texts may hold U+2028
        return [_line(line, f"line {number} of {path}") for number, line in lines if line.strip()]
    if isinstance(whole, dict):  # a .jsonl file of one line
        whole = [whole]
    if not isinstance(whole, list):
        raise MonadnockError(f"{path} holds no list of {what}.")
    return whole


def _line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MonadnockError(f"{where} is no JSON ({error}).") from error
