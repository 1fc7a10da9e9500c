"""`monadnock atlas`: many runs in a folder as one table and one page."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from monadnock.cli.console import near, print_frame

_SHOWN = ("run", "model", "depth", "massive_rows", "heads_with_a_sink", "8_bit_error_worst_matrix")


def command(
    folder: Annotated[Path, typer.Argument(help="what holds the runs, itself or in folders")],
    out: Annotated[Path, typer.Option(help="file to write")] = Path("atlas.html"),
    rows: Annotated[int, typer.Option(help="rows to show", min=1)] = 40,
    csv: Annotated[bool, typer.Option("--csv", help="write the whole table as CSV instead of a page")] = False,
) -> None:
    """Read many runs as one: outliers across models, as a table and a page."""
    from monadnock.relations.atlas import atlas  # here: other verbs do not need it
    from monadnock.report.atlas import write_atlas
    from monadnock.report.text import count

    found = atlas(folder)
    for name, reason in found.skipped.items():
        print(f"monadnock: {name} is left out: {reason.rstrip('.')}.", file=sys.stderr)
    if csv:
        sys.stdout.write(found.table.write_csv())
        return
    page = write_atlas(found, out)
    print_frame(found.table.select(_SHOWN), rows)
    models = found.table["model"].n_unique()
    print(f"{count(found.table.height, 'run')} of {count(models, 'model')}.")
    print(f"Page:   {near(page)}")
