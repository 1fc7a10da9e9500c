"""`monadnock pretrain`: train a small model with an attention variant, and watch its outliers grow."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.findings import Run
from monadnock.findings.trained import last_looks


def command(
    recipe: Annotated[Path, typer.Option(help="YAML file that says model, data and training")],
    variant: Annotated[str, typer.Option(help="of attention, see `monadnock ls variants`")] = "default",
    arch: Annotated[str | None, typer.Option(help="gpt2 or llama  [default: the recipe's]")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="text file in place of the recipe's data")] = None,
    steps: Annotated[int | None, typer.Option(help="in place of the recipe's", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of the first weights and the order of the data")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run  [default: monadnock-runs/NAME-OF-THE-RECIPE]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda  [default: cuda if there is one]")] = None,
) -> None:
    """Pretrain a small model with an attention variant, and watch its outliers grow."""
    from monadnock.pretraining import pretrain  # here, so that other verbs start without torch
    from monadnock.pretraining.running import default_folder
    from monadnock.processes import is_first

    out = default_folder(recipe) if out is None else out
    with options.can_go_on(out):
        run = pretrain(
            recipe, variant=variant, architecture=arch, data=data, steps=steps, seed=seed, out=out, device=device
        )
    if not is_first():
        return
    tell(run)
    made = run.table("pretrainings").filter(variant=variant, seed=seed)["model"]
    print(f"Model:    {near(run.path / made[-1])}")
    print(f"Report:   {near(run.report())}")
    print(f"Next:     monadnock show {near(run.path)} training_outliers")


def tell(run: Run) -> None:
    """Print every training: what it learned, its outliers at the end, and what rounding and pruning leave."""
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
    grid.add_column("training", no_wrap=True)
    for head in ("loss", "max", "start", "sinks", "ppl", "8 bits", "pruned"):
        grid.add_column(head, justify="right")
    looks = {row["name"]: row for row in last_looks(run.table("training_outliers"))}
    for row in run.table("pretrainings").sort("name").iter_rows(named=True):
        look = looks.get(row["name"], {})
        values = [row["loss"], look.get("ratio"), look.get("start_ratio"), None]
        values += [row[name] for name in ("perplexity", "absmax", "pruned")]
        cells = ["" if value is None else f"{value:,.4g}" for value in values]
        cells[3] = f"{look['sinks']}/{look['heads']}" if look else ""
        grid.add_row(escape(row["name"]), *cells)
    Console().print(grid)
    print("max and start: largest |h| over its median, of all and of position 0, worst layer; ppl: perplexity.")
