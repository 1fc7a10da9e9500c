"""`monadnock compare`: numbers of several runs side by side, what changed most, and a page with their curves."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli.console import near

if TYPE_CHECKING:
    from monadnock.relations.compare import Comparison

_WIDE = 100  # columns, where there is no terminal to say
_FEW = 3  # runs beside whose numbers there is room for more
_FIRST, _VALUE = 32, 7  # columns that the numbers' names take, and a number
_PLACES = ("count", "index")  # numbers beside which there is room to say where they are


def command(
    runs: Annotated[
        list[Path], typer.Argument(help="folders of two or more runs; the first is what others differ from")
    ],
    out: Annotated[Path, typer.Option(help="file to write")] = Path("compare.html"),
) -> None:
    """Compare runs: base and fine-tuned, before and after compression, checkpoints, other families."""
    from monadnock.relations.compare import compare  # here: other verbs do not need it

    found = compare(*runs)
    page = found.report(out)  # first, so that a command that fails says nothing else
    print_comparison(found)
    print(f"Page:   {near(page)}")


def print_comparison(found: "Comparison") -> None:
    """Print what the runs are, what is not comparable, their numbers, and what changed."""
    from monadnock.relations.compare_numbers import lines

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_WIDE)
    told = [(side.name, _about(side)) for side in found.sides]
    told += [("Not comparable", sentence) for sentence in found.warnings]
    told += [("Note", sentence) for sentence in found.remarks]
    _print_pairs(console, told)
    told = lines(found.sides)
    others = range(1, len(found.names))
    widest = max(len(name) for name in found.names)
    beside = max(1, (console.width - _FIRST) // (max(widest, _VALUE) + 2) - 1)
    for start in others[::beside]:
        _print_numbers(console, found.names, told, [0, *others[start - 1 : start - 1 + beside]])
    for name, sentences in found.sentences.items():
        if sentences:
            console.print(f"\n[bold]{escape(name)} against {escape(found.names[0])}[/bold]")
            _print_pairs(console, sentences)
    console.print()


def _print_numbers(console: Console, names: list[str], told: list, runs: list[int]) -> None:
    """Print the numbers of some runs as columns; with few of them also where they are, and what they differ by."""
    few = len(names) <= _FEW
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan")
    grid.add_column("", no_wrap=True)
    for run in runs:
        grid.add_column(escape(names[run]), justify="right")
        if few and run:
            grid.add_column("", style="dim")
    for about, cells in told:
        row = [about.what]
        for run in runs:
            value, where, change = cells[run]
            row += [
                f"{value} ({where})" if few and where and about.how in _PLACES else value,
                *[change] * (few and run > 0),
            ]
        grid.add_row(*map(escape, row))
    console.print()
    console.print(grid)


def _print_pairs(console: Console, pairs: Iterable[tuple[str, str]]) -> None:
    """Print topics and sentences as two columns."""
    from monadnock.report.text import printable

    grid = RichTable(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for topic, sentence in pairs:
        grid.add_row(escape(topic), escape(printable(sentence)))
    console.print(grid)


def _about(side) -> str:
    model, text = side.manifest.model, side.manifest.text
    front = f"BOS {text.start_token!r} in front" if text.bos else "no BOS in front"
    return (
        f"{model.id} ({near(side.path)}), {model.family} family, {model.num_layers} layers, {model.dtype}; "
        f"{text.num_windows} x {text.length} tokens of {text.source}, {front}."
    )
