"""Where the parameters are: a tally by component and layer that adds up to the checkpoint's own count."""

from collections import Counter
from typing import Any, ClassVar

from monadnock.models import Adapter
from monadnock.models.components import components, tied
from monadnock.probes.base import Ask, Evidence


class Parameters:
    """Count parameters by component and layer, each parameter once (a tied unembedding counts 0)."""

    name: ClassVar[str] = "parameters"
    tables: ClassVar[tuple[str, ...]] = ("parameters",)
    thresholds: ClassVar[dict[str, float]] = {}

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for nothing: the parameters are there."""
        return []

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill parameters."""
        return {"parameters": tally(evidence.adapter)}


def tally(adapter: Adapter) -> list[dict[str, Any]]:
    """Return the rows of table `parameters`; the counts sum to the model's number of parameters."""
    counts: Counter[tuple[str, int | None]] = Counter()
    for component, layer, count in components(adapter):
        counts[component, layer] += count
    if tied(adapter):
        counts["unembedding", None] += 0
    return [{"component": component, "layer": layer, "count": count} for (component, layer), count in counts.items()]
