"""One training of a model by transformers' Trainer: from random weights to a folder with a checkpoint."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monadnock.errors import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.models.quiet import quiet
from monadnock.models.variants import build
from monadnock.pretraining.data import Data
from monadnock.pretraining.monitor import SEEN, OutlierMonitor
from monadnock.pretraining.recipe import Recipe
from monadnock.training.fitting import SAVES, check_finite, last_checkpoint

LOGGED = 500  # rows of losses at most


@dataclass(frozen=True)
class Trained:
    """A model that was trained, and how fast."""

    adapter: Adapter
    steps_per_second: float
    watching: float


def make_model(recipe: Recipe, variant: str, data: Data, seed: int) -> Adapter:
    """Return the random model that a training begins with; with the same seed, variants share what they have in common.

    Raises:
        MonadnockError: on an unknown variant, or settings that make no model.
    """
    context = "n_positions" if recipe.architecture == "gpt2" else "max_position_embeddings"
    tokenizer = data.tokenizer
    own = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    settings = {context: data.length, "vocab_size": len(tokenizer)} | {f"{name}_token_id": own[name] for name in own}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = build(recipe.architecture, variant, **settings | recipe.model)
        except MonadnockError:
            raise
        except Exception as error:  # configs and modules have errors of their own
            raise MonadnockError(
                f"The recipe's settings make no {recipe.architecture} model: {' '.join(str(error).split())[:200]}"
            ) from error
    adapter = Adapter(model, tokenizer, Source(f"{recipe.architecture} {variant}", "object"))
    if wrong := [layer for layer in recipe.silent if not 0 <= layer < adapter.num_layers]:
        raise MonadnockError(f"Layer {wrong[0]} was to be silent, but the model has {adapter.num_layers}, from 0.")
    for layer in recipe.silent:
        for parameter in adapter.module(layer, adapter.family.o).parameters():
            torch.nn.init.zeros_(parameter).requires_grad_(False)
    return adapter


def train(
    adapter: Adapter,
    data: Data,
    recipe: Recipe,
    seed: int,
    work: Path,
    monitor: OutlierMonitor,
    step: Callable[[], None],
    device: str | None = None,
) -> Trained:
    """Train a model, from the last checkpoint in `work` if there is one.

    Raises:
        MonadnockError: if the loss becomes NaN or infinite.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator
    from transformers.trainer_callback import PrinterCallback

    class Clock(TrainerCallback):
        took, steps, began = 0.0, 0, 0.0

        def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            self.took += time.monotonic() - self.began
            self.steps += 1
            step()

    clock = Clock()
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    bf16 = recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and not on_cpu and torch.cuda.is_bf16_supported())
    with quiet():
        arguments = TrainingArguments(
            str(work),
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch,
            gradient_accumulation_steps=recipe.accumulation,
            learning_rate=recipe.rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": recipe.floor},
            warmup_steps=recipe.warmup,
            weight_decay=recipe.weight_decay,
            adam_beta1=recipe.betas[0],
            adam_beta2=recipe.betas[1],
            max_grad_norm=recipe.clip,
            bf16=bf16,
            torch_compile=recipe.compile,
            logging_steps=max(1, recipe.steps // LOGGED),
            logging_nan_inf_filter=False,  # else a loss of NaN is logged as 0
            save_steps=max(1, math.ceil(recipe.steps / SAVES)),
            save_total_limit=1,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=not on_cpu,
            seed=seed,
            use_cpu=on_cpu,
        )
        trainer: Any = Trainer(
            model=adapter.model.train(),
            args=arguments,
            train_dataset=data.train,
            data_collator=default_data_collator,
            processing_class=adapter.tokenizer,
            callbacks=[clock],
        )
        monitor.attach(trainer)
        trainer.remove_callback(PrinterCallback)
        last = last_checkpoint(work, ("trainer_state.json", SEEN))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    check_finite(trainer.state.log_history)
    speed = clock.steps / clock.took if clock.took else math.nan
    adapter.model.eval()
    return Trained(adapter, speed, monitor.seconds / clock.took if clock.took else math.nan)
