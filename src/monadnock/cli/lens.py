"""`monadnock lens`: read every state of a prompt by token dictionaries, and tell one position layer by layer."""

from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near

ORDER = {"input": 0, "output": 1, "middle": 2}
GAP = 2  # blanks between columns


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
            position=position,
            **options.loading(dtype, device),
        )
    found = run.table("lens").filter(prompt=prompt, rows=rows, words=words)
    found = found.filter(bos=bool(found["bos"].any()) if bos is None else bos)  # by default if there is one
    tell(found.filter(pl.col("dictionary").is_in(options.names(dictionary))), position)
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} lens")


def tell(found: pl.DataFrame, position: int) -> None:
    """Print what one position says, a row for each layer and a column for each dictionary."""
    from monadnock.report.text import token as visible  # here: charts take a second

    places = found.select("position", "token").unique().sort("position")
    place, token = places.row(position)
    here = found.filter(position=place).unique(["dictionary", "layer", "rank"]).sort("layer", "rank")
    names = sorted(here["dictionary"].unique(), key=lambda name: (ORDER.get(name, len(ORDER)), name))
    console = Console()
    width = (console.width - len("layer")) // len(names) - GAP
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan", padding=(0, GAP, 0, 0))
    grid.add_column("layer", justify="right", no_wrap=True)
    for name in names:
        grid.add_column(name, no_wrap=True)
    for part in here.partition_by("layer", maintain_order=True):
        layer = part["layer"][0]
        said = [part.filter(dictionary=name).select("word", "amplitude", "noise").rows() for name in names]
        cells = [
            fitting([(visible(word), f"{value:.2f}", value > (noise or 0)) for word, value, noise in words], width)
            for words in said
        ]
        grid.add_row("in" if layer < 0 else str(layer), *cells)
    print(f"Position {place}, {visible(token)}: words behind each layer, and their amplitudes")
    console.print(grid)


def fitting(words: list[tuple[str, str, bool]], width: int) -> str:
    """Return as many words with their amplitudes as fit into a column, the first one in any case; noise is not bold.

    Example:
        >>> fitting([("red", "0.81", True), ("blue", "0.57", True)], 12)
        '[bold]red[/bold] 0.81'
    """
    cells, used = [], 0
    for word, amplitude, clear in words:
        used += len(word) + len(amplitude) + 1 + 2 * bool(cells)
        if cells and used > width:
            break
        told = escape(word)
        cells.append(f"[bold]{told}[/bold] {amplitude}" if clear else f"[dim]{told} {amplitude}[/dim]")
    return "  ".join(cells)
