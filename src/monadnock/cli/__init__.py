"""The command line: one module per verb, and one place where errors become a sentence and exit code 2."""

import os
import signal
import sys

import typer

from monadnock.cli import (
    atlas,
    attack,
    compare,
    compress,
    explain,
    finetune,
    judge,
    lens,
    ls,
    map,
    prescribe,
    pretrain,
    read,
    report,
    scan,
    sensitivity,
    show,
    study,
    sweep,
    verify,
)
from monadnock.cli.console import INTERRUPTED, TERMINATED, Told, complain
from monadnock.errors import MonadnockError

app = typer.Typer(
    help="Find the systematic outliers of a language model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
VERBS = (
    scan,
    attack,
    explain,
    study,
    sweep,
    lens,
    read,
    sensitivity,
    map,
    compress,
    prescribe,
    finetune,
    judge,
    pretrain,
    verify,
    compare,
    atlas,
    show,
    report,
    ls,
)
for verb in VERBS:
    app.command(name=verb.__name__.rpartition(".")[2])(verb.command)


SHARED = ("scan", "pretrain")  # verbs whose work several processes share


def _check_processes(asked: list[str]) -> None:
    """Refuse verbs that each process of torchrun would do whole, and write into one run."""
    verb = next((each for each in asked if not each.startswith("-")), None)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and verb not in (*SHARED, None):
        raise MonadnockError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, and {verb} runs in one; start it without torchrun "
            f"({' and '.join(SHARED)} share their work)."
        )


def main() -> None:
    """Run the command line."""
    terminated = []

    def terminate(*_: object) -> None:
        terminated.append(True)
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, terminate)  # such as a cluster's time limit: clean up then, too
    try:
        _check_processes(sys.argv[1:])
        app()
    except MonadnockError as error:
        if terminated:  # a library took the end for an error of its own
            sys.exit(TERMINATED)
        complain(str(error))
        sys.exit(2)
    except Told:
        raise
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        complain("Stopped; nothing was left half-written.")
        sys.exit(INTERRUPTED)
