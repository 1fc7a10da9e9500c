"""What is left of a fine-tuned model when massive rows are set to zero (oh2024, tables 3 and 4)."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from monadnock.attacking.targets import Aim
from monadnock.evaluation import Tasks, perplexity
from monadnock.findings import Run
from monadnock.interventions import zero_rows
from monadnock.models import Adapter
from monadnock.models.tuned import with_adapter
from monadnock.preparing import evaluating, text_windows
from monadnock.training.macdrop import aims_of
from monadnock.training.tokens import answer_loss

TOKENS, LENGTH = 4096, 512  # of the built-in text


class Robustness:
    """Measures a model with and without an adapter, clean and with its most massive rows set to zero.

    The adapter is merged first, so that a row that is set to zero gives nothing, of its adapter neither.

    Args:
        adapter: the model.
        run: with the table massive_weights.
        zeroed: how many rows, besides none.
        held: batches of the examples that were held back.
        tasks: of lm-eval, by name.
        limit: examples of each task.
        context: tokens of a task's prompt and answer; by default as many as the model sees.
    """

    def __init__(
        self,
        adapter: Adapter,
        run: Run,
        zeroed: Sequence[int],
        held: Sequence[dict[str, torch.Tensor]],
        tasks: Sequence[str] = (),
        limit: int | None = None,
        context: int | None = None,
    ):
        self.adapter, self.run, self.held = adapter, run, held
        self.counts = (0, *sorted(set(zeroed)))
        (self.aim,) = aims_of(run, max(self.counts))
        length = min(LENGTH, adapter.context_length or LENGTH)
        self.windows = text_windows(adapter, tokens=TOKENS, length=length, bos=None)
        self.tasks = Tasks(list(tasks), limit=limit, context=context) if tasks else None

    @property
    def steps(self) -> int:
        """How many measurements there are."""
        return 2 * len(self.counts)

    def measure(self, about: dict[str, Any], folder: Path, part: str, step: Callable[[], None]) -> None:
        """Measure both models and write the table `robustness`, unless the run has it."""
        tasks = self.tasks and (self.tasks.names, self.tasks.limit, self.tasks.digest, self.tasks.context)
        part = f"{part}-{_digits((self.counts, self._wanted(), tasks))}"
        if self.run.has("robustness", part):
            return
        base = self._known()
        if base is None:
            base = dict(self._of(self.adapter, step))
        rows = [
            about | dict(zip(("zeroed", "metric", "text"), key, strict=True)) | {"value": value, "base": base[key]}
            for key, value in self._of(with_adapter(self.adapter, folder), step)
        ]
        self.run.add("robustness", part, rows)

    @property
    def held_back(self) -> str:
        """The examples that were held back in words; others, of another seed, have another hash."""
        count = sum(len(batch["labels"]) for batch in self.held)
        told = [[values.tolist() for values in batch.values()] for batch in self.held]
        return f"{count} examples held back, {_digits(told)}"

    def _wanted(self) -> list[tuple[int, str, str]]:
        """Return what is measured besides tasks: rows set to zero, metric, text."""
        told = (("answer_loss", self.held_back), ("perplexity", self.windows.label))
        return [(count, metric, text) for count in self.counts for metric, text in told]

    def _known(self) -> dict[tuple[int, str, str], float] | None:
        """Return what the run has of the model without adapter, if that is all that is asked."""
        if "robustness" not in self.run.heights() or self.tasks:
            return None
        rows = self.run.table("robustness").select("zeroed", "metric", "text", "base").rows()
        found = {row[:3]: row[3] for row in rows}
        return {key: found[key] for key in self._wanted()} if found.keys() >= set(self._wanted()) else None

    def _of(self, adapter: Adapter, step: Callable[[], None]) -> Iterator[tuple[tuple[int, str, str], float]]:
        """Yield (rows set to zero, metric, text) and the value."""
        for count in self.counts:
            with evaluating(adapter.model), _zeroed(adapter, self.aim, count):
                yield (count, "answer_loss", self.held_back), answer_loss(adapter.model, self.held)
                yield (count, "perplexity", self.windows.label), perplexity(adapter, self.windows)
                for score in self.tasks.run(adapter) if self.tasks else ():
                    yield (count, f"{score.task}:{score.metric}", "lm-eval"), score.value
            step()


def _digits(told: object) -> str:
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]


def _zeroed(adapter: Adapter, aim: Aim, count: int) -> Any:
    return zero_rows(adapter, aim.layer, aim.rows[:count], expert=aim.expert) if count else nullcontext()
