"""Test links: measure each way to cut them beside its controls, and write down what goes with the cause."""

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

import polars as pl
from torch import Tensor

from monadnock.explaining.cutting import Cut, why_not, without_sinks
from monadnock.explaining.measuring import Bench, Values
from monadnock.findings.chain_links import GONE, LINKS, STEPS, Link
from monadnock.preparing import bar

Rows = list[dict[str, Any]]


class LinkTests:
    """Tests the links that can be tested; the rows of each way to cut them are written as soon as it is done."""

    def __init__(self, bench: Bench, controls: int):
        self.bench, self.plan, self.controls = bench, bench.plan, controls
        self.before: Values = {}  # the clean model's

    @cached_property
    def _clean(self) -> Tensor:
        return self.bench.alone(None)

    def run(self, progress: bool) -> None:
        """Measure the clean model, then every cut with its controls; what is on disk is not measured again."""
        bench = self.bench
        with bar("clean model", bench.missing([bench.clean_cell]), progress) as step:
            self.before = bench.effects(bench.clean_cell, step)
        if self.before["sink_share"] == 0:
            self.plan = without_sinks(self.plan)
        if rows := self._untested():
            bench.run.add("chain", f"untested-{_digest(bench.data)}", rows)
        todo = [cut for cut in self.plan.cuts if not self._known(cut)]
        with bar("links", bench.missing([cell for cut in todo for cell in bench.cells[cut.mode]]), progress) as step:
            for cut in todo:
                if rows := self._rows(cut, step):
                    bench.run.add("chain", self._name(cut), rows)

    def _name(self, cut: Cut) -> str:
        targets = self.bench.cells[cut.mode][0].columns["targets"]
        return f"{cut.mode}-{cut.k:05d}-{_digest(targets, self.bench.data)}"

    def _known(self, cut: Cut) -> bool:
        """Say whether a cut has its rows, of as many controls at least."""
        run, name = self.bench.run, self._name(cut)
        return run.has("chain", name) and (run.part("chain", name)["num_controls"] >= self.controls).all()

    def _untested(self) -> Rows:
        reasons = (
            (place, link, why_not(self.plan.missing, link.cause, link.effect)) for place, link in enumerate(LINKS)
        )
        shared = {"data": self.bench.data}
        return [shared | {"step": place, "link": link.name, "note": why} for place, link, why in reasons if why]

    def _rows(self, cut: Cut, step: Callable[[], None]) -> Rows:
        """Measure a cut and its controls, and return what they say of every link that it cuts."""
        links = [
            (place, link, list(dict.fromkeys([*[link.proof] * bool(link.proof), *link.metrics])))
            for place, link in enumerate(LINKS)
            if cut.mode in link.modes and why_not(self.plan.missing, link.cause, link.effect) is None
        ]
        if not links:
            return []
        cell, *drawn = self.bench.cells[cut.mode]
        before, after = dict(self.before), self.bench.effects(cell, step)
        others, over = [self.bench.effects(each, step) for each in drawn], ""
        if any("start_h" in metrics for _, _, metrics in links):
            alone = self.bench.alone(cell.change)
            over = self._over(alone)
            before["start_h"], after["start_h"] = self.bench.start_h(self._clean), self.bench.start_h(alone)
            for each, values in zip(drawn, others, strict=True):
                values["start_h"] = self.bench.start_h(self.bench.alone(each.change))
        shared = {
            "intervention": cut.words,
            "mode": cut.mode,
            "k": cut.k,
            "targets": cell.columns["targets"],
            "data": self.bench.data,
            "num_controls": len(drawn),
        }
        return [
            shared
            | {"step": place, "link": link.name, "metric": metric, "before": before[metric], "after": after[metric]}
            | _spread([values[metric] for values in others])
            | {"note": _notes(link, metric, cut.note, over)}
            for place, link, metrics in links
            for metric in metrics
        ]

    def _over(self, alone: Tensor) -> str:
        """Say where h is large although the massive activation is gone; empty where it is not."""
        layer, feature = divmod(int(alone.abs().argmax()), alone.shape[1])
        value = float(alone[layer, feature])
        gone = self.bench.start_h(alone) <= (1 - GONE) * self.bench.start_h(self._clean)
        if not gone or abs(value) <= (1 - GONE) * float(self._clean.abs().max()):
            return ""
        falls = self.bench.run.table("lifecycles").filter(pl.col("massive"), pl.col("fall_layer") == layer)
        taken = ", the layer that takes it away in the clean model" if feature in falls["feature"] else ""
        return f"feature {feature} of the start token is then at {value:,.0f} behind layer {layer}{taken}"


def _notes(link: Link, metric: str, of_cut: str, over: str) -> str | None:
    """Return what is to be known beside a metric: of the cut once for each link, of the start token beside its |h|."""
    first = of_cut if metric == link.metrics[0] and link in STEPS else ""
    return "; ".join(note for note in (first, over if metric == "start_h" else "") if note) or None


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean and range of draws; all are NaN where one is."""
    broken = any(math.isnan(value) for value in values)
    ends = [math.nan] * 3 if broken else [fmean(values), min(values), max(values)]
    return dict(zip(("control", "control_min", "control_max"), ends, strict=True))


def _digest(*said: str) -> str:
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]
