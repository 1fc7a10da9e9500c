"""MacDrop: curriculum dropout on the massive weights while adapters are fine-tuned, as a callback of the Trainer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from transformers import TrainerCallback

from monadnock.arguments import checked
from monadnock.attacking.targets import Aim, check_tables
from monadnock.data.seeds import mixed
from monadnock.errors import MonadnockError, nearest
from monadnock.findings import Run
from monadnock.models import Adapter, Source
from monadnock.models.start import start_states
from monadnock.preparing import evaluating
from monadnock.stats import massive_layer
from monadnock.training.masks import SCOPES, MaskedRows
from monadnock.training.schedule import ALPHA, Schedule

K = 5  # rows that are massive
Targets = Literal["auto"] | str | Path | Run | Sequence[Aim]


class MacDropCallback(TrainerCallback):
    """Drops massive weights while adapters train, less and less (oh2024, section 3): add it to any Trainer.

    Before each step a mask is drawn, and W_up and W_gate of the massive layer are read through it, forward and
    backward, in all micro-batches of the step. The model's own weights are never written: evaluation, checkpoints and
    whatever follows an exception see them as they are. Masks depend on seed and step alone, so that a resumed training
    goes on with those that it would have had, and all ranks of DDP have the same.

    Args:
        targets: "auto" (the k largest |x_down| of the start token in the massive layer, found when training begins), a
            run or its folder (the rows that it names), or a list of `Aim(layer, expert, rows)`.
        p0: probability at the beginning.
        schedule: step, epoch-before, epoch-after, exp or constant, see `Schedule`.
        scope: massive, all (all rows of W_up and W_gate in that layer) or others (all but the massive ones).
        k: how many rows are massive, where `targets` does not say it.
        alpha: of exp.
        seed: of the masks.

    Attributes:
        aims: the layers and rows; with auto, once training began.
        history: (step, p, share of weights dropped) of every step so far.

    Raises:
        MonadnockError: on an unknown schedule or scope, p0 outside 0 to 1, k below 1; when training begins, if weights
            are trained themselves, quantised, or not whole on the device.

    Example:
        >>> trainer = Trainer(model=peft_model, callbacks=[MacDropCallback("auto")], ...)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    @checked
    def __init__(
        self,
        targets: Targets = "auto",
        *,
        p0: float = 0.8,
        schedule: str = "step",
        scope: str = "massive",
        k: int = K,
        alpha: float = ALPHA,
        seed: int = 0,
    ):
        self.schedule = Schedule(schedule, p0, alpha)
        if scope not in SCOPES:
            raise MonadnockError(f"There is no scope {scope!r}: {nearest(scope, SCOPES)}")
        if k < 1:
            raise MonadnockError(f"k = {k} was asked; at least one row has to be masked.")
        self.scope, self.k, self.seed = scope, k, seed
        self.aims: list[Aim] = []
        self.history: list[tuple[int, float, float]] = []
        self._rows: MaskedRows | None = None
        self._finds = isinstance(targets, str) and targets == "auto"
        if isinstance(targets, (Run, Path, str)):
            if not self._finds:
                self.aims = aims_of(targets if isinstance(targets, Run) else Run.open(targets), k)
        else:
            self.aims = list(targets)
            if not self.aims:
                raise MonadnockError("No rows were named; name some, or give 'auto'.")

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Find the rows, and let the model read them through masks."""
        if getattr(args, "n_gpu", 1) > 1:
            raise MonadnockError(
                f"{args.n_gpu} GPUs in one process were found, each with a copy of its own of the model; start with "
                "torchrun (DDP), or set CUDA_VISIBLE_DEVICES to one."
            )
        self.remove()
        self.history = [each for each in self.history if each[0] <= state.global_step]
        tokenizer = kwargs.get("processing_class")
        adapter = bare_adapter(model, tokenizer)
        self._epoch = int((state.epoch or 0.0) + 1e-6)  # epochs that are over
        if self._finds:
            self.aims = [find_aim(model, adapter, self.k)]
        self._rows = MaskedRows(adapter, self.aims, self.scope)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count epochs, also those that another callback ends early."""
        self._epoch += 1

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the masks of a step."""
        assert self._rows is not None, "training began without on_train_begin"
        step = state.global_step + 1
        p = self.schedule.probability(step, state.max_steps, self._epoch, max(state.num_train_epochs, self._epoch))
        self.history.append((step, p, self._rows.draw(p, mixed(self.seed, step))))
        self._rows.active = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the model read its weights as they are, until the next step."""
        if self._rows is not None:
            self._rows.active = False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take all hooks away."""
        self.remove()

    def take_aims(self, run: Run) -> None:
        """Take the rows that a run names, in place of finding them when training begins."""
        self.aims, self._finds = aims_of(run, self.k), False

    def remove(self) -> None:
        """Take all hooks away; only needed after a training that ended with an exception, to train otherwise."""
        if self._rows is not None:
            self._rows.remove()
        self._rows = None


def aims_of(run: Run, k: int) -> list[Aim]:
    """Return the k most massive rows that a run names, in its massive layer.

    Raises:
        MonadnockError: if the run has no table massive_weights, or fewer rows in it.
    """
    check_tables(run)
    found = run.table("massive_weights").sort("rank")
    here = found.filter(
        pl.col("layer") == found["layer"][0], pl.col("expert").eq_missing(pl.lit(found["expert"][0], pl.Int64))
    )
    if here.height < k:
        raise MonadnockError(f"{k} massive rows were asked, but {run.path} names {here.height}; ask for fewer.")
    return [Aim(found["layer"][0], found["expert"][0], tuple(here["feature"].head(k).to_list()))]


def bare_adapter(model: Any, tokenizer: Any) -> Adapter:
    """Return the adapter of the transformers model inside what peft, DDP or torch.compile put around it."""
    from accelerate.utils import extract_model_from_parallel

    inner: Any = extract_model_from_parallel(model, keep_torch_compile=False)
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    return Adapter(inner, tokenizer, Source(getattr(inner, "name_or_path", "") or "model", "object"))


@contextmanager
def _without_adapter(model: Any) -> Iterator[None]:
    """Switch the adapter off: one that peft put around a model, or that transformers' own `add_adapter` put in."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
    elif getattr(model, "_hf_peft_config_loaded", False):
        model.disable_adapters()
        try:
            yield
        finally:
            model.enable_adapters()
    else:
        yield


def find_aim(model: Any, adapter: Adapter, k: int) -> Aim:
    """Return the k rows with the largest |x_down| of the start token in the massive layer, without any adapter.

    Raises:
        MonadnockError: if there is no tokenizer, or it has no start token.
    """
    start = getattr(adapter.tokenizer, "bos_token_id", None)
    if start is None:
        start = getattr(adapter.config, "bos_token_id", None)
    if not isinstance(start, int):
        raise MonadnockError(
            "No start token is known (the trainer has no tokenizer with BOS), with which massive rows are found; give "
            "rows, or a run of `monadnock scan`."
        )
    with _without_adapter(model), evaluating(adapter.model), torch.no_grad():
        states = start_states(adapter, start)
    layer = massive_layer(states.residual, states.inner)
    if k > states.inner.shape[1]:
        raise MonadnockError(f"{k} massive rows were asked, but the FFN has {states.inner.shape[1]}; ask for fewer.")
    rows = states.inner[layer].abs().topk(k).indices.tolist()
    return Aim(layer, states.experts[layer], tuple(rows))
