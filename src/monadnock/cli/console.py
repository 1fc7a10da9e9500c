"""What the command line prints: findings, tables and complaints."""

import os
import statistics
import sys
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.findings.summary import Summary

INTERRUPTED = 130  # the exit code that typer, too, gives to Ctrl-C
TERMINATED = 143  # as shells tell SIGTERM


def complain(sentence: str) -> None:
    """Print one sentence to standard error."""
    print(f"monadnock: {sentence}", file=sys.stderr)


class Told(SystemExit):
    """Ends the command line with an exit code, after everything has been said."""


def near(path: Path) -> Path:
    """Write a path from the working folder on where it lies below it."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def print_summary(summary: Summary) -> None:
    """Print findings as two columns: topic and sentence."""
    grid = RichTable(show_header=False, box=None, pad_edge=False, padding=(0, 2, 1, 0))
    grid.add_column(style="bold cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for topic, sentence in summary.items:
        grid.add_row(escape(topic), escape(sentence))
    Console().print(grid)


def print_effects(effects: pl.DataFrame) -> None:
    """Print attacks as rows and metrics as columns, means over seeds; the page has more."""
    from monadnock.report.attacks import METRICS, ordered_metrics, ordered_modes  # here: charts take a second

    columns = ordered_metrics(effects)
    texts = [data for metric, data in columns if metric in METRICS]
    short = len(set(texts)) <= 1
    names = {(m, data): m if m in METRICS and short else f"{m} {data}" for m, data in columns}
    wide: dict[tuple[str, str, int, str], dict[str, list[float]]] = {}
    for row in effects.to_dicts():
        place = "; ".join(part.partition(":")[0] for part in row["targets"].split("; "))
        key = (row["mode"], place, row["k"], row["targets"] if row["seed"] is None else "")  # draws are averaged
        value = float("nan") if row["value"] is None else row["value"]
        wide.setdefault(key, {}).setdefault(names[row["metric"], row["data"]], []).append(value)
    modes = ordered_modes(effects["mode"])
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan")
    grid.add_column("attack")
    for name in names.values():
        grid.add_column(escape(name).replace("_", " "), justify="right")
    for mode, place, k, targets in sorted(wide, key=lambda key: (modes.index(key[0]), *key[1:])):
        alike = [key for key in wide if key[0] == mode and key[2] == k]  # the same on other layers, or other rows
        more = targets if len([key for key in alike if key[1] == place]) > 1 else place if len(alike) > 1 else ""
        values = [wide[mode, place, k, targets].get(name) for name in names.values()]
        means = ["" if not found else f"{sum(found) / len(found):,.4g}" for found in values]
        attack = "clean model" if mode == "none" else f"{mode} {k}" + (f", {more}" if more else "")
        grid.add_row(escape(attack), *means)
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
        thousands_separator=",",
        fmt_str_lengths=40,
    ):
        print(_readable(frame.head(rows)))
    if frame.height > rows:
        print(f"{rows} of {frame.height} rows; --rows {frame.height} shows all.")


def _readable(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame in which columns of small numbers are texts, of which four decimals would leave nothing."""
    small = [column.name for column in frame if column.dtype.is_float() and _is_small(column.drop_nulls().to_list())]
    return frame.with_columns(pl.col(name).map_elements("{:.3g}".format, pl.String) for name in small)


def _is_small(values: list[float]) -> bool:
    return 0 < statistics.median(map(abs, filter(None, values)) if any(values) else [0]) < 1e-3
