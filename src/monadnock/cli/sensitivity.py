"""`monadnock sensitivity`: what rounding each weight costs, and what patterns the costly ones make."""

from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.findings import Run


def command(
    model: options.Model,
    out: options.AddTo = None,
    layer: Annotated[str, typer.Option(help="comma-separated layers, or all")] = "all",
    module: Annotated[
        str, typer.Option(help="comma-separated: q, o, self_attn.o_proj, down:3 (expert 3), ..., or all")
    ] = "all",
    bits: Annotated[int, typer.Option(help="bits of a rounded weight")] = 3,
    group: Annotated[int | None, typer.Option(help="columns that share a grid  [default: the whole row]")] = None,
    damping: Annotated[float, typer.Option(help="added to the Hessian's diagonal, in parts of its mean")] = 0.01,
    patterns: Annotated[bool, typer.Option("--patterns/--no-patterns", help="look for patterns")] = True,
    map: Annotated[bool, typer.Option("--map", help="keep what `monadnock map` draws")] = False,
    text: options.Text = None,
    dataset: options.Dataset = None,
    tokens: Annotated[int | None, typer.Option(help="tokens in all  [default: 8192]")] = None,
    length: options.Length = None,
    bos: options.Bos = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Measure what rounding each weight costs (SpQR's sensitivity), where, and in what patterns."""
    from monadnock.preparing import fresh_path  # here, so that other verbs start without torch
    from monadnock.sensitivity import measure

    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = measure(
            model,
            out=out,
            layers=None if layer == "all" else options.numbers("layers", layer),
            modules=options.names(module),
            bits=bits,
            group=group,
            damping=damping,
            patterns=patterns,
            maps=map,
            text=text,
            dataset=dataset,
            tokens=tokens,
            length=length,
            bos=bos,
            **options.loading(dtype, device),
        )
    tell(run)
    print(f"Report: {near(run.report())}")
    if run.tensor_names():
        print(f"Next:   monadnock map {near(run.path)}")
    else:
        print("Next:   the same command with --map, for a map of every weight; or")
        print(f"        monadnock show {near(run.path)} sensitivity_lines")


def tell(run: Run, most: int = 20) -> None:
    """Print the most sensitive matrices, a row for each, and what patterns were found in them."""
    from monadnock.findings.summary_compress import matrices_told

    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
    for head in ("matrix", "loss", "alone", "top 0.1 %", "patterns"):
        grid.add_column(head, justify="left" if head in ("matrix", "patterns") else "right")
    told = matrices_told(run.tables())
    for each in told[:most]:
        grid.add_row(each.matrix, each.compensated, each.plain, each.top, each.patterns)
    print(
        "Loss when one weight after the other is rounded, relative to the loss without the matrix:\n"
        "with the best compensation by the other weights, and alone, without any."
    )
    Console().print(grid)
    table = run.table("sensitivity")
    short = table.filter(pl.col("num_tokens") < pl.col("num_inputs")).select("layer", "module", "expert").n_unique()
    if short:
        print(f"{short} of them saw fewer tokens than they have inputs: the damping decides there; raise --tokens.")
    if len(told) > most:
        print(f"{most} of {len(told)} matrices, those with the largest loss alone.")
