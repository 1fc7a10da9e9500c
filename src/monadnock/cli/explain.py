"""`monadnock explain`: cut every link from massive weights to predictions, and say what goes with it."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli.console import INTERRUPTED, Told, complain, near
from monadnock.findings.chain_links import LINKS
from monadnock.findings.summary_chain import find_cuts, number, paragraph, texts


def command(
    model: Annotated[str, typer.Argument(help="packaged name, hub id (owner/name@revision), folder or .gguf file")],
    out: Annotated[
        Path | None, typer.Option(help="a run of this model to add to, or a new folder  [default: a new one]")
    ] = None,
    controls: Annotated[int, typer.Option(help="random draws beside each cut", min=1)] = 3,
    text: Annotated[Path | None, typer.Option(help="text file  [default: a built-in text]")] = None,
    dataset: Annotated[str | None, typer.Option(help="data set instead, as owner/name:config:split")] = None,
    tokens: Annotated[int | None, typer.Option(help="tokens in all  [default: 2048]")] = None,
    length: Annotated[int | None, typer.Option(help="tokens of a window  [default: 1024, or the context]")] = None,
    bos: Annotated[bool | None, typer.Option("--bos/--no-bos", help="BOS in front  [default: if there is one]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; auto spreads over all")] = None,
) -> None:
    """Test the chain from massive weights over activations and sinks to predictions, link by link."""
    from monadnock.explaining import explain  # here, so that other verbs start without torch
    from monadnock.preparing import fresh_path

    out = fresh_path(model) if out is None else out
    try:
        run = explain(
            model,
            out=out,
            controls=controls,
            text=text,
            dataset=dataset,
            tokens=tokens,
            length=length,
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
    table = run.table("chain")
    for data in texts(table):
        here = table.filter(pl.col("data") == data)
        print(f"{data}\n")
        _print_chain(here)
        print()
        Console().print(escape(paragraph(here)), highlight=False)
        print()
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} chain")


def _print_chain(table: pl.DataFrame) -> None:
    """Print every link that was tested, and under it the ways to cut it with what they do; the page has more."""
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan")
    grid.add_column("link, cut by")
    grid.add_column("metric")
    for name in ("before", "after", "at random"):
        grid.add_column(name, justify="right")
    for link in LINKS:
        cuts = [cut for cut in find_cuts(table, link) if cut.verdict]
        if cuts:
            grid.add_row(escape(link.name))
        for cut in cuts:
            name = f"  {cut.mode} {cut.k}"
            for row in cut.rows:
                if row["metric"] and row["metric"] != "implicit_scaling":
                    values = [number(row[when], row["metric"]) for when in ("before", "after", "control")]
                    grid.add_row(escape(name), row["metric"], *values)
                    name = ""
    Console().print(grid)
