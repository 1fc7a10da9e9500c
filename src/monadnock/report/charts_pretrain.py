"""Section on pretraining: loss, outliers and sinks over the steps of several trainings, and what they ended with."""

from collections.abc import Iterator

import polars as pl

from monadnock.findings.trained import last_looks, stopped, with_kinds, with_ratios
from monadnock.report import text
from monadnock.report.parts import Block, Cell, Findings, Key, Listing, Section, meaning
from monadnock.report.source import extent, finite, hover, source
from monadnock.report.theme import SERIES, blank, whole_numbers

_DASHES = ("solid", "dashed", "dotted")
_HEIGHT = 280
_Colours = dict[str, tuple[str, str]]  # of each kind of training: colour and dash
_DOTS = 60  # of a line that can be told apart
_LONGEST = 50  # characters of a name
_LOOKS = (  # column, title, axis, logarithmic, columns of the table that it comes from
    ("ratio", "Largest activation over the median", "largest |h| / median |h|", True, ("top_1", "median")),
    ("start_ratio", "Largest activation of the first token", "|h| at position 0 / median |h|", True, ("start",)),
    ("sink_share", "Heads with a sink", "share of the heads", False, ("sinks", "heads")),
    ("largest_sink", "Strongest sink", "attention of the strongest key", False, ("largest_sink",)),
    ("gated_sink", "Strongest sink, times the gate", "gate times attention", False, ("gated_sink",)),
    ("kurtosis", "Kurtosis of the residual", "kurtosis of h", True, ("kurtosis",)),
    ("x_down", "Largest x_down", "largest |x_down|", True, ("x_down",)),
)


def pretraining(findings: Findings) -> list[Block]:
    """List the trainings, draw their losses and outliers over the steps, and list what each layer ended with."""
    table, looks = findings["pretrainings"], findings["training_outliers"]
    steps = _known(findings["training_steps"], "step", "loss")
    looks = _known(looks, "step", "layer", "top_1", "median")
    standing = stopped(looks)
    table, steps, looks = (with_kinds(each, standing) for each in (table, steps, looks))
    colours = _colours(table["kind"], steps["kind"], looks["kind"])
    blocks = []
    if table.height:
        blocks.append(_table(table, looks))
    if steps.height:
        told = ("training_steps", "loss")
        blocks.append(_chart(steps, "loss", "Loss over the steps", "loss", False, told, colours))
    if looks.height:
        blocks += _looks(looks, colours)
        blocks.append(_layers(looks))
    return blocks


def _colours(*given: pl.Series) -> _Colours:
    """Return how each kind is drawn, the same in all charts; the default comes first."""
    kinds = pl.concat(given).unique().to_list()
    looks = [(colour, dash) for dash in _DASHES for colour in SERIES]
    return dict(zip(sorted(kinds, key=lambda kind: ("default" not in kind, kind)), looks, strict=False))


def _known(table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Return rows with a name and finite values in these columns."""
    good = [pl.col(name).cast(pl.Float64).is_finite().fill_null(value=False) for name in columns]
    return table.filter(pl.col("name").is_not_null(), *good)


def _told(name: str) -> str:
    return text.line(text.printable(name), _LONGEST)


def _spread(values: pl.Series) -> str:
    """Return a value, or the mean of several with their ends."""
    known = [value for value in finite(values).tolist() if value == value]
    if len(set(known)) < 2:
        return text.number(known[0]) if known else ""
    ends = f"{text.number(min(known))} to {text.number(max(known))}"
    return f"{text.number(sum(known) / len(known))} ({ends})"


def _table(table: pl.DataFrame, looks: pl.DataFrame) -> Block:
    """List each kind of training, seeds together, with its outliers at the end, and its speed beside the default's."""
    ends = pl.DataFrame(last_looks(looks), infer_schema_length=None) if looks.height else pl.DataFrame({"name": []})
    if not ends.height:
        ends = pl.DataFrame(
            schema={"name": pl.String, "ratio": pl.Float64, "start_ratio": pl.Float64, "sinks": pl.Int64}
        )
    joined = table.join(ends.select("name", "ratio", "start_ratio", "sinks"), "name", "left")
    usual = joined.filter(variant="default").group_by("architecture", "seed").agg(pl.col("steps_per_second").first())
    joined = joined.join(usual, ["architecture", "seed"], "left", suffix="_default", nulls_equal=True)
    relative = usual["steps_per_second"].is_not_null().any()
    speed = pl.col("steps_per_second") / (pl.col("steps_per_second_default") if relative else 1)
    joined = joined.with_columns(speed=speed)
    columns = ("loss", "ratio", "start_ratio", "sinks", "perplexity", "absmax", "pruned", "added", "speed")
    heads = (
        "loss",
        "largest / median",
        "first token / median",
        "heads with a sink",
        "perplexity",
        "perplexity, 8 bits",
        "perplexity, half pruned",
    )
    rows = tuple(
        (Cell(_told(kind)), *(Cell(_spread(mine[column])) for column in columns))
        for (kind,), mine in joined.group_by("kind", maintain_order=True)
    )
    return Block(
        "Trainings",
        "What each one ended with. Of several seeds: mean, with the smallest and the largest in brackets."
        + (" Speed is of steps, beside the default's of the same seed, as both happened to run." if relative else ""),
        meaning("pretrainings", "loss", "absmax", "pruned", "added"),
        Listing(
            ("training", *heads, "parameters added", "speed" if relative else "steps a second"),
            rows,
            (False,) * (1 + len(columns)),
        ),
        wide=True,
    )


def _looks(looks: pl.DataFrame, colours: _Colours) -> Iterator[Block]:
    """Draw each kind of outlier, of the worst layer."""
    worst = (
        with_ratios(looks)
        .group_by("name", "kind", "step", maintain_order=True)
        .agg(
            pl.col("ratio", "start_ratio", "kurtosis", "largest_sink", "gated_sink", "x_down").max(),
            sink_share=pl.col("sinks").sum() / pl.col("heads").sum(),
        )
    )
    for column, title, label, log, columns in _LOOKS:
        shown = _known(worst, column)
        shown = shown.filter(pl.col(column) > 0) if log else shown
        if shown.height:
            yield _chart(shown, column, title, label, log, ("training_outliers", *columns), colours)


def _chart(
    table: pl.DataFrame, column: str, title: str, label: str, log: bool, told: tuple[str, ...], colours: _Colours
) -> Block:
    """Draw a column over the steps, a line for each kind: the mean over seeds, in a band from the least to the most."""
    kinds = set(table["kind"])
    limits = (0.0, 1.0) if column == "sink_share" else extent(finite(table[column]), log=log)
    plot = blank(extent(finite(table["step"])), limits, x_label="step", y_label=label, height=_HEIGHT, log_y=log)
    whole_numbers(plot.xaxis[0])
    keys, ends, marks = [], [], []
    for kind, (colour, dash) in colours.items():
        if kind not in kinds:
            continue
        seeds = table.filter(kind=kind).group_by("step")
        values = pl.col(column)
        mine = seeds.agg(mean=values.mean(), least=values.min(), most=values.max(), trainings=pl.len()).sort("step")
        mine = mine.with_columns(kind=pl.lit(kind))
        data = source(mine)
        if mine["trainings"].max() != 1:
            plot.varea("step", "least", "most", source=data, fill_color=colour, fill_alpha=0.12)
        plot.line("step", "mean", source=data, color=colour, line_dash=dash, line_width=2)
        marks.append(plot.scatter("step", "mean", source=data, color=colour, size=4 if mine.height <= _DOTS else 1))
        keys.append(Key(_told(kind), colour, dash))
        ends.append(f"{_told(kind)} {text.number(mine['mean'][-1])}")
    for mark in marks:
        hover(plot, mark, {"training": "kind", "step": "step", label: "mean", "least": "least", "most": "most"})
    more = f" {len(kinds) - len(keys)} more are in the table." if len(kinds) > len(keys) else ""
    of = "" if told[0] != "training_outliers" else "All layers. " if column == "sink_share" else "The worst layer. "
    several = table.group_by("kind").agg(pl.col("name").n_unique())["name"].max() != 1
    line = "Mean over seeds, in a band from the least to the most." if several else "A line for each training."
    says = f"{of}{line}{more}"
    return Block(title, says, meaning(*told), plot, tuple(keys), f"{title}, at the end: {'; '.join(ends)}.", True)


def _layers(looks: pl.DataFrame) -> Block:
    """List the three largest activations of each layer at the end (an2025, figure 10), seeds together."""
    last = looks.filter(pl.col("step") == pl.col("step").max().over("name")).sort("layer", maintain_order=True)
    columns = ("top_1", "top_2", "top_3", "median", "start", "sinks", "largest_sink")
    rows, starts = [], set()
    for (kind,), mine in last.group_by("kind", maintain_order=True):
        starts.add(len(rows))
        for (layer,), here in mine.group_by("layer", maintain_order=True):
            rows.append((Cell(_told(kind)), Cell(str(layer)), *(Cell(_spread(here[column])) for column in columns)))
    heads = (
        "training",
        "layer",
        "largest |h|",
        "second",
        "third",
        "median",
        "at position 0",
        "sinks",
        "strongest sink",
    )
    return Block(
        "Largest activations of each layer",
        "At the last look. Of several seeds: mean, with the smallest and the largest in brackets.",
        meaning("training_outliers", "top_1", "median", "start", "sinks", "largest_sink"),
        Listing(heads, tuple(rows), (False,) * len(heads), frozenset(starts - {0}), words=1),
        wide=True,
    )


SECTIONS = (
    Section(
        "pretraining",
        "Pretraining",
        "Whether outliers and sinks grow while models learn, and which attention avoids them (an2025, section 5).",
        ("pretrainings", "training_steps", "training_outliers"),
        "",
        pretraining,
    ),
)
