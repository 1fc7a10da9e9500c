"""`monadnock attack`: take massive weights away, or all others, and measure what the model loses."""

from pathlib import Path
from typing import Annotated

import typer

from monadnock.cli.console import INTERRUPTED, Told, complain, near, print_effects
from monadnock.errors import MonadnockError


def command(
    model: Annotated[str, typer.Argument(help="packaged name, hub id (owner/name@revision), folder or .gguf file")],
    out: Annotated[
        Path | None, typer.Option(help="a run of this model to add to, or a new folder  [default: a new one]")
    ] = None,
    mode: Annotated[str, typer.Option(help="comma-separated; `monadnock ls modes` has all")] = "zero,retain,random",
    k: Annotated[str, typer.Option(help="how many rows, comma-separated")] = "1,3,5,10,30,50",
    metric: Annotated[
        str, typer.Option(help="comma-separated: perplexity, kl, chain, generation[:FILE], tasks[:NAME+NAME]")
    ] = "perplexity,kl,chain,generation",
    layer: Annotated[str | None, typer.Option(help="layers to attack together  [default: the massive layer]")] = None,
    rows: Annotated[str | None, typer.Option(help="rows to attack, comma-separated  [default: the largest]")] = None,
    expert: Annotated[int | None, typer.Option(help="expert to attack  [default: the start token's]")] = None,
    seeds: Annotated[int, typer.Option(help="draws of what is random", min=1)] = 1,
    limit: Annotated[int | None, typer.Option(help="examples of each task  [default: all]", min=1)] = None,
    text: Annotated[Path | None, typer.Option(help="text file  [default: a built-in text]")] = None,
    dataset: Annotated[str | None, typer.Option(help="data set instead, as owner/name:config:split")] = None,
    tokens: Annotated[int | None, typer.Option(help="tokens in all  [default: 2048]")] = None,
    length: Annotated[int | None, typer.Option(help="tokens of a window  [default: 1024, or the context]")] = None,
    stride: Annotated[int | None, typer.Option(help="tokens between windows  [default: no overlap]")] = None,
    bos: Annotated[bool | None, typer.Option("--bos/--no-bos", help="BOS in front  [default: if there is one]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; auto spreads over all")] = None,
) -> None:
    """Attack a model's massive weights and measure what it loses; every result is kept at once."""
    from monadnock.attacking import attack  # here, so that other verbs start without torch
    from monadnock.preparing import fresh_path

    out = fresh_path(model) if out is None else out
    try:
        run = attack(
            model,
            out=out,
            modes=_names(mode),
            ks=_numbers("k", k) or [],
            metrics=_names(metric),
            layers=_numbers("layer", layer),
            rows=_numbers("row", rows),
            expert=expert,
            seeds=seeds,
            limit=limit,
            text=text,
            dataset=dataset,
            tokens=tokens,
            length=length,
            stride=stride,
            bos=bos,
            dtype=dtype,
            device=None if device == "auto" else device,
            device_map="auto" if device == "auto" else None,
        )
    except KeyboardInterrupt:
        if not (out / "manifest.json").is_file():
            raise
        complain(f"Stopped; what was measured is in {near(out)}: the same command with --out {near(out)} goes on.")
        raise Told(INTERRUPTED) from None
    print_effects(run.table("effects"))
    if not run.table("massive_weights")["massive"].any():
        print("Note:   no row of this model is massive (sun2024), so that what was attacked is the largest there is.")
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} effects")


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _numbers(what: str, given: str | None) -> list[int] | None:
    """Read comma-separated whole numbers."""
    if given is None:
        return None
    try:
        return [int(number) for number in _names(given)]
    except ValueError:
        raise MonadnockError(f"{given!r} was given as {what}; give whole numbers, as 1,3,5.") from None
