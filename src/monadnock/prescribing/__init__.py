"""Prescribing: from the tables of a run to what to do before quantising, and a recipe for llm-compressor."""

import shlex
from pathlib import Path
from typing import cast

from monadnock.errors import MonadnockError, nearest
from monadnock.findings import Run
from monadnock.prescribing.keeping import keep_modules
from monadnock.prescribing.massive import massive_rows, measured_modules
from monadnock.prescribing.naming import CONV1D, ignored
from monadnock.prescribing.prescription import Findings, Prescription, ranked
from monadnock.prescribing.recipe import STRATEGIES, Recipe, Strategy, read_recipe, write_recipe
from monadnock.prescribing.scales import activation_scales, weight_scales
from monadnock.prescribing.sinks import sinks

__all__ = ["Recipe", "prescribe", "prescriptions", "read_recipe", "write_recipe"]

READ = (
    "activations", "compressions", "effects", "features", "heads", "layers", "massive_weights", "norm_gains", "norms",
    "parameters", "sensitivity", "super_weights", "weights",
)  # fmt: skip
JUDGED = ("compressions", "features", "heads", "massive_weights", "sensitivity", "weights")
GROUPS = (128, 64, 32, 16)  # columns of a group, the first that fits
NOTHING = "the recipe rounds nothing there, while `monadnock compress` follows it all the same."
PART = "recipe"  # one table stands beside one recipe


def prescribe(run: str | Path | Run, *, bits: int = 4, granularity: str = "row", out: str | Path | None = None) -> Path:
    """Turn a run's findings into prescriptions, which are added to it, and a recipe that llm-compressor reads.

    Args:
        run: a run, or its folder.
        bits: of a rounded weight, 2 to 8.
        granularity: what shares a scale: tensor, row, or group (128 columns of a row, or the next power of 2 by which
            the model's widths can be divided).
        out: the recipe's file; by default `recipe.yaml` in the run.

    Returns:
        The recipe's file. The table `prescriptions` of the run is replaced.

    Raises:
        MonadnockError: if it is not a run, there is nothing in it to judge from, or something cannot be written.

    Example:
        >>> prescribe("demo", bits=4, granularity="group")  # doctest: +SKIP
        PosixPath('demo/recipe.yaml')
    """
    run = run if isinstance(run, Run) else Run.open(run)
    path = Path(out) if out is not None else run.path / "recipe.yaml"
    rows, recipe = prescriptions(run, bits=bits, granularity=granularity)
    model = run.manifest.model.id
    notes = (
        f"Written by monadnock prescribe for {model}: {recipe}.",
        f"Use it:    llmcompressor.oneshot(model=..., recipe={path.name!r})",
        f"Measure it: monadnock compress {model} --recipe {path.name}",
    )
    write_recipe(recipe, path, notes)
    run.add("prescriptions", PART, rows)
    return path


def prescriptions(run: Run, *, bits: int = 4, granularity: str = "row") -> tuple[list[dict], Recipe]:
    """Return the rows of the table `prescriptions` and the recipe, without writing either.

    Args:
        run: the run.
        bits: of a rounded weight.
        granularity: tensor, row or group.

    Raises:
        MonadnockError: on bad settings, or if there is nothing to judge from.
    """
    if granularity not in STRATEGIES:
        raise MonadnockError(f"There is no granularity {granularity!r}: {nearest(granularity, STRATEGIES)}")
    strategy = cast(Strategy, granularity)
    Recipe(bits, "row")  # refuses wrong bits before anything is read
    heights = run.heights()
    tables = {name: run.table(name) for name in READ if heights.get(name)}
    if not any(name in tables for name in JUDGED):
        scan = f"`monadnock scan {run.manifest.model.id} --out DIR`"
        raise MonadnockError(f"{run.path} holds nothing to judge from; {scan} makes such a run.")
    group = _group(tables, run) if strategy == "group" else None
    found = Findings(tables, run.manifest, bits, strategy, group, shlex.quote(str(run.path)))
    told = [*keep_modules(found), *weight_scales(found), *activation_scales(found), *sinks(found), *massive_rows(found)]
    told += measured_modules(found)
    family = run.manifest.model.family
    if family in CONV1D:
        told.append(
            Prescription("not_judged", f"llm-compressor rounds Linear layers; {family} stores Conv1D: {NOTHING}")
        )
    rows = ranked(told)
    kept = [row for row in rows if row["action"] == "keep_module"]
    return rows, Recipe(bits, strategy, group, ignore=ignored(kept, family, lambda role: _path(family, role)))


def _group(tables: dict, run: Run) -> int:
    """Return the widest group that divides the widths of all matrices."""
    model = run.manifest.model
    widths = [model.hidden_size, model.intermediate_size]
    if "parameters" in tables:  # W_o has hidden_size rows
        counts = tables["parameters"].filter(component="o")["count"].drop_nulls()
        widths += [int(count) // model.hidden_size for count in counts.unique()]
    for size in GROUPS:
        if all(width % size == 0 for width in widths):
            return size
    raise MonadnockError(
        f"{model.id} has matrices of {', '.join(str(width) for width in sorted(set(widths)))} columns, which groups of "
        f"{GROUPS[-1]} do not divide; prescribe by row or tensor."
    )


def _path(family: str, role: str) -> str | None:
    """Return the path of a role under a decoder layer, from what is known of the family."""
    from monadnock.models.family import family as family_of  # here: the package that it is in starts torch

    path = getattr(family_of(family), role)
    return str(path).partition("#")[0] if path else None
