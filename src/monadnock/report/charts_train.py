"""Section on fine-tuning: what each one learned, its loss over the steps, and what zeroed massive rows leave of it."""

import polars as pl

from monadnock.report import text
from monadnock.report.charts_ablations import ablations, attacks, with_means
from monadnock.report.parts import Block, Cell, Findings, Key, Listing, Section, meaning
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import SERIES, blank, whole_numbers

_MOST = len(SERIES) - 1  # curves
_LONGEST = 60  # characters of a name
_HEIGHT = 320
_WITHOUT = "no adapter"


def finetunings(findings: Findings) -> list[Block]:
    """List the fine-tunings, draw their losses, and list what is left with rows set to zero."""
    table, steps, left = findings["finetunings"], findings["finetuning_steps"], findings["robustness"]
    blocks = [_table(table)] if table.height else []
    steps = steps.filter(pl.col("loss").is_finite(), pl.col("step").is_not_null(), pl.col("name").is_not_null())
    if steps.height:
        blocks.append(_curves(steps))
    left = left.filter(pl.col("zeroed").is_not_null(), pl.col("metric").is_not_null(), pl.col("name").is_not_null())
    return [*blocks, *([_left(left), *ablations(left)] if left.height else [])]


def _told(name: str) -> str:
    """Return the name of a fine-tuning or metric on one line."""
    return text.line(text.printable(name), _LONGEST)


def _table(table: pl.DataFrame) -> Block:
    columns = ("steps", "examples", "trainable", "before", "after")
    rows = [
        (Cell(_told(row["name"] or "")), *(Cell(text.number(row[column])) for column in columns))
        for row in table.to_dicts()
    ]
    return Block(
        "Fine-tunings",
        "Loss of the answers that were held back, before and after.",
        meaning("finetunings", "before", "after", "trainable"),
        Listing(("fine-tuning", *columns), tuple(rows), (False,) * (1 + len(columns))),
        wide=True,
    )


def _curves(steps: pl.DataFrame) -> Block:
    """Draw the loss of every step, a line for each fine-tuning."""
    names = steps["name"].unique(maintain_order=True).to_list()
    shown = steps.filter(pl.col("name").is_in(names[:_MOST]))
    sides = extent(finite(shown["step"]))
    plot = blank(sides, extent(finite(shown["loss"])), x_label="step", y_label="loss", height=_HEIGHT)
    whole_numbers(plot.xaxis[0])
    keys, marks = [], []
    for name, colour in zip(names[:_MOST], SERIES, strict=False):
        data = source(shown.filter(name=name).sort("step").select("name", "step", "loss", "learning_rate", "p"))
        plot.line("step", "loss", source=data, color=colour, line_width=2)
        marks.append(plot.scatter("step", "loss", source=data, color=colour, size=5))
        keys.append(Key(_told(name), colour))
    about = {"fine-tuning": "name", "step": "step", "loss": "loss", "rate": "learning_rate", "p": "p"}
    for mark in marks:
        hover(plot, mark, about)
    last = {name: shown.filter(name=name).sort("step")["loss"][-1] for name in names[:_MOST]}
    ends = [f"{_told(name)} {text.number(loss)}" for name, loss in last.items()]
    more = f" {len(names) - _MOST} more are in the table." if len(names) > _MOST else ""
    says = f"Mean over the answers' tokens of each step.{more}"
    spoken = f"Losses end at: {text.printable('; '.join(ends))}."
    return Block("Loss over the steps", says, meaning("finetuning_steps", "loss", "p"), plot, tuple(keys), spoken, True)


def _left(left: pl.DataFrame) -> Block:
    """List each metric, a row for each kind of fine-tuning and number of rows set to zero, clean ones first."""
    left = with_means(left)
    metrics = left["metric"].unique(maintain_order=True).to_list()
    sets = left["data"].n_unique() > 1
    data = pl.lit(", ") + pl.col("data").fill_null("unnamed data") if sets else pl.lit("")
    kinds = pl.col("name").str.replace(r", seed \d+$", "") + data
    left = left.with_columns(kind=kinds, value=pl.col("value").cast(pl.Float64), base=pl.col("base").cast(pl.Float64))
    rows, starts, several = [], set(), False
    for count, order, told in attacks(left):
        here = left.filter(pl.col("order").eq_missing(order), zeroed=count)
        starts.add(len(rows))
        for kind in [None, *here["kind"].unique(maintain_order=True)]:
            own = here if kind is None else here.filter(kind=kind)
            column = pl.col("base").unique(maintain_order=True) if kind is None else pl.col("value")
            values = own.group_by("metric").agg(column)
            found = dict(values.rows())
            several |= any(len(each) > 1 for each in found.values())
            cells = (Cell(_spread(found.get(metric, []))) for metric in metrics)
            rows.append((Cell(told), Cell(_WITHOUT if kind is None else _told(kind)), *cells))
    heads = ("rows set to zero", "fine-tuning", *(_told(metric.replace("_", " ")) for metric in metrics))
    seeds = " Of several seeds: mean, with the smallest and the largest in brackets." if several else ""
    return Block(
        "With massive rows set to zero",
        f"What is left without the most massive rows of W_up and W_gate, with each adapter and without.{seeds}",
        meaning("robustness", "zeroed", "order", "metric", "value", "base"),
        Listing(heads, tuple(rows), (False,) * len(heads), frozenset(starts - {0}), words=2),
        wide=True,
    )


def _spread(values: list[float | None]) -> str:
    """Return a value, or the mean of several with their ends."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return text.number(known[0]) if known else ""
    ends = f"{text.number(min(known))} to {text.number(max(known))}"
    return f"{text.number(sum(known) / len(known))} ({ends})"


SECTIONS = (
    Section(
        "finetunings",
        "Fine-tuning",
        "What adapters learned, and whether they lean on massive weights.",
        ("finetunings", "finetuning_steps", "robustness"),
        "",
        finetunings,
    ),
)
