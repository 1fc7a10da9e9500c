"""`monadnock show`: a run's findings, or one of its tables."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from monadnock.cli.console import print_frame, print_summary
from monadnock.findings import TABLES, Run


def command(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    table: Annotated[str | None, typer.Argument(help="table to show  [default: the findings]")] = None,
    rows: Annotated[int, typer.Option(help="rows to show", min=1)] = 40,
    csv: Annotated[bool, typer.Option("--csv", help="write the whole table as CSV")] = False,
) -> None:
    """Show a run's findings, or one of its tables."""
    opened = Run.open(run)
    if table is None:
        print_summary(opened.summary())
        for name, height in opened.heights().items():
            print(f"{name:16} {height:6} rows  {TABLES[name].doc}")
        return
    frame = opened.table(table)
    if csv:
        sys.stdout.write(frame.write_csv())
    elif frame.is_empty():
        print(f"{table} is empty. {TABLES[table].doc}")
    else:
        print_frame(frame, rows)
