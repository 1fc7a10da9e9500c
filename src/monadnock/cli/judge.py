"""`monadnock judge`: let a model and its fine-tunings answer questions, and a judge score the answers."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from monadnock.cli import options
from monadnock.cli.console import near
from monadnock.findings import Run
from monadnock.findings.judged import mean_scores


def command(
    model: options.Model,
    questions: Annotated[Path, typer.Option(help=".json or .jsonl file in the form of Spec-Bench")],
    by: Annotated[str, typer.Option(help="the judge: address of an OpenAI-compatible server, or a model")],
    out: options.AddTo = None,
    judge_model: Annotated[str, typer.Option(help="the model's name at that address")] = "",
    tokens: Annotated[int, typer.Option(help="of an answer", min=1)] = 512,
    limit: Annotated[int | None, typer.Option(help="questions of each category  [default: all]", min=1)] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Let a model and its fine-tunings answer questions, and a judge score the answers from 1 to 5."""
    from monadnock.preparing import fresh_path  # here, so that other verbs start without torch
    from monadnock.training import judge

    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = judge(
            model,
            questions=questions,
            by=by,
            judge_model=judge_model,
            out=out,
            tokens=tokens,
            limit=limit,
            **options.loading(dtype, device),
        )
    tell(run)
    print(f"Report:   {near(run.report())}")
    print(f"Next:     monadnock show {near(run.path)} answers")


def tell(run: Run) -> None:
    """Print the mean scores, for each file of questions and each judge."""
    answers = run.table("answers")
    for about, part in answers.group_by("questions", "judge", maintain_order=True):
        rows = mean_scores(part)
        grid = RichTable(box=None, pad_edge=False, header_style="bold cyan", padding=(0, 2, 0, 0))
        grid.add_column("fine-tuning", overflow="fold")
        for name in (*rows[0].columns, "mean", "no score"):
            grid.add_column(escape(name.replace("_", " ")), justify="right")
        for row in rows:
            means = ("" if value is None else f"{value:.2f}" for value in (*row.columns.values(), row.mean))
            grid.add_row(escape(row.name or "no adapter"), *means, str(row.unscored))
        if all(row.mean is None for row in rows):
            print(f"{about[1]} wrote no [RESULT] behind any answer, so that none has a score; take a larger model.")
            continue
        print(f"Scores from 1 to 5, {about[0]}, judged by {about[1]}")
        Console().print(grid)
