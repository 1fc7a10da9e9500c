"""`monadnock verify`: compare a model's massive weights with those in the catalogue."""

from typing import Annotated

import typer

from monadnock.cli import options

MISMATCH = 1  # exit code; 2 is bad input


def command(
    model: options.Model,
    entry: Annotated[str | None, typer.Option(help="entry to compare with  [default: the model's name]")] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Say whether a model's massive weights are where the catalogue has them; exit code 1 on a mismatch."""
    from monadnock.verifying import verify  # here, so that other verbs start without torch

    verdict = verify(
        model,
        entry=entry,
        **options.loading(dtype, device),
    )
    print(verdict)
    if verdict.outcome == "mismatch":
        raise typer.Exit(MISMATCH)
