"""`monadnock report`: write the page of a run."""

from pathlib import Path
from typing import Annotated

import typer

from monadnock.findings import Run


def command(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    out: Annotated[Path | None, typer.Option(help="file to write  [default: report.html in the run]")] = None,
) -> None:
    """Write a run's report: one HTML page that opens offline."""
    print(Run.open(run).report(out))
