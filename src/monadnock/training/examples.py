"""Instruction data: examples in alpaca or messages form, from a file or a data set, as conversations."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monadnock.data.chat import ROLES, Message
from monadnock.data.jsonl import read_rows
from monadnock.errors import MonadnockError


@dataclass(frozen=True)
class Examples:
    """Conversations, and where they came from.

    Attributes:
        source: the file's name or the data set.
        conversations: each a list of messages with role and content, the last one the assistant's.
    """

    source: str
    conversations: tuple[list[Message], ...]

    @property
    def label(self) -> str:
        """The examples in words, with the first digits of their hash."""
        digits = hashlib.sha256(json.dumps(self.conversations).encode()).hexdigest()[:8]
        return f"{self.source}, {len(self.conversations)} examples, {digits}"


def read_examples(data: str | Path) -> Examples:
    """Read examples from a .json or .jsonl file, or a data set of `datasets`.

    An example has `instruction`, `output` and maybe `input` and `system` (alpaca), or `messages`, a list of `role`
    (system, user, assistant) and `content` that ends with the assistant's.

    Args:
        data: a file, or `owner/name`, or `owner/name:config:split`; the split defaults to `train`.

    Raises:
        MonadnockError: if it cannot be read, has no examples, or one that is in neither form.
    """
    if not str(data):
        raise MonadnockError("No examples were named; give a .json or .jsonl file, or a data set.")
    path = Path(data)
    if path.suffix.lower() in (".json", ".jsonl") or path.exists():
        rows, source = read_rows(path, "examples"), path.name
    else:
        rows, source = _read_dataset(str(data)), str(data)
    found = tuple(_conversation(row, f"example {number} of {source}") for number, row in enumerate(rows, 1))
    if len(found) < 2:
        raise MonadnockError(f"{source} has {len(found)} examples; one is held back, and at least one has to be left.")
    return Examples(source, found)


def _read_dataset(name: str) -> Iterable[Any]:
    try:
        import datasets  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise MonadnockError(
            "Data sets need an extra: pip install -e '.[data]' in the clone, or give a file."
        ) from error
    path, config, split = [*name.split(":"), "", ""][:3]
    try:
        return list(datasets.load_dataset(path, config or None, split=split or "train"))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise MonadnockError(
            f"There is no file {name}, and the data set cannot be had: {reason}. Give a .json or .jsonl file, or "
            "owner/name:config:split."
        ) from error


def _conversation(row: Any, where: str) -> list[Message]:
    """Return an example as messages."""
    if isinstance(row, dict) and isinstance(row.get("messages"), list):
        messages = row["messages"]
        good = all(
            isinstance(each, dict) and each.get("role") in ROLES and isinstance(each.get("content"), str)
            for each in messages
        )
        if good and messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
            raise MonadnockError(f"{where} ends with an empty answer, of which nothing can be learned.")
        if not good or not messages or messages[-1]["role"] != "assistant":
            raise MonadnockError(
                f"{where} has messages that are not role ({', '.join(ROLES)}) and content, or do not end with the "
                "assistant's."
            )
        return [{"role": each["role"], "content": each["content"]} for each in messages]
    if isinstance(row, dict) and isinstance(row.get("output"), str) and not row["output"].strip():
        raise MonadnockError(f"{where} has an empty output, of which nothing can be learned.")
    keys = ("instruction", "input", "output", "system")
    if (
        not isinstance(row, dict)
        or not all(isinstance(row.get(key) or "", str) for key in keys)
        or not row.get("output")
    ):
        found = ", ".join(map(str, row)) or "nothing" if isinstance(row, dict) else type(row).__name__
        raise MonadnockError(f"{where} has {found}; it takes instruction, output and maybe input, or messages.")
    asked = "\n\n".join(part for part in (row.get("instruction"), row.get("input")) if part)
    if not asked:
        raise MonadnockError(f"{where} has an empty instruction.")
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [*system, {"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
