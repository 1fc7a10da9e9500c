"""Questions for a model to answer, in the form of Spec-Bench, and the seven columns that they make."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monadnock.data.jsonl import read_rows
from monadnock.errors import MonadnockError

MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")


@dataclass(frozen=True)
class Question:
    """A question of one or more turns.

    Attributes:
        id: its name.
        category: such as writing, translation, rag.
        turns: what is asked, one after another.
        references: an answer to compare with for each turn, or None.
    """

    id: str
    category: str
    turns: tuple[str, ...]
    references: tuple[str | None, ...]

    def column(self, turn: int) -> str:
        """Return under which column an answer counts: MT-1 and MT-2 for the turns of MT-bench, else the category.

        Example:
            >>> Question("1", "writing", ("Write.", "Rewrite."), (None, None)).column(1)
            'MT-2'
        """
        if self.category in MT_BENCH:
            return f"MT-{turn + 1}"
        return self.category if len(self.turns) == 1 else f"{self.category}-{turn + 1}"


@dataclass(frozen=True)
class Questions:
    """Questions, and where they came from."""

    source: str
    asked: tuple[Question, ...]

    @property
    def label(self) -> str:
        """The questions in words, with the first digits of their hash."""
        return f"{self.source}, {len(self.asked)} questions, {digits(self.asked)}"


def digits(told: object) -> str:
    """Return the first digits of the hash of what is told."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]


def read_questions(path: str | Path, limit: int | None = None) -> Questions:
    """Read questions from a .json or .jsonl file in the form of Spec-Bench (Xia et al., 2024).

    A row has `question_id`, `category` and `turns`, a list of texts, and maybe `reference`, a text or a list of texts.

    Args:
        path: the file, as Spec-Bench's `question.jsonl` or `recipes/questions.jsonl`.
        limit: take only the first so many of each category.

    Raises:
        MonadnockError: if it cannot be read, has no questions, or a row in another form.
    """
    path = Path(path)
    found: list[Question] = []
    for number, row in enumerate(read_rows(path, "questions"), 1):
        question = _question(row, f"question {number} of {path}", number)
        if limit is None or sum(each.category == question.category for each in found) < limit:
            found.append(question)
    if twice := sorted({each.id for each in found if sum(each.id == other.id for other in found) > 1}):
        raise MonadnockError(f"{path} has several questions with question_id {twice[0]}; give each its own.")
    if not found:
        raise MonadnockError(f"{path} has no questions.")
    return Questions(path.name, tuple(found))


def _question(row: Any, where: str, number: int) -> Question:
    turns = row.get("turns") if isinstance(row, dict) else None
    good = isinstance(turns, list) and turns and all(isinstance(turn, str) and turn.strip() for turn in turns)
    if not good or not isinstance(row.get("category"), str) or not row["category"]:
        raise MonadnockError(f"{where} needs a category and turns, a list of texts, as Spec-Bench has them.")
    given = row.get("reference") or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(each is None or isinstance(each, str) for each in given):
        raise MonadnockError(f"{where} has a reference that is neither a text nor a list of texts.")
    references = (*given, *[None] * len(turns))[: len(turns)]
    return Question(str(row.get("question_id", number)), row["category"], tuple(turns), references)
