"""`monadnock map`: write the pages of a run's weight maps."""

from pathlib import Path
from typing import Annotated

import typer

from monadnock.cli.console import complain, near
from monadnock.findings import Run


def command(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    names: Annotated[list[str] | None, typer.Argument(help="maps, as map-011-o  [default: all]")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the pages  [default: maps in the run]")] = None,
) -> None:
    """Write a page for each weight map of a run: its sensitivities, from the whole matrix down to one weight."""
    from monadnock.explorer import write_map  # here: other verbs do not need it
    from monadnock.explorer.page import LARGE
    from monadnock.explorer.weights import check_names

    opened = Run.open(run)
    for name in check_names(opened, names):
        page = write_map(opened, name, None if out is None else out / f"{name}.html")
        print(near(page))
        if (size := page.stat().st_size) > LARGE:
            complain(f"{page.name} has {size / 1e6:,.0f} MB; a browser takes a while to open it, or may not at all.")
