"""`monadnock lens`: read every state of a prompt by token dictionaries, and tell one position layer by layer."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.errors import MonadnockError


def command(
    model: options.Model,
    prompt: Annotated[str | None, typer.Argument(help="text to read  [default: a published one]")] = None,
    out: options.AddTo = None,
    position: Annotated[int, typer.Option(help="position to print, 0-based; from the end if negative")] = -1,
    dictionary: Annotated[str, typer.Option(help="comma-separated: input, output, middle")] = "input,output,middle",
    k: Annotated[int, typer.Option(help="words of each state")] = 8,
    rows: Annotated[str, typer.Option(help="normalised (amplitudes are cosines) or raw")] = "normalised",
    words: Annotated[str, typer.Option(help="all, or prompt: read only words of the prompt")] = "all",
    bos: options.Bos = None,
    text: Annotated[Path | None, typer.Option(help="text file to scan for a new run  [default: built-in]")] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Read a model's states in words: which tokens stand out at each position behind each layer."""
    from monadnock.preparing import fresh_path  # here, so that other verbs start without torch
    from monadnock.reading import lens
    from monadnock.reading.lensing import PROMPT

    prompt = PROMPT if prompt is None else prompt
    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = lens(
            model,
            prompt,
            out=out,
            dictionaries=options.names(dictionary),
            k=k,
            rows=rows,
            words=words,
            bos=bos,
            text=text,
            **options.loading(dtype, device),
        )
    found = run.table("lens").filter(prompt=prompt, rows=rows, words=words)
    tell(found.filter(pl.col("dictionary").is_in(options.names(dictionary))), position)
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} lens")


def tell(found: pl.DataFrame, position: int) -> None:
    """Print what one position says, a row for each layer and a column for each dictionary.

    Raises:
        MonadnockError: if the prompt has no such position.
    """
    from monadnock.report.text import token as visible  # here: charts take a second

    places = found.select("position", "token").unique().sort("position")
    if not -places.height <= position < places.height:
        raise MonadnockError(
            f"Position {position} was asked, but the prompt has {places.height} tokens, 0 to {places.height - 1}."
        )
    place, token = places.row(position)
    here = found.filter(position=place).unique(["dictionary", "layer", "rank"]).sort("layer", "rank")
    names = [name for name in ("input", "output", "middle") if name in here["dictionary"]]
    console = Console()
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan")
    grid.add_column("layer", justify="right")
    for name in names:
        grid.add_column(f"{name} dictionary", no_wrap=True, overflow="ellipsis", ratio=1)
    for part in here.partition_by("layer", maintain_order=True):
        cells = []
        for name in names:
            rows = part.filter(dictionary=name).to_dicts()
            cells.append(
                "  ".join(f"[bold]{escape(visible(row['word']))}[/bold] {row['amplitude']:.2f}" for row in rows)
            )
        layer = part["layer"][0]
        grid.add_row("in" if layer < 0 else str(layer), *cells)
    console.print(
        f"Position {place} of {places.height}: [bold]{escape(visible(token))}[/bold]; amplitudes behind each layer"
    )
    console.print(grid)
