"""One training of a model by transformers' Trainer: from random weights to a folder with a checkpoint."""

import difflib
import errno
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from monadnock.errors import MonadnockError
from monadnock.models import Adapter, Source
from monadnock.models.quiet import quiet
from monadnock.models.variants import build
from monadnock.pretraining.data import Data
from monadnock.pretraining.monitor import SEEN, OutlierMonitor
from monadnock.pretraining.recipe import Recipe
from monadnock.training.fitting import SAVES, last_checkpoint

LOGGED = 500  # rows of losses at most
_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)  # by a disk
_DATA = ("vocab_size", "n_positions", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Trained:
    """A model that was trained, and how fast.

    Attributes:
        adapter: the model.
        steps_per_second: of the optimizer, the median step; None where none was made.
        watching: time that looks took, as a share of that of the steps.
        logged: what the Trainer logged, rows with step and loss.
    """

    adapter: Adapter
    steps_per_second: float | None
    watching: float | None
    logged: list[dict[str, Any]]


def make_model(recipe: Recipe, variant: str, data: Data, seed: int) -> Adapter:
    """Return the random model that a training begins with; with the same seed, variants share what they have in common.

    Raises:
        MonadnockError: on an unknown variant, or settings that make no model.
    """
    _check_settings(recipe)
    context = "n_positions" if recipe.architecture == "gpt2" else "max_position_embeddings"
    tokenizer = data.tokenizer
    own = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    settings = {context: data.length, "vocab_size": len(tokenizer)} | {f"{name}_token_id": own[name] for name in own}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = build(recipe.architecture, variant, **settings | recipe.model)
            model.config.validate()
            adapter = Adapter(model, tokenizer, Source(f"{recipe.architecture} {variant}", "object"))
            if not len(adapter.layers):
                raise ValueError("it has no layers")
            model.train()(input_ids=torch.zeros(1, min(2, data.length), dtype=torch.long), use_cache=False)
        except MonadnockError:
            raise
        except Exception as error:  # configs and modules have errors of their own
            raise MonadnockError(
                f"The recipe's settings make no {recipe.architecture} model: {' '.join(str(error).split())[:200]}"
            ) from error
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
        MonadnockError: if a checkpoint cannot be written.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator
    from transformers.trainer_callback import PrinterCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.took: list[float] = []
            self.began = 0.0

        def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            self.took.append(time.monotonic() - self.began)
            step()

    clock = Clock()
    on_cpu = _on_cpu(device)
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
            bf16=precision(recipe, device) == "bfloat16",
            torch_compile=recipe.compile,
            logging_steps=max(1, recipe.steps // LOGGED),
            logging_nan_inf_filter=False,  # else a loss of NaN is logged as 0
            save_steps=max(1, math.ceil(recipe.steps / SAVES)),
            save_total_limit=2,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=not on_cpu,
            seed=seed,
            use_cpu=on_cpu,
        )
        if arguments.n_gpu > 1:
            raise MonadnockError(
                f"{arguments.n_gpu} GPUs were found in one process; start with torchrun --nproc-per-node "
                f"{arguments.n_gpu} -m monadnock, or set CUDA_VISIBLE_DEVICES to one."
            )
        trainer: Any = Trainer(
            model=adapter.model.train(),
            args=arguments,
            train_dataset=data.train,
            data_collator=default_data_collator,
            processing_class=adapter.tokenizer,
        )
        monitor.attach(trainer)
        trainer.callback_handler.callbacks.insert(0, clock)  # in front of the monitor, whose looks it leaves out
        trainer.remove_callback(PrinterCallback)
        last = last_checkpoint(work, ("trainer_state.json", SEEN))
        with written("A checkpoint", work):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # takes autocast off its forward pass
    adapter.model.eval()
    if not clock.took:  # it was stopped behind its last step
        return Trained(adapter, None, None, trainer.state.log_history)
    speed, looking = 1 / statistics.median(clock.took), monitor.seconds / sum(clock.took)
    return Trained(adapter, speed, looking, trainer.state.log_history)


@contextmanager
def written(what: str, place: Path) -> Iterator[None]:
    """Say in a sentence that something could not be written: a full disk is an error of torch and safetensors, too."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        refused = isinstance(error, SafetensorError) or "inline_container" in str(error)
        if not refused and getattr(error, "errno", None) not in _REFUSED:
            raise
        reason = getattr(error, "strerror", None) or "there may be no space left"
        raise MonadnockError(
            f"{what} could not be written to {place} ({reason}); make room, and the same command goes on."
        ) from error


def _on_cpu(device: str | None) -> bool:
    return device == "cpu" or not torch.cuda.is_available()


def precision(recipe: Recipe, device: str | None) -> str:
    """Return in what a training computes: bfloat16 (autocast) or float32."""
    auto = recipe.dtype == "auto" and not _on_cpu(device) and torch.cuda.is_bf16_supported()
    return "bfloat16" if recipe.dtype == "bfloat16" or auto else "float32"


def _check_settings(recipe: Recipe) -> None:
    """Refuse settings that a model of this architecture has not, or that come from elsewhere, before one is built."""
    from transformers import GPT2Config, LlamaConfig

    config = GPT2Config() if recipe.architecture == "gpt2" else LlamaConfig()
    known = {*config.to_dict(), *config.attribute_map}
    for name in recipe.model:
        if name in _DATA:
            raise MonadnockError(f"The recipe sets the model's {name}, which comes from its data; leave it out.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "it is misspelt, or another architecture's."
            raise MonadnockError(f"The recipe sets {name}, which a {recipe.architecture} model has not: {hint}")
