"""`monadnock attack`: take massive weights away, or all others, and measure what the model loses."""

from typing import Annotated

import polars as pl
import typer

from monadnock.cli import options
from monadnock.cli.console import near, print_effects


def command(
    model: options.Model,
    out: options.AddTo = None,
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
    text: options.Text = None,
    dataset: options.Dataset = None,
    tokens: options.Tokens = None,
    length: options.Length = None,
    stride: Annotated[int | None, typer.Option(help="tokens between windows  [default: no overlap]")] = None,
    bos: options.Bos = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Attack a model's massive weights and measure what it loses; every result is kept at once."""
    from monadnock.attacking import attack  # here, so that other verbs start without torch
    from monadnock.preparing import fresh_path

    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = attack(
            model,
            out=out,
            modes=options.names(mode),
            ks=options.numbers("k", k) or [],
            metrics=options.names(metric),
            layers=options.numbers("layer", layer),
            rows=options.numbers("row", rows),
            expert=expert,
            seeds=seeds,
            limit=limit,
            text=text,
            dataset=dataset,
            tokens=tokens,
            length=length,
            stride=stride,
            bos=bos,
            **options.loading(dtype, device),
        )
    print_effects(run.table("effects").filter(pl.col("method").is_null()))  # compressors are no attacks
    if not run.table("massive_weights")["massive"].any():
        print("Note:   no row of this model is massive (sun2024), so that what was attacked is the largest there is.")
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} effects")
