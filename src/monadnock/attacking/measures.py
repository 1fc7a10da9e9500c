"""What is measured of an attacked model: predictions, the chain to the sinks, written text, tasks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch

from monadnock.attacking.modes import Change
from monadnock.data import Windows
from monadnock.evaluation.chain import Chain, follow_chain
from monadnock.evaluation.generation import NEW_TOKENS, generate, same_start
from monadnock.evaluation.likelihood import Likelihood, last_output, score
from monadnock.evaluation.tasks import Tasks
from monadnock.models import Adapter
from monadnock.models.replay import capture

Rows = list[dict[str, Any]]
Step = Callable[[], None]


class Measure:
    """Something that is measured of the clean model and of an attacked one.

    Attributes:
        table: the table that its rows are for.
        depends: its parts, which are asked for and kept one by one, with what the rows of each depend on beside the
            attack.
        steps: how often `run` calls `step`.
    """

    table = "effects"
    depends: Mapping[str, str]
    steps = 1

    def run(self, change: Change | None, parts: Collection[str], step: Step) -> dict[str, Rows]:
        """Return the rows of some parts, without the columns that say which attack it was (None: the clean model)."""
        raise TypeError(f"{type(self).__name__} does not say how it measures")


class CleanStates:
    """What layers of the clean model give for each window, kept so that they are not run again for every attack."""

    def __init__(self, adapter: Adapter, windows: Windows, changes: Sequence[Change]):
        self.adapter, self.windows = adapter, windows
        self._layers = {adapter.num_layers - 1} | {change.untouched - 1 for change in changes if change.untouched}

    @cached_property
    def _outputs(self) -> list[dict[int, Any]]:
        return [capture(self.adapter, ids, self._layers) for ids in self.windows.ids]

    def keep(self) -> None:
        """Make sure that the states are kept by now; inside an attack it would be too late."""
        _ = self._outputs

    def start(self, change: Change | None, window: int) -> tuple[int, Any]:
        """Return the last layer that a change leaves as it is, and what it gives (see `replay`)."""
        layer = -1 if change is None else change.untouched - 1
        return layer, self._outputs[window][layer] if layer >= 0 else None

    def last(self, window: int) -> Any:
        """Return what the last layer gives."""
        return self._outputs[window][self.adapter.num_layers - 1]


class Predictions(Measure):
    """Perplexity, and divergence from the clean model's predictions, over the windows of the text."""

    def __init__(self, clean: CleanStates, data: str):
        self.clean, self.data = clean, data
        self.depends = {"perplexity": data, "kl": data}
        self.steps = len(clean.windows.ids)

    def run(self, change: Change | None, parts: Collection[str], step: Step) -> dict[str, Rows]:
        """Score the windows; a clean model's own divergence is 0."""
        adapter, windows, total = self.clean.adapter, self.clean.windows, Likelihood()
        for window, ids in enumerate(windows.ids):
            if change is None:
                output = self.clean.last(window)
            else:
                start = self.clean.start(change, window)
                with change.enter():
                    output = _own(last_output(adapter, ids, start), len(ids))
            clean = self.clean.last(window) if change is not None and "kl" in parts else None
            score(adapter, windows, window, total, output, clean)
            step()
        rows: dict[str, Rows] = {"perplexity": [self._row("perplexity", total.perplexity)]}
        kl, same = (0.0, 1.0) if change is None else (total.kl, total.top1_agreement)
        rows["kl"] = [self._row("kl", kl), self._row("top1_agreement", same)]
        return {part: rows[part] for part in parts}

    def _row(self, metric: str, value: float) -> dict[str, Any]:
        return {"metric": metric, "data": self.data, "value": value}


class TheChain(Measure):
    """Top-1 |h|, share of heads with a sink, implicit scaling, over the windows of the text."""

    def __init__(self, clean: CleanStates, data: str):
        self.clean, self.data = clean, data
        self.depends = {"chain": data}
        self.steps = len(clean.windows.ids)

    @cached_property
    def _whole(self) -> Chain:
        return follow_chain(self.clean.adapter, self.clean.windows.ids)

    def run(self, change: Change | None, parts: Collection[str], step: Step) -> dict[str, Rows]:
        """Watch the windows."""
        chain = self._whole
        if change is None:
            for _ in self.clean.windows.ids:
                step()
        else:
            self.clean.keep()
            with change.enter():
                chain = follow_chain(
                    self.clean.adapter,
                    self.clean.windows.ids,
                    clean=self._whole if change.untouched else None,
                    start=lambda window: self.clean.start(change, window),
                    step=step,
                )
        found = {
            "top1_h": chain.top1_h,
            "sink_share": chain.sink_share,
            "implicit_scaling": chain.implicit_scaling,
        }
        return {"chain": [{"metric": name, "data": self.data, "value": value} for name, value in found.items()]}


class Generations(Measure):
    """What the model writes, greedily."""

    table = "generations"

    def __init__(self, adapter: Adapter, prompts: Sequence[str], *, bos: bool):
        self.adapter, self.prompts, self.bos = adapter, list(prompts), bos
        self.depends = {"generation": f"{self.prompts} {NEW_TOKENS} {bos}"}

    @cached_property
    def _clean(self) -> list[list[int]]:
        return generate(self.adapter, self.prompts, bos=self.bos)

    def run(self, change: Change | None, parts: Collection[str], step: Step) -> dict[str, Rows]:
        """Write on from the prompts."""
        clean = self._clean
        with _entered(change):
            written = clean if change is None else generate(self.adapter, self.prompts, bos=self.bos)
        step()
        decode = self.adapter.tokenizer.decode
        rows = [
            {"prompt": prompt, "text": decode(ids), "same_tokens": same_start(ids, first), "num_tokens": len(ids)}
            for prompt, ids, first in zip(self.prompts, written, clean, strict=True)
        ]
        return {"generation": rows}


class Zeroshot(Measure):
    """A task of lm-eval, or a group of them."""

    def __init__(self, adapter: Adapter, tasks: Tasks, *, bos: bool):
        self.adapter, self.tasks, self.bos = adapter, tasks, bos
        self.depends = {"task": f"{tasks.names} {tasks.digest} {tasks.limit} {bos}"}

    def run(self, change: Change | None, parts: Collection[str], step: Step) -> dict[str, Rows]:
        """Run the tasks; a model whose logits are NaN has no score."""
        with _entered(change):
            scores = self.tasks.run(self.adapter, bos=self.bos)
            tokens = torch.arange(1, 9) % self.adapter.model.get_input_embeddings().weight.shape[0]
            broken = not bool(self.adapter.forward(tokens).isfinite().all())
        step()
        few = "" if self.tasks.limit is None else f", first {self.tasks.limit}"
        rows = [
            {
                "metric": score.metric,
                "data": score.task + few,
                "value": float("nan") if broken else score.value,  # of NaN, argmax picks a choice as if it were one
                "error": None if broken else score.error,
            }
            for score in scores
        ]
        return {"task": rows}


def _entered(change: Change | None) -> AbstractContextManager[None]:
    return nullcontext() if change is None else change.enter()


def _own(output: Any, size: int) -> Any:
    """Return the states of a text's own positions: what stands in front of them is a prefix."""
    if isinstance(output, tuple):
        return (output[0][:, -size:], *output[1:])
    return output[:, -size:]
