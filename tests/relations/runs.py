"""Runs for comparing: synthetic ones of any shape and text, and tiny models with outliers planted into them."""

from pathlib import Path
from typing import Any

import polars as pl

from monadnock.findings import Run, schema
from monadnock.relations.compare_tables import BY_NAME
from tests.report.conftest import manifest, rows

MODEL_FACTS = ("id", "family", "dtype", "num_layers", "num_heads", "hidden_size", "intermediate_size", "num_experts")


def frames(names=tuple(BY_NAME)) -> dict[str, pl.DataFrame]:
    """Return synthetic tables with each key once, as scans write them; one has NaN and infinities."""
    made = {name: schema.table(name).frame(rows(name)) for name in names}
    unique = lambda name: list(BY_NAME[name].keys) if name != "effects" else None  # noqa: E731
    return {name: frame.unique(unique(name), keep="first", maintain_order=True) for name, frame in made.items()}


def write(path: Path, tables: dict[str, pl.DataFrame], **changes: Any) -> Run:
    """Write a run; `changes` are facts of its model, of its text, or of the manifest itself."""
    about = manifest()
    model = {name: value for name, value in changes.items() if name in MODEL_FACTS}
    own = {name: value for name, value in changes.items() if name in ("thresholds", "monadnock", "attacks")}
    text = {name: value for name, value in changes.items() if name not in model and name not in own}
    about = about.model_copy(
        update={"model": about.model.model_copy(update=model), "text": about.text.model_copy(update=text), **own}
    )
    return Run.write(path, about, tables, force=True)
