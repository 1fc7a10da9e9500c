"""Write attacks down: what a run has already is not measured again, and what is new is on disk at once."""

from collections.abc import Callable, Sequence
from importlib.metadata import version

from monadnock.attacking.cells import Cell, part_name
from monadnock.attacking.measures import Measure
from monadnock.data import Windows
from monadnock.findings import Run
from monadnock.findings.manifest import AttackFacts
from monadnock.models import Adapter
from monadnock.preparing import text_facts, versions
from monadnock.stats.probabilities import SEEN_SHARE
from monadnock.thresholds import GU2025_SINK_MASS


def missing_parts(run: Run, cell: Cell, measure: Measure, parts: Sequence[str]) -> list[str]:
    """Return the parts of a measure that the run does not have of an attack."""
    return [part for part in parts if not run.has(measure.table, part_name(cell, measure, part))]


def record(run: Run, cell: Cell, clean: Cell, measure: Measure, parts: Sequence[str], step: Callable[[], None]) -> None:
    """Measure parts under an attack and write them; effects get the clean model's value, which is measured first."""
    for part, rows in measure.run(cell.change, parts, step).items():
        if measure.table == "effects":
            first = rows if cell.change is None else run.part("effects", part_name(clean, measure, part)).to_dicts()
            known = {(row["metric"], row["data"]): row["value"] for row in first}
            rows = [row | {"baseline": known.get((row["metric"], row["data"]))} for row in rows]
        run.add(measure.table, part_name(cell, measure, part), [cell.columns | row for row in rows])


def attack_facts(
    adapter: Adapter, windows: Windows, start_token: int, sums: list[float], metrics: Sequence[str]
) -> AttackFacts:
    """Return how effects are measured, for the manifest."""
    return AttackFacts(
        monadnock=version("monadnock"),
        text=text_facts(adapter, windows, start_token),
        stride=windows.num_scored,
        attention=adapter.config._attn_implementation
        + ("; for the chain eager, observed in blocks" if "chain" in metrics else ""),
        device=str(adapter.device),
        metrics=list(metrics),
        weight_sums=sums,
        thresholds={"gu2025.sink_mass": GU2025_SINK_MASS, "monadnock.seen_share": SEEN_SHARE},
        versions=versions() | ({"lm-eval": version("lm-eval")} if "tasks" in metrics else {}),
    )
