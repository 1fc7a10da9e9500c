"""Fine-tune adapters (LoRA, DoRA) on instruction data, with or without MacDrop, and write what comes out into a run."""

import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monadnock.arguments import checked
from monadnock.errors import MonadnockError, nearest
from monadnock.evaluation import Tasks
from monadnock.findings import Run
from monadnock.interventions.changed import check_changeable
from monadnock.models import Adapter
from monadnock.models.tuned import check_installed
from monadnock.preparing import bar, evaluating, known_run, open_model, random_state_kept
from monadnock.sameness import check_weights
from monadnock.scanning import scan
from monadnock.training.examples import Examples, read_examples
from monadnock.training.fitting import Recipe, fit
from monadnock.training.macdrop import K, MacDropCallback
from monadnock.training.robustness import Robustness
from monadnock.training.tokens import Encoded, answer_loss, collate, encode

METHODS = ("lora", "dora")
LENGTH, VALIDATION = 512, 0.05  # tokens of an example, share held back (oh2024, table 6)
SHOWN = ("epochs", "rate", "batch", "accumulation", "rank")  # in a name, where they are not the usual ones


@checked
def finetune(
    model: Any,
    tokenizer: Any = None,
    *,
    data: str | Path,
    out: str | Path | None = None,
    method: str = "lora",
    macdrop: bool = False,
    schedule: str = "step",
    p0: float = 0.8,
    scope: str = "massive",
    k: int = K,
    alpha: float = 0.01,
    evaluate: bool = False,
    zeroed: Sequence[int] = (2, 3),
    tasks: Sequence[str] = (),
    limit: int | None = None,
    context: int | None = None,
    epochs: float = Recipe.epochs,
    rate: float = Recipe.rate,
    batch: int = Recipe.batch,
    accumulation: int = Recipe.accumulation,
    rank: int = Recipe.rank,
    length: int = LENGTH,
    validation: float = VALIDATION,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Fine-tune an adapter of a model on instruction data; defaults are those of oh2024 (table 6).

    The adapter is saved as peft does, under `adapters/` in the run's folder. A training that was stopped goes on from
    its last checkpoint, and one that is in the run already is not done again. The model is given back as it was.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        data: a .json or .jsonl file in alpaca or messages form, or a data set, see `read_examples`.
        out: a run of this model to add to, or a new folder. By default a new one under `monadnock-runs/`.
        method: lora or dora.
        macdrop: drop massive weights while training, see `MacDropCallback`.
        schedule, p0, scope, k, alpha: of MacDrop.
        evaluate: measure what is left when massive rows are set to zero, see the table `robustness`.
        zeroed: how many of them, besides none.
        tasks: of lm-eval, by name.
        limit: examples of each task.
        context: tokens that a task's prompt and answer may have; by default as many as the model sees.
        epochs: times that every example is seen.
        rate: peak learning rate; it rises over the first 5 % of the steps and then falls to 0 in a line.
        batch: examples of a micro-batch.
        accumulation: micro-batches of a step.
        rank: of the adapter, of all linear layers but the unembedding; its alpha is the same.
        length: tokens after which an example is cut off.
        validation: share of the examples that is held back, at least one.
        seed: of the adapter's start, the order of examples, the masks, and which examples are held back: fine-tunings
            of several seeds have losses on other examples.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with rows in the tables `finetunings`, `finetuning_steps` and, if asked, `robustness`.

    Raises:
        MonadnockError: on bad input, a run of another model, or if peft is not installed.

    Example:
        >>> run = finetune("smollm2", data="recipes/instructions.jsonl", macdrop=True)  # doctest: +SKIP
        >>> run.table("finetunings").select("before", "after")  # doctest: +SKIP
    """
    if method not in METHODS:
        raise MonadnockError(f"There is no method {method!r}: {nearest(method, METHODS)}")
    recipe = Recipe(method == "dora", float(epochs), float(rate), batch, accumulation, rank, seed)
    callback = None
    if macdrop:
        callback = MacDropCallback("auto", p0=p0, schedule=schedule, scope=scope, k=k, alpha=alpha, seed=seed)
        if method == "dora" and callback.schedule.probability(1, 2, 1, 1) == 1:
            raise MonadnockError(
                f"{schedule} at p0 = 1 drops whole rows, and DoRA divides by their norm; take a lower p0."
            )
    if not 0 < validation < 1:
        raise MonadnockError(f"A share of {validation} was to be held back; give one between 0 and 1.")
    if length < 8:
        raise MonadnockError(f"Examples of {length} tokens were asked; give at least 8.")
    if any(count < 1 for count in zeroed):
        raise MonadnockError(f"{min(zeroed)} zeroed rows were asked; give at least 1, no row is measured anyhow.")
    check_installed()
    examples = read_examples(data)
    asked = Tasks(list(tasks), limit=limit, context=context) if evaluate and tasks else None
    path, known = known_run(model, out)
    adapter = open_model(model, tokenizer, progress=progress, **options)
    check_changeable(adapter)
    held, trained = _split(adapter, examples, validation, length, seed)
    unused = len(examples.conversations) - len(trained) - sum(len(batch["labels"]) for batch in held)
    run = known or scan(adapter, out=path, probes=["start_token"], progress=progress, tokens=1024)
    check_weights(run, adapter)
    if callback is not None:
        callback.take_aims(run)
    work = _Work(adapter, run, recipe, callback, method, examples.label, (length, validation))
    robustness = Robustness(adapter, run, zeroed, held, asked) if evaluate else None  # refuses before it trains
    with bar(work.name, work.steps(len(trained)), progress) as step:
        work.train(trained, held, unused, step)
    if robustness:
        with bar("robustness", robustness.steps, progress) as step:
            robustness.measure(work.about, work.folder, work.part, step)
    return run


@dataclass
class _Work:
    """One fine-tuning: what is trained and how, and where that goes."""

    adapter: Adapter
    run: Run
    recipe: Recipe
    callback: MacDropCallback | None
    method: str
    data: str
    split: tuple[int, float]  # tokens of an example, share held back

    @property
    def macdrop(self) -> str | None:
        """What is dropped, in words."""
        if self.callback is None:
            return None
        schedule, parts = self.callback.schedule, [self.callback.scope]
        parts += [f"alpha {schedule.alpha:g}"] * (schedule.name == "exp")
        parts += [f"k {self.callback.k}"] * (self.callback.k != K)
        return " ".join(["macdrop", schedule.name, f"{schedule.p0:g}", *parts])

    @property
    def name(self) -> str:
        length, validation = self.split
        usual = Recipe()
        other = [
            f"{name} {value:g}"
            for name, value, default in (
                *((name, getattr(self.recipe, name), getattr(usual, name)) for name in SHOWN),
                ("length", length, LENGTH),
                ("held back", validation, VALIDATION),
            )
            if value != default
        ]
        return ", ".join(part for part in (self.method, self.macdrop, *other, f"seed {self.recipe.seed}") if part)

    @property
    def part(self) -> str:
        """Name of its part of the tables, and of its folder."""
        masks = self.callback and (self.callback.schedule, self.callback.scope, self.callback.k, self.callback.aims)
        told = repr((self.recipe, masks, self.data, self.split)).encode()
        slug = "".join(char if char.isalnum() or char == "." else "-" for char in self.name.replace(",", ""))
        return f"{slug}-{hashlib.sha256(told).hexdigest()[:8]}"

    @property
    def folder(self) -> Path:
        """Where the adapter is."""
        return self.run.path / "adapters" / self.part

    @property
    def about(self) -> dict[str, Any]:
        """The columns that tell it."""
        columns: dict[str, Any] = {"name": self.name, "method": self.method, "macdrop": self.macdrop}
        if self.callback:
            schedule = self.callback.schedule
            columns |= {"schedule": schedule.name, "p0": schedule.p0, "scope": self.callback.scope}
        return columns | {"seed": self.recipe.seed, "data": self.data}

    def steps(self, examples: int) -> int:
        """How many steps of the optimizer it takes."""
        return self.recipe.steps(examples)

    def train(self, trained: list[Encoded], held: list[dict[str, torch.Tensor]], unused: int, step: Any) -> None:
        """Train the adapter and write both tables, unless the run has it."""
        if self.run.has("finetunings", self.part) and (self.folder / "adapter_config.json").is_file():
            return
        with evaluating(self.adapter.model):
            before = answer_loss(self.adapter.model, held)
        work = self.run.path / "adapters" / f".{self.part}"
        try:
            with random_state_kept():
                fitted = fit(self.adapter, trained, self.recipe, self.callback, work, held, step)
        except BaseException:
            for empty in (work, work.parent):  # of a training that was refused; checkpoints stay
                with contextlib.suppress(OSError):
                    empty.rmdir()
            raise
        shutil.rmtree(self.folder, ignore_errors=True)
        (work / "adapter").rename(self.folder)
        shutil.rmtree(work, ignore_errors=True)
        history = {number: (p, share) for number, p, share in (self.callback.history if self.callback else [])}
        rows = [
            {"name": self.name} | row | dict(zip(("p", "dropped"), history.get(row["step"], (None, None)), strict=True))
            for row in fitted.steps
        ]
        self.run.add("finetuning_steps", self.part, rows)
        row = {"examples": len(trained), "too_long": unused, "steps": len(rows), "epochs": float(self.recipe.epochs)}
        row |= {"trainable": fitted.trainable, "before": before, "after": fitted.after}
        self.run.add("finetunings", self.part, [self.about | row | {"adapter": f"adapters/{self.part}"}])


def _split(
    adapter: Adapter, examples: Examples, share: float, length: int, seed: int
) -> tuple[list[dict[str, torch.Tensor]], list[Encoded]]:
    """Return batches of the examples that are held back, and the others, encoded."""
    if adapter.tokenizer is None:
        raise MonadnockError("Fine-tuning needs a tokenizer; give one with the model.")
    encoded = [encode(adapter.tokenizer, each, length) for each in examples.conversations]
    usable = [each for each in encoded if each is not None]
    if len(usable) < 2:
        raise MonadnockError(
            f"{len(usable)} of {len(encoded)} examples of {examples.source} have an answer within {length} tokens, and "
            "two are needed at least; raise --length."
        )
    order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(max(1, round(share * len(usable))), len(usable) - 1)
    held = [usable[place] for place in order[:count]]
    batches = [collate(held[start : start + 8]) for start in range(0, len(held), 8)]
    return batches, [usable[place] for place in order[count:]]
