"""Charts of ablations: what fine-tunings reach against the probability of dropout, by scope and schedule."""

import numpy as np
import polars as pl
from bokeh.models import Span
from bokeh.plotting import figure

from monadnock.report import text
from monadnock.report.parts import Block, Key, meaning
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import GREY, SERIES, blank

_MOST = 15  # charts: three metrics clean and under four attacks
_HEIGHT = 280
_MEANS = {":acc": "mean accuracy of the tasks", ":score": "mean score of the tasks"}
_SHOWN = {"answer_loss": "loss of the answers held back", "perplexity": "perplexity", **{n: n for n in _MEANS.values()}}
_LINE = ("data", "method", "schedule", "scope", "rest")


def ablations(left: pl.DataFrame) -> list[Block]:
    """Draw each metric of the table `robustness` over p0, where several probabilities were tried."""
    rows = with_means(left).filter(pl.col("value").is_finite(), pl.col("metric").is_in(list(_SHOWN)))
    words = pl.col("macdrop").str.split(" ").list.slice(4).list.join(" ").fill_null("")  # behind schedule, p0 and scope
    rows = rows.with_columns(
        rest=words, **{name: pl.col(name).fill_null("") for name in ("data", "method", "schedule", "scope")}
    )
    tried = rows.filter(pl.col("p0").is_finite())
    if tried["p0"].n_unique() < 2:
        return []
    blocks = []
    for count, order, _ in attacks(tried):
        when = f"{count} rows set to zero{' in the base' * (order == 'base')}" if count else "all weights as they are"
        for metric in _SHOWN:
            mine = rows.filter(pl.col("order").eq_missing(order), zeroed=count, metric=metric)
            here = mine.filter(pl.col("p0").is_finite())
            if here.height:
                blocks.append(_chart(here, mine.filter(pl.col("macdrop").is_null()), when))
    if len(blocks) <= _MOST:
        return blocks
    left_out = f"{len(blocks) - _MOST} more charts are left out; the table robustness has their numbers."
    return [*blocks[:_MOST], Block("More over p0", left_out)]


def attacks(left: pl.DataFrame) -> list[tuple[int, str | None, str]]:
    """Return how many rows were set to zero, in which order, and both in words; none first."""
    found = left.select("zeroed", "order").unique().sort("zeroed", pl.col("order") == "base").rows()
    return [(count, order, f"{count}, in the base" if order == "base" else str(count)) for count, order in found]


def with_means(left: pl.DataFrame) -> pl.DataFrame:
    """Add the mean over each fine-tuning's tasks, of accuracies and of LongBench's scores, where there are several.

    A group of lm-eval counts as a task beside its parts, as its name does not tell.
    """
    own = [name for name in left.columns if name not in ("metric", "value", "base")]
    found = [left]
    for ending, metric in _MEANS.items():
        tasks = left.filter(pl.col("metric").str.ends_with(ending))
        if tasks["metric"].n_unique() > 1:
            means = tasks.group_by(own, maintain_order=True).agg(pl.col("value", "base").mean())
            found.append(means.with_columns(metric=pl.lit(metric)).select(left.columns))
    return pl.concat(found)


def _chart(here: pl.DataFrame, without: pl.DataFrame, when: str) -> Block:
    """Draw one metric: the means over seeds as lines, each fine-tuning as a dot."""
    metric = here["metric"][0]
    by = [name for name in _LINE if here[name].n_unique() > 1]
    without = without.filter(pl.col("value").is_finite(), pl.col("method").is_in(here["method"].unique().to_list()))
    ends = extent(finite(pl.concat([here["value"], without["value"]])))
    plot = blank(extent(finite(here["p0"])), ends, x_label="p0", y_label=_SHOWN[metric], height=_HEIGHT)
    keys, told = [], []
    parts = here.partition_by(by, maintain_order=True) if by else [here]
    for part, colour in zip(parts, SERIES, strict=False):
        label = " ".join(str(part[name][0]) for name in by if part[name][0]) or "with MacDrop"
        _line(plot, part, colour, _SHOWN[metric])
        keys.append(Key(text.line(text.printable(label), 40), colour))
        told.append(f"{label} {text.number(float(np.mean(finite(part['value']))))}")
    bare = without.group_by("method", "data", maintain_order=True).agg(pl.col("value").mean()).rows()
    for (method, data, value), dash in zip(bare, ("dotted", "dashed", "dotdash"), strict=False):
        plot.add_layout(Span(location=value, dimension="width", line_color=GREY, line_dash=dash, line_width=2))
        of = " ".join([method] * ("method" in by) + [data or ""] * ("data" in by))
        keys.append(
            Key(text.line(text.printable(f"{of} without MacDrop: {text.number(value)}".strip()), 60), GREY, dash)
        )
    more = f" {len(parts) - len(SERIES)} more lines are in the table." if len(parts) > len(SERIES) else ""
    return Block(
        f"{_SHOWN[metric]} against p0, {when}".capitalize(),
        f"Lines are means, dots single fine-tunings.{more}",
        meaning("robustness", "p0", "scope", "schedule"),
        plot,
        tuple(keys),
        f"Lines over p0; their means: {text.printable('; '.join(told))}.",
    )


def _line(plot: figure, part: pl.DataFrame, colour: str, label: str) -> None:
    """Draw one line over p0."""
    means = part.group_by("p0").agg(pl.col("value").mean()).sort("p0")
    plot.line("p0", "value", source=source(means), color=colour, line_width=2)
    dots = plot.scatter("p0", "value", source=source(part.select("name", "p0", "value")), color=colour, size=6)
    hover(plot, dots, {"fine-tuning": "name", "p0": "p0", label: "value"})
