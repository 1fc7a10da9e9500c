"""`monadnock explain`: cut every link from massive weights to predictions, and say what goes with it."""

from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.findings.chain_links import LINKS
from monadnock.findings.summary_chain import find_cuts, number, paragraph, texts


def command(
    model: options.Model,
    out: options.AddTo = None,
    controls: Annotated[int, typer.Option(help="random draws beside each cut", min=1)] = 3,
    text: options.Text = None,
    dataset: options.Dataset = None,
    tokens: options.Tokens = None,
    length: options.Length = None,
    bos: options.Bos = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Test the chain from massive weights over activations and sinks to predictions, link by link."""
    from monadnock.explaining import explain  # here, so that other verbs start without torch
    from monadnock.preparing import fresh_path

    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = explain(
            model,
            out=out,
            controls=controls,
            text=text,
            dataset=dataset,
            tokens=tokens,
            length=length,
            bos=bos,
            **options.loading(dtype, device),
        )
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
