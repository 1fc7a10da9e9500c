"""One thing to do before a model is quantised, with its evidence, and what every rule reads."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import polars as pl

from monadnock.findings.manifest import Manifest
from monadnock.prescribing.recipe import Strategy

# What can be told, the most important first: rows of the table are sorted by this.
ACTIONS = (
    "keep_module",
    "modules_helped",
    "keep_rows",
    "per_row",
    "rotate",
    "per_token",
    "keep_sinks",
    "measure_rows",
    "no_room",
    "no_module",
    "modules_idle",
    "no_rows",
    "no_rotation",
    "per_tensor",
    "no_sinks",
    "not_judged",
)


@dataclass(frozen=True)
class Prescription:
    """One row of the table `prescriptions`; what its columns mean is said there.

    Attributes:
        action: one of `ACTIONS`.
        reason: why, in a sentence.
        evidence: table and column.
        value: the number found there.
        bound: the number it is held against.
        amount: how many tokens, rows or bits.
        layer: 0-based decoder layer.
        module: q, k, v, o, gate, up or down.
        expert: 0-based expert; None in dense layers.
        rows: rows it is about, separated by blanks.
        name: of the module in the checkpoint.
    """

    action: str
    reason: str
    evidence: str | None = None
    value: float | None = None
    bound: float | None = None
    amount: float | None = None
    layer: int | None = None
    module: str | None = None
    expert: int | None = None
    rows: str | None = None
    name: str | None = None

    @property
    def weight(self) -> tuple[int, float]:
        """What prescriptions are sorted by: the action, then how far beyond its bound; measured ones stay in order."""
        measured = self.evidence is not None and self.evidence.startswith("effects")
        ratio = self.value / self.bound if self.value is not None and self.bound and not measured else 0.0
        return ACTIONS.index(self.action), -ratio if math.isfinite(ratio) else 0.0


@dataclass(frozen=True)
class Findings:
    """What the rules read: the tables of a run that have rows, its manifest, and what is asked.

    Attributes:
        tables: by name; a table without rows is as good as none.
        manifest: of the run.
        bits: of a rounded weight.
        strategy: what shares a scale.
        group: columns of a group; None where the strategy is not group.
        where: the run, as it is written in a command.
    """

    tables: Mapping[str, pl.DataFrame]
    manifest: Manifest
    bits: int
    strategy: Strategy
    group: int | None = None
    where: str = field(default="RUN")

    def get(self, name: str) -> pl.DataFrame | None:
        """Return a table, or None if it is missing or has no row."""
        found = self.tables.get(name)
        return found if found is not None and found.height else None

    def command(self, verb: str, options: str = "") -> str:
        """Return the command that would add to this run what is missing; a scan can only begin one."""
        if verb == "scan":
            return f"`monadnock scan {shlex.quote(self.manifest.model.id)} --out DIR`, before all else in a new run,"
        return f"`monadnock {verb} {shlex.quote(self.manifest.model.id)} {options}--out {self.where}`"


def ranked(prescriptions: list[Prescription]) -> list[dict]:
    """Return prescriptions as rows of the table, the most important first."""
    ordered = sorted(prescriptions, key=lambda each: each.weight)
    return [{"rank": rank} | asdict(each) for rank, each in enumerate(ordered, 1)]


def place(layer: int, module: str, expert: int | None = None) -> str:
    """Name a matrix.

    Example:
        >>> place(11, "down")
        'down of layer 11'
    """
    return f"{module} of layer {layer}" + ("" if expert is None else f", expert {expert}")
