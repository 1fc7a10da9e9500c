"""`monadnock scan`: find a model's outliers, write a run and its page, tell what was found."""

from pathlib import Path
from typing import Annotated

import typer

from monadnock.cli.console import near, print_summary
from monadnock.findings import Run


def command(
    model: Annotated[str, typer.Argument(help="packaged name, hub id (owner/name@revision), folder or .gguf file")],
    out: Annotated[Path | None, typer.Option(help="folder of the run  [default: a new one in monadnock-runs/]")] = None,
    text: Annotated[Path | None, typer.Option(help="text file to scan over  [default: a built-in text]")] = None,
    dataset: Annotated[str | None, typer.Option(help="data set instead, as owner/name:config:split")] = None,
    tokens: Annotated[int | None, typer.Option(help="tokens in all  [default: 4096]")] = None,
    length: Annotated[int | None, typer.Option(help="tokens of a window  [default: 1024, or the context]")] = None,
    bos: Annotated[bool | None, typer.Option("--bos/--no-bos", help="BOS in front  [default: if there is one]")] = None,
    probes: Annotated[
        str | None, typer.Option(help="comma-separated, as weights,activations:query+key  [default: all]")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; auto spreads over all")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a run that is already there")] = False,
) -> None:
    """Find a model's systematic outliers; write a run and its report."""
    from monadnock.scanning import scan  # here, so that other verbs start without torch

    run = scan(
        model,
        out=out,
        text=text,
        dataset=dataset,
        tokens=tokens,
        length=length,
        bos=bos,
        probes=None if probes is None else [name.strip() for name in probes.split(",") if name.strip()],
        dtype=dtype,
        device=None if device == "auto" else device,
        device_map="auto" if device == "auto" else None,
        force=force,
    )
    tell(run)


def tell(run: Run) -> None:
    """Print a run's findings, where its page is, and what to try next."""
    print_summary(run.summary())
    print(f"Report: {near(run.report())}")
    shown = "massive_weights" if "massive_weights" in run.manifest.tables else next(iter(run.manifest.tables), "")
    print(f"Next:   monadnock show {near(run.path)} {shown}")
