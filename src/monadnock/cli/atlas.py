"""`monadnock atlas`: many runs in a folder as one table and one page."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from monadnock.cli.console import near, print_frame
from monadnock.errors import MonadnockError


def command(
    folder: Annotated[Path, typer.Argument(help="what holds the runs, itself or in folders")],
    out: Annotated[Path | None, typer.Option(help="page to write  [default: atlas.html]")] = None,
    rows: Annotated[int, typer.Option(help="rows to show", min=1)] = 40,
    csv: Annotated[bool, typer.Option("--csv", help="print the whole table as CSV, and write no page")] = False,
) -> None:
    """Read many runs as one: outliers across models, as a table and a page."""
    from monadnock.relations.atlas import atlas  # here: other verbs do not need it
    from monadnock.report.atlas import worded, write_atlas
    from monadnock.report.text import count

    if csv and out is not None:
        raise MonadnockError(f"--csv prints the table and writes no page to {out}; leave one of the two out.")
    found = atlas(folder)
    for name, reason in found.skipped.items():
        print(f"monadnock: {name} is left out: {reason.rstrip('.')}.", file=sys.stderr)
    if csv:
        sys.stdout.write(found.table.write_csv())
        return
    page = write_atlas(found, out or Path("atlas.html"))
    print_frame(worded(found.table), rows)
    models = found.table["model"].n_unique()
    print(f"{count(found.table.height, 'run')} of {count(models, 'model')}.")
    print("depth: of the massive layer, 0 to 1; rows: massive ones; sinks: heads; 8 bits: worst error.")
    print(f"Page:   {near(page)}")
