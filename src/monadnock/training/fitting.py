"""One training of an adapter by transformers' Trainer and peft: from encoded examples to a folder with the adapter."""

import json
import math
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from monadnock.errors import MonadnockError
from monadnock.models import Adapter
from monadnock.models.quiet import quiet
from monadnock.models.tuned import peft
from monadnock.preparing import evaluating
from monadnock.processes import is_first
from monadnock.training.macdrop import MacDropCallback
from monadnock.training.tokens import Encoded, answer_loss, collate

WARMUP = 0.05  # of the steps (oh2024, table 6)
_HISTORY = "macdrop.json"  # in a checkpoint: step, p and share of every step so far
SAVES = 10  # checkpoints of a training, to go on from


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained, see `monadnock.training.finetuning.finetune`; defaults are those of oh2024 (table 6).

    Raises:
        MonadnockError: on numbers that make no training.
    """

    dora: bool = False
    epochs: float = 3
    rate: float = 1e-4
    batch: int = 8
    accumulation: int = 4
    rank: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.epochs > 0 and self.rate > 0 and math.isfinite(self.rate + self.epochs)):
            raise MonadnockError(f"{self.epochs} epochs at a rate of {self.rate} were asked; give more than 0 of each.")
        if not 0 <= self.seed < 2**32:
            raise MonadnockError(f"Seed {self.seed} was asked; give one from 0 to 2**32 - 1.")
        if min(self.batch, self.accumulation, self.rank) < 1:
            raise MonadnockError(
                f"Batches of {self.batch}, {self.accumulation} of them a step, and rank {self.rank} were asked; give "
                "at least 1 each."
            )

    def steps(self, examples: int) -> int:
        """Return how many steps of the optimizer a training on so many examples has."""
        each = max(1, math.ceil(math.ceil(examples / self.batch) / self.accumulation))
        return max(1, math.ceil(self.epochs * each))


@dataclass(frozen=True)
class Fitted:
    """What came out: rows of the steps, the number of trainable parameters, and the loss of what was held back."""

    steps: list[dict[str, Any]]
    trainable: int
    after: float


def fit(
    adapter: Adapter,
    trained: list[Encoded],
    recipe: Recipe,
    callback: MacDropCallback | None,
    work: Path,
    held: list[dict[str, torch.Tensor]],
    step: Callable[[], None],
) -> Fitted:
    """Train an adapter, from the last checkpoint in `work` if there is one, and save it to `work/adapter`.

    The model is given back as it was, without the adapter.

    Raises:
        MonadnockError: if peft is not installed, or the model cannot be trained.
    """
    library = peft()
    if recipe.dora and adapter.num_experts is not None:
        raise MonadnockError(f"peft has no DoRA for the experts of {adapter.source.id}; use lora.")
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
    from transformers.trainer_callback import PrinterCallback

    class Steps(TrainerCallback):
        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            step()

        def on_save(self, args: Any, state: Any, *_args: Any, **_kwargs: Any) -> None:
            if callback:
                history = work / f"checkpoint-{state.global_step}" / _HISTORY
                history.write_text(json.dumps(callback.history), encoding="utf-8")

    base, modes = adapter.model, [module for module in adapter.model.modules() if module.training]
    frozen = [(parameter, parameter.requires_grad) for parameter in base.parameters()]
    set_seed(recipe.seed)
    config = library.LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank,
        target_modules="all-linear",
        target_parameters=_experts(adapter),
        use_dora=recipe.dora,
        task_type="CAUSAL_LM",
    )
    try:
        with quiet():
            tuned = library.get_peft_model(base, config)
    except (ValueError, NotImplementedError) as error:  # what peft raises on modules that it does not know
        raise MonadnockError(f"peft cannot put this adapter on {adapter.source.id}: {error}") from error
    try:
        with quiet():
            total = recipe.steps(len(trained))
            arguments = TrainingArguments(
                str(work),
                per_device_train_batch_size=recipe.batch,
                gradient_accumulation_steps=recipe.accumulation,
                learning_rate=recipe.rate,
                num_train_epochs=recipe.epochs,
                warmup_steps=WARMUP if total > 1 else 0,  # its first step has rate 0
                logging_steps=1,
                logging_nan_inf_filter=False,  # else a loss of NaN is logged as 0
                save_steps=max(1, math.ceil(total / SAVES)),
                save_total_limit=2,
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                dataloader_pin_memory=False,
                seed=recipe.seed,
                use_cpu=adapter.device.type == "cpu",
            )
            rows: Any = trained  # a list is a data set to the Trainer, though it does not say so
            trainer: Any = Trainer(
                model=tuned,
                args=arguments,
                train_dataset=rows,
                data_collator=collate,
                processing_class=adapter.tokenizer,
                callbacks=[Steps(), *([callback] if callback else [])],
            )
            trainer.remove_callback(PrinterCallback)
            last = last_checkpoint(work, ("trainer_state.json", *([_HISTORY] if callback else [])))
            if callback and last:
                callback.history = [tuple(each) for each in json.loads((last / _HISTORY).read_text(encoding="utf-8"))]
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            tuned.save_pretrained(work / "adapter", save_embedding_layers=False)
            with evaluating(tuned):
                after = answer_loss(tuned, held)
            check_finite(trainer.state.log_history, after)
            trainable = sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)
    finally:
        if callback:
            callback.remove()
        tuned.unload()
        for parameter, wanted in frozen:
            parameter.requires_grad_(wanted)
        base.eval()
        for module in modes:
            module.training = True
    logged = [row for row in trainer.state.log_history if "loss" in row]
    rows = [{"step": row["step"], "loss": row["loss"], "learning_rate": row["learning_rate"]} for row in logged]
    return Fitted(rows, trainable, after)


def check_finite(logged: list[dict[str, Any]], after: float = 0.0) -> None:
    """Refuse a training that went to NaN or infinity, and say where.

    Args:
        logged: rows with step and loss.
        after: the loss held back.

    Raises:
        MonadnockError: if a loss is no number.
    """
    bad = next((row["step"] for row in logged if "loss" in row and not math.isfinite(row["loss"])), None)
    if bad is not None or not math.isfinite(after):
        where = f"the loss of step {bad}" if bad is not None else "the loss held back"
        raise MonadnockError(f"The training diverged: {where} is NaN or infinite; take a lower rate.")


def last_checkpoint(work: Path, needed: Sequence[str]) -> Path | None:
    """Return the last checkpoint in which these files are whole, and remove the others, which are in the way."""
    found = list(work.glob("checkpoint-*"))
    whole = [path for path in found if all((path / name).is_file() for name in needed) and _whole(path)]
    last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    for path in found:
        if path != last and is_first():
            shutil.rmtree(path, ignore_errors=True)
    return last


def _whole(checkpoint: Path) -> bool:
    """Say whether every file of a checkpoint can be read."""
    try:
        for path in checkpoint.iterdir():
            if path.suffix == ".json" and not json.loads(path.read_text(encoding="utf-8")):
                return False
            if path.suffix == ".safetensors":
                safe_open(path, "pt").__exit__(None, None, None)  # reads the header, and whether all of it is there
            if path.suffix in (".pt", ".pth") and zipfile.ZipFile(path).testzip():
                return False
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError):
        return False
    return True


def _experts(adapter: Adapter) -> list[str] | None:
    """Return the parameters of experts, which are no linear layers of their own."""
    if adapter.num_experts is None:
        return None
    paths = {str(getattr(adapter.family, role)).partition("#")[0] for role in ("gate", "up", "down")}
    return sorted(path for path in paths if not hasattr(adapter.module(0, path), "weight"))
