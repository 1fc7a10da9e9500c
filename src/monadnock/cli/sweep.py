"""`monadnock sweep`: run one verb over a grid of settings, as a recipe says it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from monadnock.cli import finetune, pretrain
from monadnock.cli.console import INTERRUPTED, Told, complain, near
from monadnock.errors import MonadnockError
from monadnock.findings import Run


def command(
    recipe: Annotated[Path, typer.Argument(help="YAML file with verb, settings and cells", show_default=False)],
    change: Annotated[
        list[str] | None, typer.Option("--set", help="setting in place of the recipe's, NAME=VALUE")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: each cell a task of a Ray cluster (RAY_ADDRESS, or this machine's)")
    ] = "local",
    dry: Annotated[bool, typer.Option("--dry", help="say which cells there are, and run none")] = False,
) -> None:
    """Run one verb over a grid of settings; started again, it goes on."""
    changes = dict(map(_change, change or []))
    from monadnock.sweeping import (
        SweepError,
        folders,
        read_recipe,
        sweep,
    )  # here, so that other verbs start without torch

    if dry:
        read = read_recipe(recipe, changes)
        print(f"{read.verb}: {', '.join(f'{name} {value}' for name, value in read.settings.items())}")
        for number, told in enumerate(read.told(), 1):
            print(f"{number:>4}  {told}")
        print(f"Into:   {', '.join(dict.fromkeys(str(near(out)) for out in folders(recipe, read)))}")
        return
    try:
        tell(sweep(recipe, changes=changes, engine=engine))
    except SweepError as error:
        tell(error.runs)
        raise
    except KeyboardInterrupt:
        complain("Stopped; what was measured is kept, and the same command goes on.")
        raise Told(INTERRUPTED) from None


def tell(runs: list[Run]) -> None:
    """Print where the runs are, and of trainings what came out."""
    for run in runs:
        if "finetunings" in run.heights():
            finetune.tell(run)
        if "pretrainings" in run.heights():
            pretrain.tell(run)
        print(f"Run:    {near(run.path)}")
        print(f"Report: {near(run.report())}")


def _change(given: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = given.partition("=")
    if not equals or not name:
        raise MonadnockError(f"--set {given} was given; give NAME=VALUE, as --set model=smollm2.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise MonadnockError(
            f"--set {given} cannot be read; give a value as YAML has it, as --set ks=[1,2]."
        ) from error
