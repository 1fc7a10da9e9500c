"""Charts of ablations: what fine-tunings reach against the probability of dropout, by scope and schedule."""

import math

import numpy as np
import polars as pl
from bokeh.models import Span
from bokeh.plotting import figure

from monadnock.report import text
from monadnock.report.parts import Block, Key, meaning
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import GREY, SERIES, blank

_MOST = 6  # charts
_HEIGHT = 280
_ACCURACY = "mean accuracy of the tasks"
_SHOWN = {"answer_loss": "loss of the answers held back", "perplexity": "perplexity", _ACCURACY: _ACCURACY}
_LINE = ("method", "schedule", "scope", "rest")


def ablations(left: pl.DataFrame) -> list[Block]:
    """Draw each metric of the table `robustness` over p0, where several probabilities were tried."""
    rows = _with_accuracy(left).filter(pl.col("value").is_finite(), pl.col("metric").is_in(list(_SHOWN)))
    words = pl.col("macdrop").str.split(" ").list.slice(4).list.join(" ").fill_null("")  # behind schedule, p0 and scope
    rows = rows.with_columns(
        rest=words, **{name: pl.col(name).fill_null("") for name in ("method", "schedule", "scope")}
    )
    tried = rows.filter(pl.col("p0").is_finite())
    if tried.select("p0").unique().height < 2:
        return []
    blocks = []
    for count in sorted(tried["zeroed"].unique()):
        for metric in _SHOWN:
            here = tried.filter(zeroed=count, metric=metric)
            if here.height:
                blocks.append(_chart(here, rows.filter(pl.col("macdrop").is_null(), zeroed=count, metric=metric)))
    return blocks[:_MOST]


def _with_accuracy(left: pl.DataFrame) -> pl.DataFrame:
    """Add the mean over each fine-tuning's tasks."""
    tasks = left.filter(pl.col("metric").str.ends_with(":acc"))
    own = [name for name in left.columns if name not in ("metric", "text", "value", "base")]
    means = tasks.group_by(own, maintain_order=True).agg(pl.col("value", "base").mean())
    means = means.with_columns(metric=pl.lit(_ACCURACY), text=pl.lit("lm-eval"))
    return pl.concat([left, means.select(left.columns)])


def _chart(here: pl.DataFrame, without: pl.DataFrame) -> Block:
    """Draw one metric: the means over seeds as lines, each fine-tuning as a dot."""
    metric, count = here["metric"][0], here["zeroed"][0]
    by = [name for name in _LINE if here[name].n_unique() > 1]
    clean = without["value"].drop_nulls().mean()
    line = clean if isinstance(clean, float) and math.isfinite(clean) else None
    ends = extent(finite(pl.concat([here["value"], pl.Series("value", [] if line is None else [line], pl.Float64)])))
    plot = blank(extent(finite(here["p0"])), ends, x_label="p0", y_label=_SHOWN[metric], height=_HEIGHT)
    keys, told = [], []
    parts = here.partition_by(by, maintain_order=True) if by else [here]
    for part, colour in zip(parts, SERIES, strict=False):
        label = " ".join(str(part[name][0]) for name in by if part[name][0]) or "with MacDrop"
        _line(plot, part, colour, _SHOWN[metric])
        keys.append(Key(text.line(text.printable(label), 40), colour))
        told.append(f"{label} {text.number(float(np.mean(finite(part['value']))))}")
    if line is not None:
        plot.add_layout(Span(location=line, dimension="width", line_color=GREY, line_dash="dotted", line_width=2))
        keys.append(Key(f"without MacDrop: {text.number(line)}", GREY, "dotted"))
    more = f" {len(parts) - len(SERIES)} more lines are in the table." if len(parts) > len(SERIES) else ""
    when = f"{count} rows set to zero" if count else "all weights as they are"
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
