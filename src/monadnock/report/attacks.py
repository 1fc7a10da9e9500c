"""What attacks and metrics are called, how they look, and how their numbers are written."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from monadnock.findings import modes
from monadnock.report import text
from monadnock.report.theme import AMBER, BLUE, GREEN, PURPLE, VERMILION

CLEAN = "none"
_MEAN = "mean "  # in front of a task's metric
ANYWHERE = ("all layers", "")  # places that are no single layer
_TIMES = "\N{MULTIPLICATION SIGN}"
CHAIN = ("top1_h", "sink_share", "implicit_scaling")


@dataclass(frozen=True)
class Mode:
    """An attack: what it does to k things, and its line."""

    does: str
    colour: str
    dash: str
    shape: str


@dataclass(frozen=True)
class Metric:
    """A metric: its name in headings and in heads of columns, what it means, and how it is shown.

    Attributes:
        title: the name at the start of a heading.
        head: the name inside a sentence or a table.
        doc: its definition, empty where the metric is a task's own.
        share: whether it is a share, which is shown in per cent.
        ratio: whether a change is told as a ratio, and its axis is logarithmic.
        changes: whether its change is told at all; what compares with the clean model is a change already.
        decimals: how many a value between its unit and 1000 has in a table.
    """

    title: str
    head: str
    doc: str = ""
    share: bool = False
    ratio: bool = False
    changes: bool = True
    decimals: int = 3


_LOOKS = {
    "zero": (VERMILION, "solid", "circle"),
    "retain": (BLUE, "dashed", "square"),
    "random": (GREEN, "dotted", "diamond"),
    "super": (PURPLE, "dotdash", "triangle"),
    "super-random": (GREEN, "dashed", "inverted_triangle"),
    "gain": (AMBER, "solid", "inverted_triangle"),
    "gain-random": (GREEN, "dotdash", "hex"),
    "activation-zero": (PURPLE, "solid", "star"),
    "activation-random": (GREEN, "solid", "diamond"),
    "activation-mean": (BLUE, "dotted", "inverted_triangle"),
    "activation-all": (VERMILION, "dashed", "star"),
    "activation-all-random": (GREEN, "dashed", "diamond"),
    "mask": (AMBER, "dashed", "triangle"),
    "mask-random": (GREEN, "dotted", "square"),
    "mask-behind": (AMBER, "dotdash", "circle"),
    "mask-behind-random": (GREEN, "dotted", "hex"),
    "prefix": (VERMILION, "dotdash", "square"),
}
MODES = {name: Mode(does, *_LOOKS[name]) for name, does in modes.MODES.items()}
_OTHERS = [
    Mode("see the documentation of the package that brings it", colour, dash, "star")
    for dash in ("dashed", "dotted", "dotdash", "solid")
    for colour in (AMBER, PURPLE, GREEN, BLUE, VERMILION)
]
METRICS = {
    "perplexity": Metric(
        "Perplexity", "perplexity", "exp of the mean -ln p over the scored tokens of the text", ratio=True,
        decimals=2,
    ),
    "kl": Metric(
        "KL divergence", "KL in nats", "mean over the scored tokens of KL(clean || attacked), next token", changes=False
    ),
    "top1_agreement": Metric(
        "Agreement with the clean model", "same token", "share of the scored tokens at which the likeliest next token "
        "is that of the clean model", share=True, changes=False,
    ),
    "top1_h": Metric(
        "Largest |h|", "largest |h|", "largest over the layers of a window's largest |h|, averaged over windows "
        "(sun2024)", ratio=True, decimals=0,
    ),
    "sink_share": Metric("Heads with a sink", "heads with a sink", "share of heads with sink mass above 0.3 (gu2025)",
        share=True),
    "implicit_scaling": Metric(
        "Implicit scaling", "implicit scaling", "mean over heads of the attention that does not go to the head's sink; "
        "1 where no head has one (an2025)",
    ),
}  # fmt: skip
_ORDER = ("perplexity", f"{_MEAN}acc", f"{_MEAN}acc_norm", "acc", "acc_norm", *list(METRICS)[1:])


def metric(name: str) -> Metric:
    """Return how a metric is shown; those of tasks keep the names that they have there."""
    if name in METRICS:
        return METRICS[name]
    if is_accuracy(name):
        return Metric("Accuracy", "accuracy", share=True) if name == "acc" else Metric(name, name, share=True)
    if name.startswith(_MEAN):
        of = "accuracy" if name == f"{_MEAN}acc" else name.removeprefix(_MEAN)
        return Metric(f"Mean {of}", f"mean {of}", "the plain mean over the tasks", share=True)
    words = name.replace("_", " ")
    return Metric(words[:1].upper() + words[1:], words, ratio="perplexity" in name)


def is_accuracy(name: str) -> bool:
    """Say whether a task's metric is an accuracy: acc, acc_norm, or either after a filter (`acc,strict`)."""
    return name.partition(",")[0] in ("acc", "acc_norm")


def mode(name: str, among: Iterable[str]) -> Mode:
    """Return how a mode is drawn `among` the others of a chart; modes that nobody knows get lines of their own."""
    known = MODES.get(name.partition(" (")[0])
    if known is not None and name in MODES:
        return known
    strangers = [other for other in among if other not in MODES]
    other = _OTHERS[strangers.index(name) % len(_OTHERS)]
    return other if known is None else Mode(known.does, other.colour, other.dash, other.shape)


def ordered_modes(names: Iterable[str]) -> list[str]:
    """Return modes in the order of the page: the clean model, the known ones, then the others as they come."""
    rank = {name: place for place, name in enumerate((CLEAN, *MODES))}
    return sorted(dict.fromkeys(names), key=lambda name: rank.get(name.partition(" (")[0], len(rank)))


def ordered_places(names: Iterable[str]) -> list[str]:
    """Return places as they come, those that are no single layer last."""
    return sorted(dict.fromkeys(names), key=lambda name: name in ANYWHERE)


def layers(names: Iterable[str]) -> list[str]:
    """Return the places that are single layers, or a few together."""
    return [name for name in dict.fromkeys(names) if name not in ANYWHERE]


def ordered_metrics(table: pl.DataFrame) -> list[tuple[str, str]]:
    """Return the metrics of a table with their data, in the order of the page."""
    pairs = table.select("metric", "data").unique(maintain_order=True).rows()
    rank = {name: place for place, name in enumerate(_ORDER)}
    return sorted(pairs, key=lambda pair: rank.get(pair[0], len(rank)))


def with_means(table: pl.DataFrame) -> pl.DataFrame:
    """Add the mean over tasks of every accuracy that two or more tasks have, for attacks that ran on all of them."""
    limit = pl.col("data").str.extract(r", (.*)").fill_null("")
    means = []
    for (name, rest), found in table.group_by("metric", limit.alias("limit"), maintain_order=True):
        tasks = found["data"].n_unique()
        if not is_accuracy(str(name)) or tasks < 2:
            continue
        each = found.group_by("place", "mode", "k", maintain_order=True).agg(
            metric=pl.lit(f"{_MEAN}{name}"),
            data=pl.lit(f"{tasks} tasks" + (f", {rest}" if rest else "")),
            value=_mean_of(tasks, "value"),
            baseline=_mean_of(tasks, "baseline"),
            error=pl.lit(None, pl.Float64),
            seeds=pl.col("seeds").max(),
            targets=pl.col("targets").first(),
        )
        means.append(each.select(table.columns))
    return pl.concat([table, *means])


def _mean_of(tasks: int, column: str) -> pl.Expr:
    return pl.when(pl.col(column).count() == tasks).then(pl.col(column).mean())


def label(name: str, k: int) -> str:
    """Return what an attack is called in a row: its mode and k."""
    return "clean model" if name == CLEAN else f"{name}, k = {k}"


def number(value: float | None, shown: Metric) -> str:
    """Return a metric's value as text, with as many decimals as others in its column; shares are in per cent."""
    if value is None:
        return ""
    if shown.share and math.isfinite(value):
        return f"{100 * value:.1f}"
    plain = 10**-shown.decimals <= abs(value) < 1000
    return f"{value:.{shown.decimals}f}" if plain else text.number(float(value))


def change(value: float | None, clean: float | None, shown: Metric) -> str:
    """Return how a value differs from the clean one: as a ratio, or as a difference (of shares: in points)."""
    if value is None or clean is None or not (math.isfinite(value) and math.isfinite(clean)) or not shown.changes:
        return ""
    if shown.ratio and value > 0 and clean > 0:
        ratio = value / clean
        return "=" if f"{ratio:.2f}" == "1.00" else _TIMES + (f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:#.3g}")
    difference = f"{100 * (value - clean):+.1f}" if shown.share else f"{value - clean:+.{shown.decimals}f}"
    return "=" if float(difference) == 0 else difference.replace("-", "\N{MINUS SIGN}")


def heading(name: str, data: str, others: Iterable[str]) -> str:
    """Return what a column of a metric is called, among `others` of the same metric on other data."""
    shown, where = metric(name), short(name, data, others)
    words = where if name == "acc" else f"{shown.head} {where}".rstrip()
    return words + (" in %" if shown.share else "")


def short(name: str, data: str, others: Iterable[str]) -> str:
    """Return the first word of a metric's data, or all where that is not enough to tell it from `others`.

    A single text or mean has no need of a name; a task always has one.
    """
    others = set(others) | {data}
    if len(others) == 1 and (name in METRICS or name.startswith(_MEAN)):
        return ""
    firsts = [other.partition(", ")[0] for other in others]
    return data if firsts.count(data.partition(", ")[0]) > 1 else data.partition(", ")[0]
