"""Options that several verbs have, said once, and what is made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from monadnock.cli.console import INTERRUPTED, Told, complain, near
from monadnock.errors import MonadnockError

Model = Annotated[
    str,
    typer.Argument(help="packaged name, hub id (owner/name@revision), folder or .gguf file; +FOLDER adds an adapter"),
]
AddTo = Annotated[
    Path | None, typer.Option(help="a run of this model to add to, or a new folder  [default: a new one]")
]
Text = Annotated[Path | None, typer.Option(help="text file  [default: a built-in text]")]
Dataset = Annotated[str | None, typer.Option(help="data set instead, as owner/name:config:split")]
Tokens = Annotated[int | None, typer.Option(help="tokens in all  [default: 2048]")]
Length = Annotated[int | None, typer.Option(help="tokens of a window  [default: 1024, or the context]")]
Bos = Annotated[bool | None, typer.Option("--bos/--no-bos", help="BOS in front  [default: if there is one]")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; auto spreads over all, disk reads layer by layer")
]


def loading(dtype: str, device: str | None) -> dict[str, Any]:
    """Return the options of `load` that say how and where."""
    return {
        "dtype": dtype,
        "device": None if device == "auto" else device,
        "device_map": "auto" if device == "auto" else None,
    }


def names(given: str) -> list[str]:
    """Read comma-separated names."""
    return [name.strip() for name in given.split(",") if name.strip()]


def numbers(what: str, given: str | None) -> list[int] | None:
    """Read comma-separated whole numbers; None if nothing was given.

    Raises:
        MonadnockError: if something else was.
    """
    if given is None:
        return None
    try:
        return [int(number) for number in names(given)]
    except ValueError:
        raise MonadnockError(f"{given!r} was given as {what}; give whole numbers, as 1,3,5.") from None


def unused(context: typer.Context, without: str, *given: str) -> None:
    """Refuse options that were given on the command line, but do nothing without another.

    Raises:
        MonadnockError: if one of them was.
    """
    for name in given:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise MonadnockError(f"--{name} was given, but does nothing without {without}; add that, or leave it out.")


@contextmanager
def can_go_on(out: Path) -> Iterator[None]:
    """Say on Ctrl-C, where a run is there by then, that the same command goes on with it."""
    try:
        yield
    except KeyboardInterrupt:
        if not (out / "manifest.json").is_file():
            raise
        complain(f"Stopped; what was measured is in {near(out)}: the same command with --out {near(out)} goes on.")
        raise Told(INTERRUPTED) from None
