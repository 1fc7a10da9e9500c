"""Explain a model: cut every link of the causal chain, cut the same number at random, and write down what goes."""

import hashlib
import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
from torch import Tensor

from monadnock.data import Windows
from monadnock.data.text import check_text
from monadnock.errors import MonadnockError
from monadnock.explaining.cutting import Cut, make_plan, why_not, without_sinks
from monadnock.explaining.measuring import Bench, Values
from monadnock.findings import Run
from monadnock.findings.chain_links import GONE, LINKS, MASSIVE, STEPS
from monadnock.findings.manifest import AttackFacts
from monadnock.findings.run import check_free
from monadnock.models import Adapter
from monadnock.preparing import bar, evaluating, fresh_path, open_model, text_facts, text_windows, versions
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan
from monadnock.stats.probabilities import SEEN_SHARE
from monadnock.thresholds import GU2025_SINK_MASS

CONTROLS_BY_DEFAULT = 3
DEFAULT_TOKENS = 2048


def explain(
    model: Any,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    controls: int = CONTROLS_BY_DEFAULT,
    text: str | Path | None = None,
    dataset: str | None = None,
    tokens: int | None = None,
    length: int | None = None,
    bos: bool | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Test the causal chain from massive weights to predictions, link by link, each beside random controls.

    Every attack is measured as `attack` measures it, and is on disk at once, in the table `effects`; each link stands
    in the table `chain` as soon as its attack and controls are done. The same call goes on where another one stopped.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model, from which targets are read and to which the chain is added; or a new folder, which is
            then scanned first, with all probes. By default a new one under `monadnock-runs/`.
        controls: how many random draws stand beside each attack.
        text, dataset, tokens, length, bos, seed: the text, see `scan`; 2,048 tokens by default.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with the tables `chain` and `effects`.

    Raises:
        MonadnockError: on bad input, a run of another model, or a run without what the probe `start_token` finds.

    Example:
        >>> run = explain("smollm2", out="runs/smollm2")  # doctest: +SKIP
        >>> dict(run.summary().items)["Chain"]  # doctest: +SKIP
        'Of the links of the chain, ...'
    """
    if controls < 1:
        raise MonadnockError(
            f"{controls} controls were asked; an effect means nothing without one random draw beside it."
        )
    check_text(text, dataset)
    path = Path(out) if out is not None else fresh_path(model)
    known = Run.open(path) if (path / "manifest.json").is_file() else None
    if known is None:
        check_free(path.absolute(), force=False)
    adapter = open_model(model, tokenizer, progress=progress, **options)
    tokens = max(DEFAULT_TOKENS, length or 0) if tokens is None else tokens
    source: dict[str, Any] = {"text": text, "dataset": dataset, "tokens": tokens, "length": length, "bos": bos}
    windows = text_windows(adapter, seed=seed, **source)
    run = scan(adapter, out=path, seed=seed, progress=progress, **source) if known is None else known
    with evaluating(adapter.model):
        sums = weight_sums(adapter)
        check_same(run, adapter, sums)
        plan = make_plan(adapter, run)
        run.note(_facts(adapter, windows, plan.targets.start_token, sums))
        _Chain(Bench(adapter, run, plan, windows, controls), controls).test(progress)
    return run


def _facts(adapter: Adapter, windows: Windows, start_token: int, sums: list[float]) -> AttackFacts:
    return AttackFacts(
        monadnock=version("monadnock"),
        text=text_facts(adapter, windows, start_token),
        stride=windows.num_scored,
        attention=adapter.config._attn_implementation + "; for the chain eager, observed in blocks",
        device=str(adapter.device),
        metrics=["perplexity", "chain"],
        weight_sums=sums,
        thresholds={"gu2025.sink_mass": GU2025_SINK_MASS, "monadnock.seen_share": SEEN_SHARE},
        versions=versions(),
    )


class _Chain:
    """Tests the links that can be tested, and writes the rows of each way to cut them at once."""

    def __init__(self, bench: Bench, controls: int):
        self.bench, self.run, self.plan, self.controls = bench, bench.run, bench.plan, controls
        self.before: Values = {}
        self.clean: Tensor | None = None  # |h| of the start token, [layer, d_model]

    def test(self, progress: bool) -> None:
        """Measure the clean model, then every cut with its controls."""
        with bar("clean model", self.bench.missing([self.bench.clean_cell]), progress) as step:
            self.before = self.bench.effects(self.bench.clean_cell, step)
        if self.before["sink_share"] == 0:
            self.plan = without_sinks(self.plan)
        self._write("untested", self._untested())
        todo = [cut for cut in self.plan.cuts if not self._known(cut)]
        cells = [cell for cut in todo for cell in self.bench.cells[cut.mode]]
        with bar("links", self.bench.missing(cells), progress) as step:
            for cut in todo:
                self._write(self._name(cut), self._rows(cut, step))

    def _name(self, cut: Cut) -> str:
        said = f"{self.bench.cells[cut.mode][0].columns['targets']}\n{self.bench.data}"
        return f"{cut.mode}-{cut.k:05d}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"

    def _known(self, cut: Cut) -> bool:
        """Say whether a cut has its rows, of as many controls at least."""
        name = self._name(cut)
        return self.run.has("chain", name) and (self.run.part("chain", name)["num_controls"] >= self.controls).all()

    def _write(self, name: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            self.run.add("chain", name, rows)

    def _untested(self) -> list[dict[str, Any]]:
        rows = []
        for step, link in enumerate(LINKS):
            if reason := why_not(self.plan.missing, link.cause, link.effect):
                rows.append({"step": step, "link": link.name, "data": self.bench.data, "note": reason})
        return rows

    def _rows(self, cut: Cut, step: Callable[[], None]) -> list[dict[str, Any]]:
        """Measure a cut and its controls, and return what they say of every link that it cuts."""
        cell, *drawn = self.bench.cells[cut.mode]
        after = self.bench.effects(cell, step)
        others = [self.bench.effects(each, step) for each in drawn]
        before, over = dict(self.before), ""
        if MASSIVE not in self.plan.missing:
            if self.clean is None:
                self.clean = self.bench.sizes(None)
            sizes = self.bench.sizes(cell.change)
            over = self._over(sizes)
            before["start_h"], after["start_h"] = self.bench.start(self.clean), self.bench.start(sizes)
            for each, values in zip(drawn, others, strict=True):
                values["start_h"] = self.bench.start(self.bench.sizes(each.change))
        rows = []
        for place, link in enumerate(LINKS):
            if cut.mode not in link.modes or why_not(self.plan.missing, link.cause, link.effect) is not None:
                continue
            shared = {"step": place, "link": link.name, "intervention": cut.words, "mode": cut.mode, "k": cut.k}
            shared |= {"targets": cell.columns["targets"], "data": self.bench.data, "num_controls": len(drawn)}
            for metric in dict.fromkeys([link.proof, *link.metrics]):
                if not metric:
                    continue
                notes = [cut.note] * (metric == link.metrics[0] and link in STEPS) + [over] * (metric == "start_h")
                rows.append(
                    {
                        **shared,
                        "metric": metric,
                        "before": before[metric],
                        "after": after[metric],
                        **_spread([values[metric] for values in others]),
                        "note": "; ".join(note for note in notes if note) or None,
                    }
                )
        return rows

    def _over(self, sizes: Tensor) -> str:
        """Say where |h| is still large although the massive activation is gone; empty where it is not."""
        assert self.clean is not None
        layer, feature = divmod(int(sizes.argmax()), sizes.shape[1])
        largest = float(sizes.max())
        gone = self.bench.start(sizes) <= (1 - GONE) * self.bench.start(self.clean)
        if not gone or largest <= (1 - GONE) * float(self.clean.max()):
            return ""
        falls = self.run.table("lifecycles").filter(pl.col("massive"), pl.col("fall_layer") == layer)
        taken = ", the layer that takes it away in the clean model" if feature in falls["feature"] else ""
        return f"feature {feature} of the start token is still at {largest:,.0f} behind layer {layer}{taken}"


def _spread(values: list[float]) -> dict[str, float]:
    """Return mean and range of draws; all are NaN where one is."""
    broken = any(math.isnan(value) for value in values)
    ends = [math.nan] * 3 if broken else [fmean(values), min(values), max(values)]
    return dict(zip(("control", "control_min", "control_max"), ends, strict=True))
