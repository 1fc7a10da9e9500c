"""What the command line prints: findings, tables and complaints."""

import os
import sys

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.findings.summary import Summary


def complain(sentence: str) -> None:
    """Print one sentence to standard error."""
    print(f"monadnock: {sentence}", file=sys.stderr)


def print_summary(summary: Summary) -> None:
    """Print findings as two columns: topic and sentence."""
    grid = RichTable(show_header=False, box=None, pad_edge=False, padding=(0, 2, 1, 0))
    grid.add_column(style="bold cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for topic, sentence in summary.items:
        grid.add_row(escape(topic), escape(sentence))
    Console().print(grid)


def print_frame(frame: pl.DataFrame, rows: int) -> None:
    """Print the first rows of a frame, all columns, as wide as the terminal or as needed where there is none."""
    console = Console()
    width = console.width if console.is_terminal else int(os.environ.get("COLUMNS", 200))
    with pl.Config(
        tbl_rows=rows,
        tbl_cols=-1,
        tbl_width_chars=width,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        float_precision=4,
        fmt_str_lengths=40,
    ):
        print(frame.head(rows))
    if frame.height > rows:
        print(f"{rows} of {frame.height} rows; --rows {frame.height} shows all.")
