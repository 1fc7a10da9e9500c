"""A callback that looks at outliers while a model learns, and writes them into a run."""

import itertools
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import TrainerCallback

from monadnock import processes
from monadnock.arguments import checked
from monadnock.data import Windows
from monadnock.errors import MonadnockError
from monadnock.evaluation.questions import digits
from monadnock.findings import Run
from monadnock.findings.manifest import Manifest, ModelFacts
from monadnock.models import Adapter
from monadnock.preparing import model_facts, text_facts, versions
from monadnock.pretraining.watching import watch
from monadnock.thresholds import GU2025_SINK_MASS
from monadnock.training.macdrop import bare_adapter

NAME = "training"  # of one, where none is given
SEQUENCES = 4  # looked at, where none are given
SEEN = "outliers.json"  # in a checkpoint: what was seen so far
_STEP = ("step", "loss", "learning_rate", "grad_norm")


class OutlierMonitor(TrainerCallback):
    """Watches outliers grow: add it to any Trainer of transformers.

    Every few steps it looks at a few sequences with `watch`, and writes the tables `training_outliers` and
    `training_steps` into a run: when a checkpoint is saved, and at the end. A resumed training goes on with what its
    checkpoint holds. Under DDP the first rank looks; under FSDP 2, where no rank has all weights, all look together.
    What it saw last is added to what the Trainer logs, for every tracker that `report_to` names, if it was added with
    `attach`.

    Args:
        windows: token ids, [sequence, token], the same at each look; by default the first sequences of the training
            data.
        every: steps between two looks.
        out: folder of a run, which is made if it is not there; None writes nothing.
        name: of the training, in the tables, where it takes the place of one with the same name; by default `training`,
            or `training 2` and so on where the run has that.

    Attributes:
        rows: of the table `training_outliers`, so far.
        seconds: spent looking.

    Raises:
        MonadnockError: when training begins, if the data gives no token ids, the model's family is not known, or its
            weights are spread by FSDP 1 or DeepSpeed ZeRO-3.

    Example:
        >>> trainer = Trainer(model=model, ...)  # doctest: +SKIP
        >>> OutlierMonitor(every=100, out="runs/mine").attach(trainer)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    @checked
    def __init__(
        self,
        windows: Tensor | None = None,
        *,
        every: int = 100,
        out: str | Path | None = None,
        name: str | None = None,
    ):
        if every < 1:
            raise MonadnockError(f"A look every {every} steps was asked; give at least 1.")
        if windows is not None and (windows.dim() != 2 or windows.is_floating_point()):
            raise MonadnockError(
                f"Windows of shape {list(windows.shape)} were given; give token ids [sequence, token]."
            )
        self.windows, self.every, self.out = windows, every, None if out is None else Path(out)
        self.asked, self.name = name, name or NAME
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._together = False  # whether all ranks look
        self._seen: int | None = None  # step of the last look

    def attach(self, trainer: Any) -> "OutlierMonitor":
        """Add it to a Trainer, in front of what reports to trackers."""
        trainer.callback_handler.callbacks.insert(0, self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Begin the run, or go on from a checkpoint; look for the first time."""
        self._together, self.rows = _is_spread(model), []  # before any rank goes its own way
        if not self._looks(state):
            return
        adapter = bare_adapter(model, kwargs.get("processing_class"))
        if self.windows is None:
            self.windows = _first(kwargs.get("train_dataloader"))
        if state.is_world_process_zero:
            self._begin(args, state, adapter)
        self._seen = self.rows[-1]["step"] if self.rows else None
        if self._together:
            self._seen = processes.from_first(self._seen)
        if self._seen is None:
            self._look(state, adapter)

    def _begin(self, args: Any, state: Any, adapter: Adapter) -> None:
        """Take up what was seen before a stop, and see that the run is there and about this model."""
        saved = Path(args.output_dir) / f"checkpoint-{state.global_step}" / SEEN
        there = self.out is not None and (self.out / "manifest.json").is_file()
        if state.global_step and saved.is_file():
            self.rows = json.loads(saved.read_text(encoding="utf-8"))
            self.name = self.asked or next((row["name"] for row in self.rows), self.name)
        elif state.global_step:
            self.rows = self._written(state)
        elif self.asked is None and there:
            self.name = _free_name(Run.open(str(self.out)))
        if self.out is not None and not there:
            assert self.windows is not None
            windows = Windows(self.windows.cpu(), False, "sequences looked at in training", 0)
            begin_run(self.out, adapter, windows, adapter.source.id)
        if self.out is not None and (differs := _differs(Run.open(self.out).manifest.model, model_facts(adapter))):
            raise MonadnockError(f"{self.out} is about another model ({differs}); give OutlierMonitor another folder.")

    def _looks(self, state: Any) -> bool:
        return state.is_world_process_zero or self._together

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look every few steps."""
        if self._looks(state) and state.global_step % self.every == 0:
            self._look(state, model)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Add what was seen last to what is logged."""
        if logs is not None and "loss" in logs and self.rows:
            logs.update(self.last())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what was seen, in the checkpoint and in the run."""
        if state.is_world_process_zero:
            saved = Path(args.output_dir) / f"checkpoint-{state.global_step}" / SEEN
            if saved.parent.is_dir():
                saved.write_text(json.dumps(self.rows), encoding="utf-8")
            self.write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look for the last time, and write."""
        if self._looks(state) and self._seen not in (None, state.global_step):
            self._look(state, model)
        if state.is_world_process_zero:
            self.write(state)

    def _written(self, state: Any) -> list[dict[str, Any]]:
        """Return what the run has of this training up to a step, where its checkpoint says nothing."""
        if self.out is None or not (self.out / "manifest.json").is_file():
            return []
        run, part = Run.open(self.out), part_name(self.name)
        rows = run.part("training_outliers", part).to_dicts() if run.has("training_outliers", part) else []
        return [row for row in rows if row["step"] <= state.global_step]

    def last(self) -> dict[str, float]:
        """Return what was seen last, in the worst layer, under names for trackers."""
        rows = [row for row in self.rows if row["step"] == self.rows[-1]["step"]]
        heads = sum(row["heads"] for row in rows)
        found = {
            "outliers/max_over_median": max(row["top_1"] / max(row["median"], 1e-30) for row in rows),
            "outliers/largest": max(row["top_1"] for row in rows),
            "outliers/kurtosis": max((row["kurtosis"] for row in rows if row["kurtosis"] is not None), default=None),
            "outliers/sink_share": sum(row["sinks"] for row in rows) / heads if heads else None,
            "outliers/x_down": max((row["x_down"] for row in rows if row["x_down"] is not None), default=None),
        }
        return {name: value for name, value in found.items() if value is not None}

    def write(self, state: Any) -> None:
        """Write both tables into the run."""
        if self.out is None:
            return
        run, part = Run.open(self.out), part_name(self.name)
        run.add("training_outliers", part, self.rows)
        logged = [row for row in state.log_history if "loss" in row]
        run.add("training_steps", part, [{"name": self.name} | {key: row.get(key) for key in _STEP} for row in logged])

    def _look(self, state: Any, model: Any) -> None:
        began = time.monotonic()
        assert self.windows is not None
        self._seen = state.global_step
        about = {"name": self.name, "step": state.global_step, "planned": state.max_steps or None}
        self.rows += [about | row for row in watch(model, self.windows)]
        self.seconds += time.monotonic() - began


def _differs(theirs: ModelFacts, mine: ModelFacts) -> str:
    """Say in what the shapes of two models differ."""
    names = ("family", "num_layers", "hidden_size", "num_heads", "num_kv_heads", "intermediate_size", "vocab_size")
    pairs = ((name, getattr(theirs, name), getattr(mine, name)) for name in names)
    return ", ".join(f"{name} {one} there, {other} here" for name, one, other in pairs if one != other)


def _is_spread(model: Any) -> bool:
    """Say whether no process has all weights, so that all have to take part in a pass; refuse where that is not enough.

    Raises:
        MonadnockError: under FSDP 1 and DeepSpeed ZeRO-3.
    """
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()) or any(
        hasattr(parameter, "ds_id") for parameter in model.parameters()
    ):
        raise MonadnockError(
            "The weights are spread by FSDP 1 or DeepSpeed ZeRO-3, and OutlierMonitor cannot look at them; use FSDP 2 "
            "(version 2 in fsdp_config) or DDP."
        )
    return any(hasattr(parameter, "placements") for parameter in model.parameters())


def _free_name(run: Run) -> str:
    """Return a name that no training of a run has."""
    names = itertools.chain([NAME], (f"{NAME} {number}" for number in itertools.count(2)))
    return next(name for name in names if not run.has("training_outliers", part_name(name)))


def part_name(name: str) -> str:
    """Return a training's name as a file may have it; names that would be one file differ by a hash."""
    slug = "".join(char if char.isalnum() or char in "._" else "-" for char in name.replace(",", ""))[:100]
    plain = len(name) <= 100 and all(char.isalnum() or char in "._ ," for char in name)
    return slug if plain and slug else f"{slug}-{digits(name)}"


def begin_run(path: Path, adapter: Adapter, windows: Windows, model: str) -> Run:
    """Write a run without tables, that says what is trained, and at which sequences it is looked.

    Raises:
        MonadnockError: if something else is in the folder.
    """
    manifest = Manifest(
        monadnock=version("monadnock"),
        model=model_facts(adapter).model_copy(update={"id": model}),
        text=text_facts(adapter, windows, int(windows.ids[0, 0])),
        probes=[],
        attention="eager, observed in blocks",
        thresholds={"gu2025.sink_mass": GU2025_SINK_MASS},
        versions=versions(),
        self_check=None,
        seconds=0.0,
    )
    return Run.write(path, manifest, {})


def _first(loader: Any) -> Tensor:
    """Return the first sequences of the training data, cut to the shortest."""
    try:
        count = min(SEQUENCES, len(loader.dataset))
        rows = [torch.as_tensor(loader.dataset[place]["input_ids"]) for place in range(count)]
    except (TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:  # the last: a stream
        raise MonadnockError(
            "The training data has no sequences of input_ids that can be taken by number; give OutlierMonitor windows."
        ) from error
    length = min(len(row) for row in rows)
    return torch.stack([row[:length] for row in rows])
