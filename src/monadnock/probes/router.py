"""What the routers of a mixture of experts choose, for the start token and over the text."""

from typing import Any, ClassVar

from monadnock.models import Adapter
from monadnock.probes.base import Ask, Evidence, Pass
from monadnock.sites import Stream
from monadnock.stats import RouterMean


class Router:
    """The router's probabilities per layer and expert; an empty table for dense models."""

    name: ClassVar[str] = "router"
    tables: ClassVar[tuple[str, ...]] = ("router",)
    thresholds: ClassVar[dict[str, float]] = {}

    def asks(self, adapter: Adapter) -> list[Ask]:
        """Ask for the router's mean probabilities in both passes."""
        if not adapter.family.router:
            return []
        return [Ask(Stream.ROUTER_LOGITS, RouterMean, over) for over in ("text", "start")]

    def findings(self, evidence: Evidence) -> dict[str, Any]:
        """Fill router."""
        if not evidence.adapter.family.router:
            return {"router": []}
        passes: tuple[Pass, Pass] = ("start", "text")
        rows = []
        for over in passes:
            for layer in range(evidence.adapter.num_layers):
                stat = evidence.get(RouterMean, Stream.ROUTER_LOGITS, layer, over)
                rows += [
                    {"layer": layer, "expert": expert, "input": over, "probability": probability}
                    for expert, probability in enumerate((stat.total / stat.count).tolist())
                ]
        return {"router": rows}
