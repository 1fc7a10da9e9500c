"""`monadnock compress`: compress the linear layers of a model, measure what it loses, save it if asked."""

from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.errors import MonadnockError
from monadnock.findings import Run

METRICS = ("average_bits", "stored_bits", "perplexity", "kl", "top1_agreement")


def command(
    model: options.Model,
    out: options.AddTo = None,
    method: Annotated[str, typer.Option(help="absmax, magnitude, rtn, gptq or spqr")] = "absmax",
    granularity: Annotated[
        str | None, typer.Option(help="what shares a scale: tensor, row or group  [default: the method's own]")
    ] = None,
    bits: Annotated[int | None, typer.Option(help="bits of a weight  [default: 8 absmax, 4 rtn gptq, 3 spqr]")] = None,
    group: Annotated[int | None, typer.Option(help="columns that share a scale  [default: 16 by group]")] = None,
    share: Annotated[
        float | None, typer.Option(help="of weights that magnitude pruning sets to 0  [default: 0.5]")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="of spqr; lower: more outliers kept apart  [default: 0.2]")
    ] = None,
    keep_massive: Annotated[bool, typer.Option("--keep-massive", help="keep massive rows in 16 bits")] = False,
    skip: Annotated[
        str | None, typer.Option(help="modules left as they are, by checkpoint names, or re:PATTERN; comma-separated")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="a recipe of `monadnock prescribe`: measured with and without what it keeps")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="write the compressed model into the run's folder")] = False,
    text: options.Text = None,
    dataset: options.Dataset = None,
    windows: Annotated[int | None, typer.Option(help="first windows of the text, to measure on  [default: 8]")] = None,
    calibration: Annotated[
        int | None, typer.Option(help="last windows of the text, for gptq and spqr  [default: 32]")
    ] = None,
    length: options.Length = None,
    bos: options.Bos = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Compress a model's linear layers and measure what it loses: perplexity before and after."""
    from monadnock.compression import compress  # here, so that other verbs start without torch
    from monadnock.preparing import fresh_path

    if recipe is not None and (granularity or bits or group or skip or method != "absmax"):
        raise MonadnockError("A recipe says itself what is rounded and how; give it without other settings.")
    out = fresh_path(model) if out is None else out
    how: dict[str, Any] = {
        "out": out,
        "keep_massive": keep_massive,
        "text": text,
        "dataset": dataset,
        "windows": windows,
        "calibration": calibration,
        "length": length,
        "bos": bos,
        **options.loading(dtype, device),
    }
    with options.can_go_on(out):
        if recipe is not None:
            from monadnock.prescribing import read_recipe

            asked = read_recipe(recipe)
            settings: dict[str, Any] = {
                "method": method,
                "granularity": asked.strategy,
                "bits": asked.bits,
                "group": asked.group,
            }
            compress(model, **settings, **how)
            run = compress(model, **settings, skip=asked, save=save, **how)
        else:
            run = compress(
                model,
                method=method,
                granularity=granularity,
                bits=bits,
                group=group,
                share=share,
                threshold=threshold,
                skip=options.names(skip or ""),
                save=save,
                **how,
            )
    tell(run)
    for kind in ("checkpoints", "packed") if save else ():
        for folder in sorted((run.path / kind).glob("[!.]*")):
            print(f"Saved:  {near(folder)}")
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} compressions")


def tell(run: Run) -> None:
    """Print every compressor that the run has: bits, perplexity, and how far predictions moved."""
    effects = run.table("effects").filter(pl.col("method").is_not_null())
    columns = [name for name in METRICS if name in effects["metric"]]
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
    grid.add_column("compressor")
    for name in columns:
        grid.add_column(name.replace("_", " "), justify="right")
    for text in effects.partition_by("data", maintain_order=True):
        base = text.filter(metric="perplexity")["baseline"][0]
        grid.add_row("as it is", *["" if name != "perplexity" else f"{base:,.4g}" for name in columns])
        for each in text.partition_by("method", maintain_order=True):
            values = dict(each.select("metric", "value").rows())
            cells = [f"{values[name]:,.4g}" if values.get(name) is not None else "" for name in columns]
            grid.add_row(escape(each["method"][0]), *cells)
    Console().print(grid)
