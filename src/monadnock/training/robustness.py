"""What is left of a fine-tuned model when massive rows are set to zero (oh2024, tables 3 and 4)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from monadnock.attacking.targets import Aim
from monadnock.evaluation import Tasks, perplexity
from monadnock.evaluation.questions import digits
from monadnock.findings import Run
from monadnock.interventions import zero_rows
from monadnock.models import Adapter
from monadnock.models.tuned import with_adapter
from monadnock.preparing import evaluating, text_windows
from monadnock.training.macdrop import aims_of
from monadnock.training.tokens import answer_loss

TOKENS, LENGTH = 4096, 512  # of the built-in text
ORDERS = ("merged", "base")  # which comes first: the adapter, or the zeros
_Key = tuple[int, str, str]  # rows set to zero, metric, text
_Kind = Callable[[Adapter], Iterator[tuple[str, str, float]]]  # gives metric, text, value


class Robustness:
    """Measures a model with and without an adapter, clean and with its most massive rows set to zero.

    Rows are set to zero in two orders. `merged`: the adapter is merged first, so that a row gives nothing, of its
    adapter neither. `base`: rows of the base are set to zero, and the adapter comes on top, as on a model whose adapter
    is not merged; DoRA then scales what the adapter adds to such a row up to the norm that it learned for it.

    Args:
        adapter: the model.
        run: with the table massive_weights.
        zeroed: how many rows, besides none.
        held: batches of the examples that were held back.
        tasks: of lm-eval, if any.
    """

    def __init__(
        self,
        adapter: Adapter,
        run: Run,
        zeroed: Sequence[int],
        held: Sequence[dict[str, torch.Tensor]],
        tasks: Tasks | None = None,
    ):
        self.adapter, self.run, self.held, self.tasks = adapter, run, held, tasks
        self.counts = (0, *sorted(set(zeroed)))
        (self.aim,) = aims_of(run, max(self.counts))
        length = min(LENGTH, adapter.context_length or LENGTH)
        self.windows = text_windows(adapter, tokens=TOKENS, length=length, bos=None)

    @property
    def steps(self) -> int:
        """How many measurements there are."""
        return (3 * len(self.counts) - 1) * len(self._kinds)

    @property
    def _kinds(self) -> list[_Kind]:
        """What is measured: losses, and tasks where some were asked."""
        return [self._losses, *([self._scores] if self.tasks else [])]

    def measure(self, about: dict[str, Any], folder: Path, part: str, step: Callable[[], None]) -> None:
        """Measure both models and add to the table `robustness` what the run does not have."""
        for kind in self._kinds:
            name = f"{part}-{digits((self.counts, self._texts(kind), ORDERS))}"
            if self.run.has("robustness", name):
                continue
            base = self._known(kind) or dict(self._of(self.adapter, kind, self.counts, step))
            rows = []
            for order in ORDERS:
                for (count, metric, text), value in self._tuned(folder, kind, order, step):
                    told = {"zeroed": count, "order": order if count else None, "metric": metric, "text": text}
                    rows.append(about | told | {"value": value, "base": base[count, metric, text]})
            self.run.add("robustness", name, rows)

    def _tuned(self, folder: Path, kind: _Kind, order: str, step: Callable[[], None]) -> Iterator[tuple[_Key, float]]:
        """Yield what `_of` does of the model with its adapter; clean in the first order only."""
        if order == "merged":
            yield from self._of(with_adapter(self.adapter, folder), kind, self.counts, step)
            return
        for count in self.counts[1:]:
            with _zeroed(self.adapter, self.aim, count):
                tuned = with_adapter(self.adapter, folder)
            yield from (((count, *key[1:]), value) for key, value in self._of(tuned, kind, (0,), step))

    @property
    def held_back(self) -> str:
        """The examples that were held back in words; others, of another seed, have another hash."""
        count = sum(len(batch["labels"]) for batch in self.held)
        told = [[values.tolist() for values in batch.values()] for batch in self.held]
        return f"{count} examples held back, {digits(told)}"

    def _texts(self, kind: _Kind) -> tuple[str, ...]:
        """Return on what a kind is measured."""
        if kind == self._losses:
            return (self.held_back, self.windows.label)
        assert self.tasks is not None
        return (self.tasks.label,)

    def _losses(self, adapter: Adapter) -> Iterator[tuple[str, str, float]]:
        yield "answer_loss", self.held_back, answer_loss(adapter.model, self.held)
        yield "perplexity", self.windows.label, perplexity(adapter, self.windows)

    def _scores(self, adapter: Adapter) -> Iterator[tuple[str, str, float]]:
        assert self.tasks is not None
        for score in self.tasks.run(adapter):
            yield f"{score.task}:{score.metric}", self.tasks.label, score.value

    def _known(self, kind: _Kind) -> dict[_Key, float] | None:
        """Return what the run has of the model without adapter, where that is all that is asked."""
        if "robustness" not in self.run.heights():
            return None
        rows = self.run.table("robustness").select("zeroed", "metric", "text", "base").rows()
        found = {row[:3]: row[3] for row in rows if row[2] in self._texts(kind)}
        if not {count for count, _, _ in found} >= set(self.counts):
            return None
        if kind == self._losses:
            metrics = [("answer_loss", self.held_back), ("perplexity", self.windows.label)]
            return found if found.keys() >= {(count, *each) for count in self.counts for each in metrics} else None
        return found

    def _of(
        self, adapter: Adapter, kind: _Kind, counts: Sequence[int], step: Callable[[], None]
    ) -> Iterator[tuple[_Key, float]]:
        """Yield (rows set to zero, metric, text) and the value."""
        for count in counts:
            with evaluating(adapter.model), _zeroed(adapter, self.aim, count):
                for metric, text, value in kind(adapter):
                    yield (count, metric, text), value
            step()


def _zeroed(adapter: Adapter, aim: Aim, count: int) -> Any:
    return zero_rows(adapter, aim.layer, aim.rows[:count], expert=aim.expert) if count else nullcontext()
