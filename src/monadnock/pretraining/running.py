"""Pretrain a model with an attention variant by a recipe, watch it, measure it, and write that into a run."""

import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from monadnock import processes
from monadnock.arguments import checked
from monadnock.compression.applying import compressed
from monadnock.compression.method import Method
from monadnock.data import Windows
from monadnock.errors import MonadnockError, nearest
from monadnock.evaluation.questions import digits
from monadnock.findings import Run
from monadnock.findings.run import check_free
from monadnock.models import Adapter
from monadnock.models.quiet import quiet
from monadnock.models.variants import VARIANTS
from monadnock.preparing import bar, random_state_kept
from monadnock.pretraining.data import Data, read_data
from monadnock.pretraining.monitor import OutlierMonitor, begin_run, part_name
from monadnock.pretraining.recipe import Recipe, read_recipe
from monadnock.pretraining.training import Trained, make_model, precision, train, written
from monadnock.training.fitting import check_finite
from monadnock.training.tokens import answer_loss

OUT = Path("monadnock-runs")
RECIPE = "recipe.yaml"  # in a run: what its trainings were told
TOKENS = ".monadnock-tokens"  # beside the run, for all runs there: texts as tokens, by their hash
ROUNDED, PRUNED = Method.of("absmax"), Method.of("magnitude")  # 8 bits a tensor; half of the weights (an2025, B.4)


def default_folder(recipe: str | Path) -> Path:
    """Return where the run of a recipe is by default: the same each time, so that trainings are beside each other."""
    return OUT / Path(recipe).stem


@checked
def pretrain(
    recipe: str | Path,
    *,
    variant: str = "default",
    architecture: str | None = None,
    data: Sequence[str | Path] | None = None,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Run:
    """Pretrain a small model with an attention variant, and watch its outliers grow (an2025, section 5).

    Several trainings of a recipe add to one run. A training that was stopped goes on from its last checkpoint, exactly,
    and one that is in the run already is not done again. Under torchrun each process takes its share of the batches.

    Args:
        recipe: a YAML file, see `monadnock.pretraining.Recipe`.
        variant: of attention, see `monadnock.models.variants`.
        architecture: gpt2 or llama; by default the recipe's.
        data: text files in place of the recipe's data.
        steps: in place of the recipe's.
        seed: of the first weights and of the order of the data.
        out: folder of the run; by default `monadnock-runs/NAME-OF-THE-RECIPE`.
        device: cpu, or by default cuda if there is one.
        progress: show a progress bar when the output is a terminal.

    Returns:
        The run, with rows in the tables `pretrainings`, `training_steps` and `training_outliers`, and the model under
        `models/`.

    Raises:
        MonadnockError: on bad input, too little data, a run of something else, or a loss that is no number.

    Example:
        >>> run = pretrain("recipes/pretrain_cpu_sinks.yaml", variant="sigmoid")  # doctest: +SKIP
        >>> run.table("pretrainings").select("loss", "absmax", "pruned")  # doctest: +SKIP
    """
    if variant not in VARIANTS:
        raise MonadnockError(f"There is no attention variant {variant!r}: {nearest(variant, VARIANTS)}")
    if not 0 <= seed < 2**32:
        raise MonadnockError(f"Seed {seed} was asked; give one from 0 to 2**32 - 1.")
    if device not in (None, "cpu", "cuda"):
        raise MonadnockError(f"Device {device!r} was asked; training takes cpu, or cuda if there is one.")
    if device == "cuda" and not torch.cuda.is_available():
        raise MonadnockError("Device 'cuda' was asked, and there is none here; leave --device out.")
    read = read_recipe(recipe, architecture=architecture, steps=steps, data=_texts(data))
    path = default_folder(recipe) if out is None else Path(out)
    if not (path / "manifest.json").is_file():
        check_free(path.absolute(), force=False)
    work = _Work(read, Path(recipe).stem, variant, seed, path, precision(read, device))
    with random_state_kept():
        work.run(device, progress)
    return Run.open(path)


def _texts(data: Sequence[str | Path] | None) -> dict[str, Any] | None:
    return None if data is None else {"text": [str(file) for file in data]}


@dataclass
class _Work:
    """One training: what is trained, and where that goes."""

    recipe: Recipe
    label: str
    variant: str
    seed: int
    path: Path
    dtype: str
    data: str = ""  # in words, once it is read

    @property
    def name(self) -> str:
        """The training, in the tables."""
        return f"{self.recipe.architecture} {self.variant}, seed {self.seed}"

    @property
    def told(self) -> str:
        """The recipe's name, with the first digits of the hash of what it and its data say."""
        told = self.recipe.model_copy(update={"about": ""}), self.data, self.dtype, processes.count()
        return f"{self.label} {digits(told)}"

    @property
    def part(self) -> str:
        """Name of its part of the tables, and of its folder."""
        return part_name(self.name)

    def run(self, device: str | None, progress: bool) -> None:
        """Train, measure and write, unless the run has it."""
        with processes.first_alone():  # tokens are written once
            data = read_data(self.recipe, self.seed, self.path.absolute().parent / TOKENS)
            self.data = data.label
        adapter = make_model(self.recipe, self.variant, data, self.seed)
        windows = data.batches(self.recipe.windows, self.recipe.windows)[0]["input_ids"]
        with processes.first_alone():
            if not (self.path / "manifest.json").is_file():
                self._begin(adapter, Windows(windows, data.bos, data.label, 0))
        run = self._run()
        folder = self.path / "models" / self.part
        if run.has("pretrainings", self.part) and (folder / "config.json").is_file():
            return
        monitor = OutlierMonitor(windows, every=self.recipe.watch, out=self.path, name=self.name)
        work = self.path / "models" / f".{self.part}"
        with bar(self.name, self.recipe.steps, progress and processes.is_first()) as step:
            trained = train(adapter, data, self.recipe, self.seed, work, monitor, step, device)
        with processes.first_alone():
            if processes.is_first():
                row = self._measured(adapter, data)
                self._check(trained, row["loss"], work)
                self._keep(run, data, trained, row, work, folder)

    def _run(self) -> Run:
        """Return the run, or refuse one of something else."""
        run = Run.open(self.path)
        held = run.manifest.model.id
        if held.rpartition(" ")[2] != self.told.rpartition(" ")[2]:  # whatever the recipe's file is called
            raise MonadnockError(
                f"{self.path} holds trainings of {held}, and {self.told} is something else ({self._differences(run)}); "
                "give another --out."
            )
        return run

    def _begin(self, adapter: Adapter, windows: Windows) -> None:
        """Begin the run, unless another training of the recipe was faster, and keep the recipe in it."""
        try:
            begin_run(self.path, adapter, windows, self.told)
            told = yaml.safe_dump(self.recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            (self.path / RECIPE).write_text(told, encoding="utf-8")
        except OSError as error:
            raise MonadnockError(f"{self.path} cannot be added to: {error.strerror}.") from error
        except MonadnockError:
            if not (self.path / "manifest.json").is_file():
                raise

    def _differences(self, run: Run) -> str:
        """Say what is told otherwise here than in the run."""
        theirs = None
        with suppress(OSError, ValueError, yaml.YAMLError):
            theirs = yaml.safe_load((self.path / RECIPE).read_text(encoding="utf-8"))
        if not isinstance(theirs, dict):
            return "digits stand for all that recipe, steps and data say"
        there, here = _flat(theirs), _flat(self.recipe.model_dump(mode="json"))
        there["what was read"], here["what was read"] = run.manifest.text.source, self.data
        changed = [name for name in here | there if there.get(name) != here.get(name) and name != "about"]
        if not changed:
            return "of another dtype or number of processes"
        told = [
            f"{name} {here.get(name, 'left out')!s:.60}, there {there.get(name, 'left out')!s:.60}" for name in changed
        ]
        return "; ".join(told[:4]) + ("; ..." if len(told) > 4 else "")

    def _check(self, trained: Trained, loss: float, work: Path) -> None:
        """Refuse a training that diverged, from which nothing goes on; its curves stay."""
        try:
            check_finite(trained.logged, loss)
        except MonadnockError as error:
            shutil.rmtree(work, ignore_errors=True)
            raise MonadnockError(
                f"{error} The curves of {self.name} up to there are in {self.path}; another rate needs another --out."
            ) from error

    def _keep(self, run: Run, data: Data, trained: Trained, row: dict[str, float], work: Path, folder: Path) -> None:
        """Write the model and the row that tells it."""
        adapter = trained.adapter
        with written("The model", folder):
            with quiet():
                adapter.model.save_pretrained(work / "model")
                adapter.tokenizer.save_pretrained(work / "model")
            if data.text is not None:
                (work / "model" / "text.txt").write_text(data.text, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            (work / "model").rename(folder)
        model, own = adapter.model, [p for n, p in adapter.model.named_parameters() if ".variant." in n]
        about = {"name": self.name, "architecture": self.recipe.architecture, "variant": self.variant}
        about |= {"seed": self.seed, "recipe": self.told, "data": data.label, "steps": self.recipe.steps}
        sequences = self.recipe.batch * self.recipe.accumulation * processes.count()
        about |= {"sequences": sequences, "dtype": self.dtype}
        about |= {"parameters": sum(p.numel() for p in model.parameters()), "added": sum(p.numel() for p in own)}
        about |= {"steps_per_second": trained.steps_per_second, "watching": trained.watching}
        run.add("pretrainings", self.part, [about | row | {"model": f"models/{self.part}"}])
        shutil.rmtree(work, ignore_errors=True)  # last: until then a new start goes on from its last checkpoint

    def _measured(self, adapter: Adapter, data: Data) -> dict[str, float]:
        """Return the loss of what is held back, and perplexity as it is, rounded and pruned."""
        batches = data.batches(self.recipe.held, self.recipe.batch)
        loss = answer_loss(adapter.model, batches)
        found = {"loss": loss, "perplexity": _exp(loss)}
        for name, method in (("absmax", ROUNDED), ("pruned", PRUNED)):
            with compressed(adapter, method):
                found[name] = _exp(answer_loss(adapter.model, batches))
        return found


def _flat(told: dict[str, Any]) -> dict[str, Any]:
    """Return names with values, those of a part as part.name."""
    flat: dict[str, Any] = {}
    for name, value in told.items():
        flat |= {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf
