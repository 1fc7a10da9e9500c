"""`monadnock verify`: compare a model's massive weights with those in the catalogue."""

from typing import Annotated

import typer

MISMATCH = 1  # exit code; 2 is bad input


def command(
    model: Annotated[str, typer.Argument(help="packaged name, hub id (owner/name@revision), folder or .gguf file")],
    entry: Annotated[str | None, typer.Option(help="entry to compare with  [default: the model's name]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; auto spreads over all")] = None,
) -> None:
    """Say whether a model's massive weights are where the catalogue has them; exit code 1 on a mismatch."""
    from monadnock.verifying import verify  # here, so that other verbs start without torch

    verdict = verify(
        model,
        entry=entry,
        dtype=dtype,
        device=None if device == "auto" else device,
        device_map="auto" if device == "auto" else None,
    )
    print(verdict)
    if verdict.outcome == "mismatch":
        raise typer.Exit(MISMATCH)
