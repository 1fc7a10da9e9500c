"""Synthetic runs, borrowed from the report's tests."""

from pathlib import Path

import pytest

from monadnock.findings import TABLES, Run, table
from tests.report.conftest import manifest, rows


def frames():
    return {name: table(name).frame(rows(name)) for name in TABLES}


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return everything under a folder: relative path to contents, None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def run(tmp_path):
    """Return a run that holds every table."""
    return Run.write(tmp_path / "run", manifest(), frames())
