"""A function that prescribes for planted tables."""

from dataclasses import dataclass
from typing import Any

import pytest

from monadnock.prescribing import Recipe, prescriptions
from tests.prescribing import planted


@dataclass(frozen=True)
class Told:
    rows: list[dict]
    recipe: Recipe

    def all(self, action: str) -> list[dict]:
        return [row for row in self.rows if row["action"] == action]

    def one(self, action: str) -> dict:
        (row,) = self.all(action)
        return row

    @property
    def actions(self) -> list[str]:
        return [row["action"] for row in self.rows]


@pytest.fixture
def judge(tmp_path):
    """Return a function that writes a run with planted tables, changed by name, and returns what is prescribed."""

    def judge(
        bits: int = 4, granularity: str = "row", about: dict[str, Any] | None = None, **tables: list[dict]
    ) -> Told:
        run = planted.write(tmp_path / "run", planted.everything() | tables, **(about or {}))
        return Told(*prescriptions(run, bits=bits, granularity=granularity))

    return judge
