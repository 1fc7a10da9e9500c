"""`monadnock prescribe`: turn the findings of a run into things to do, and a recipe."""

import shlex
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from monadnock.cli.console import near
from monadnock.findings import Run


def command(
    run: Annotated[Path, typer.Argument(help="folder of a run")],
    bits: Annotated[int, typer.Option(help="bits of a rounded weight, 2 to 8")] = 4,
    granularity: Annotated[str, typer.Option(help="what shares a scale: tensor, row or group")] = "row",
    out: Annotated[Path | None, typer.Option(help="recipe to write  [default: recipe.yaml in the run]")] = None,
) -> None:
    """Prescribe what to keep, from the findings of a run, and write a recipe that llm-compressor reads."""
    from monadnock.prescribing import prescribe

    opened = Run.open(run)
    recipe = prescribe(opened, bits=bits, granularity=granularity, out=out)
    tell(opened.table("prescriptions"))
    model, where = shlex.quote(opened.manifest.model.id), shlex.quote(str(near(opened.path)))
    print(f"Recipe: {near(recipe)}")
    print(f"Next:   monadnock compress {model} --recipe {shlex.quote(str(near(recipe)))} --out {where}")


def tell(found: pl.DataFrame) -> None:
    """Print prescriptions: what to do and where, then why, with the number behind it and its bound."""
    console = Console()
    for row in found.sort("rank").to_dicts():
        console.print(f"[bold cyan]{escape(row['action'])}[/bold cyan]  {escape(where(row))}".rstrip())
        evidence = escape(row["evidence"] or "")
        if row["value"] is not None:
            evidence += f" {row['value']:.4g}" + (f" (bound {row['bound']:.4g})" if row["bound"] is not None else "")
        told = escape(row["reason"]) + (f" [dim]{evidence}[/dim]" if evidence else "")
        console.print(Padding(told, (0, 0, 0, 2)))


def where(row: dict) -> str:
    """Name what a prescription is about.

    Example:
        >>> where({"action": "no_rows", "layer": 11, "module": "up", "expert": None, "rows": "1229 1487"})
        'layer 11 up, rows 1229 1487'
    """
    told = "" if row["layer"] is None else f"layer {row['layer']}"
    told += "" if row["module"] is None else f" {row['module']}"
    told += "" if row["expert"] is None else f" expert {row['expert']}"
    told += "" if row["rows"] is None else f", rows {row['rows']}"
    if row["action"] == "keep_sinks":
        return f"KV cache, {row['amount']:g} token{'s' * (row['amount'] > 1)}"
    if row["action"] in ("rotate", "no_rotation"):
        return f"{row['amount']:g} bits"
    return told
