"""`monadnock finetune`: train an adapter on instruction data, with or without MacDrop, and say what came out."""

from typing import Annotated

import polars as pl
import typer
from rich.console import Console
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.findings import Run


def command(
    given: typer.Context,
    model: options.Model,
    data: Annotated[str, typer.Option(help=".json or .jsonl file in alpaca or messages form, or a data set")],
    out: options.AddTo = None,
    method: Annotated[str, typer.Option(help="lora or dora")] = "lora",
    macdrop: Annotated[bool, typer.Option("--macdrop", help="drop massive weights, less and less")] = False,
    schedule: Annotated[str, typer.Option(help="step, epoch-before, epoch-after, exp or constant")] = "step",
    p0: Annotated[float, typer.Option(help="probability at the beginning")] = 0.8,
    scope: Annotated[str, typer.Option(help="massive, all or others")] = "massive",
    k: Annotated[int, typer.Option(help="how many rows are massive")] = 5,
    alpha: Annotated[float, typer.Option(help="how fast exp falls, per step")] = 0.01,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="measure with massive rows set to zero, too")] = False,
    zeroed: Annotated[str, typer.Option(help="how many, comma-separated")] = "2,3",
    tasks: Annotated[str, typer.Option(help="of lm-eval, comma-separated  [default: none]")] = "",
    limit: Annotated[int | None, typer.Option(help="examples of each task  [default: all]", min=1)] = None,
    context: Annotated[int | None, typer.Option(help="tokens of a task's prompt  [default: as the model]")] = None,
    epochs: Annotated[float, typer.Option(help="times that every example is seen")] = 3,
    rate: Annotated[float, typer.Option(help="peak learning rate")] = 1e-4,
    batch: Annotated[int, typer.Option(help="examples of a micro-batch")] = 8,
    accumulation: Annotated[int, typer.Option(help="micro-batches of a step")] = 4,
    rank: Annotated[int, typer.Option(help="of the adapter")] = 16,
    length: Annotated[int, typer.Option(help="tokens after which an example is cut off")] = 512,
    seed: Annotated[int, typer.Option(help="of start, order, masks and what is held back")] = 0,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Fine-tune an adapter (LoRA, DoRA) on instruction data, with or without MacDrop."""
    from monadnock.preparing import fresh_path  # here, so that other verbs start without torch
    from monadnock.training import finetune

    if not macdrop:
        options.unused(given, "--macdrop", "schedule", "p0", "scope", "k", "alpha")
    if not evaluate:
        options.unused(given, "--evaluate", "zeroed", "tasks", "limit", "context")
    elif not tasks:
        options.unused(given, "--tasks", "limit", "context")
    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = finetune(
            model,
            data=data,
            out=out,
            method=method,
            macdrop=macdrop,
            schedule=schedule,
            p0=p0,
            scope=scope,
            k=k,
            alpha=alpha,
            evaluate=evaluate,
            zeroed=options.numbers("zeroed rows", zeroed) or [],
            tasks=options.names(tasks),
            limit=limit,
            context=context,
            epochs=epochs,
            rate=rate,
            batch=batch,
            accumulation=accumulation,
            rank=rank,
            length=length,
            seed=seed,
            **options.loading(dtype, device),
        )
    tell(run)
    for folder in run.table("finetunings")["adapter"]:
        print(f"Adapter:  {near(run.path / folder)}")
    print(f"Report:   {near(run.report())}")
    print(f"Next:     monadnock show {near(run.path)} {'robustness' if evaluate else 'finetuning_steps'}")


def tell(run: Run) -> None:
    """Print every fine-tuning of the run: the loss held back before and after, and what zeroed rows leave of it."""
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
    grid.add_column("fine-tuning")
    for head in ("steps", "loss before", "after"):
        grid.add_column(head, justify="right")
    for row in run.table("finetunings").iter_rows(named=True):
        grid.add_row(row["name"], str(row["steps"]), f"{row['before']:.3f}", f"{row['after']:.3f}")
    Console().print(grid)
    if left_out := run.table("finetunings")["too_long"].max():
        print(f"Up to {left_out} examples were left out: their answers begin behind the last token; raise --length.")
    if "robustness" not in run.heights():
        return
    left = run.table("robustness")
    grid = RichTable(box=None, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
    grid.add_column("rows set to zero")
    metrics = left["metric"].unique(maintain_order=True).to_list()
    for metric in metrics:
        grid.add_column(metric.replace("_", " "), justify="right")
    for name in ["no adapter", *left["name"].unique(maintain_order=True)]:
        for count, order in left.select("zeroed", "order").unique().sort("zeroed", pl.col("order") == "base").rows():
            if name == "no adapter" and order == "base":
                continue  # it has no adapter to come first
            here = left.filter(pl.col("order").eq_missing(order), zeroed=count)
            here = here if name == "no adapter" else here.filter(name=name)
            column = "base" if name == "no adapter" else "value"
            values = dict(here.select("metric", column).rows())
            cells = [f"{values[metric]:,.4g}" if values.get(metric) is not None else "" for metric in metrics]
            grid.add_row(f"{count}{', in the base' if order == 'base' else ''}  {name}", *cells)
    Console().print(grid)
