"""`monadnock scan`: find a model's outliers, write a run and its page, tell what was found."""

from pathlib import Path
from typing import Annotated

import typer

from monadnock.cli import options
from monadnock.cli.console import near, print_summary
from monadnock.findings import Run


def command(
    model: options.Model,
    out: Annotated[Path | None, typer.Option(help="folder of the run  [default: a new one in monadnock-runs/]")] = None,
    text: Annotated[Path | None, typer.Option(help="text file to scan over  [default: a built-in text]")] = None,
    dataset: options.Dataset = None,
    tokens: Annotated[int | None, typer.Option(help="tokens in all  [default: 4096]")] = None,
    length: options.Length = None,
    bos: options.Bos = None,
    probes: Annotated[
        str | None, typer.Option(help="comma-separated, as weights,activations:query+key  [default: all]")
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    force: Annotated[bool, typer.Option("--force", help="replace a run that is already there")] = False,
) -> None:
    """Find a model's systematic outliers; write a run and its report."""
    from monadnock.processes import is_first  # here, so that other verbs start without torch
    from monadnock.scanning import scan

    run = scan(
        model,
        out=out,
        text=text,
        dataset=dataset,
        tokens=tokens,
        length=length,
        bos=bos,
        probes=None if probes is None else options.names(probes),
        **options.loading(dtype, device),
        force=force,
    )
    if is_first():
        tell(run)


def tell(run: Run) -> None:
    """Print a run's findings, where its page is, and what to try next."""
    print_summary(run.summary())
    print(f"Report: {near(run.report())}")
    shown = "massive_weights" if "massive_weights" in run.manifest.tables else next(iter(run.manifest.tables), "")
    print(f"Next:   monadnock show {near(run.path)} {shown}")
