"""`monadnock study`: show a model chosen inputs, tell which tokens are massive and which are sinks."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.findings import Run


def command(
    kind: Annotated[str, typer.Argument(help="bos, length or attention")],
    model: options.Model,
    out: options.AddTo = None,
    prompt: Annotated[str | None, typer.Option(help="text for bos and attention  [default: the published one]")] = None,
    layer: Annotated[str | None, typer.Option(help="layers to keep maps of too, comma-separated")] = None,
    head: Annotated[str | None, typer.Option(help="heads to keep maps of, besides their mean")] = None,
    bos: Annotated[
        bool | None, typer.Option("--bos/--no-bos", help="BOS in front, for length and attention  [default: see docs]")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="text file to scan for a new run  [default: built-in]")] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Study a model over chosen inputs: where BOS matters, what length does, maps of attention."""
    from monadnock.preparing import fresh_path  # here, so that other verbs start without torch
    from monadnock.studying import study
    from monadnock.studying.inputs import SENTENCES

    layers, heads = options.numbers("layer", layer), options.numbers("head", head)
    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = study(
            model,
            kind,
            out=out,
            prompt=prompt,
            layers=layers,
            heads=heads,
            bos=bos,
            text=text,
            **options.loading(dtype, device),
        )
    tell(run, kind, SENTENCES if prompt is None and kind != "length" else prompt)
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} inputs")


def tell(run: Run, kind: str, prompt: str | None) -> None:
    """Print which tokens of each input of a study stand out, and of what there are maps.

    Args:
        run: a run with the tables `inputs` and `maps`.
        kind: the kind of study.
        prompt: which prompt, if there are several.
    """
    from monadnock.findings import summary_studies as studies
    from monadnock.report.text import token as visible  # here: charts take a second

    tables = {name: run.table(name) for name in ("inputs", "massive_weights")}
    layer = studies.shown_layer(run.manifest, tables)
    tokens = studies.by_token(run.manifest, tables).filter(study=kind)
    tokens = tokens if prompt is None else tokens.filter(pl.col("prompt") == prompt)
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan")
    grid.add_column("input, and its tokens\nthat stand out", no_wrap=True)
    after = studies.next_layer(run.manifest, layer)
    for name in (f"|h| behind\nlayer {layer}", "", f"attention\nin layer {after}", "if\nequal", "sink of\nheads"):
        grid.add_column(name, justify="right" if name else "left", no_wrap=True)
    for each in tokens.partition_by("prompt", "input", maintain_order=True):
        grid.add_row(f"[bold]{escape(each['input'][0])}[/bold]", f"{each.height} token{'s' * (each.height > 1)}")
        for row in studies.listed(run.manifest, each).to_dicts():
            grid.add_row(
                f"{row['position']:5} {escape(visible(row['token']))}",
                studies.number(row["top1"]),
                "massive" if row["massive"] else "",
                *(studies.share(row[name]) for name in ("attention", "uniform")),
                str(row["sinks"]),
            )
    Console().print(grid)
    model = run.manifest.model
    print(f"Heads:  {model.num_layers * model.num_heads} in all; the last quarter of a text cannot be a sink.")
    if tokens["input"].str.starts_with("no start token").any():
        print("Note:   the tokenizer has no BOS token; the run's start token stands in for it.")
    print(f"Maps:   {studies.kept(run.table('maps').filter(study=kind))}")
