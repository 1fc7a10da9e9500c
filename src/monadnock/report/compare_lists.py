"""Tables of a comparison: numbers side by side, the largest changes, attacks, and how much of each table differs."""

import polars as pl

from monadnock.findings.words import listed
from monadnock.relations import compare_numbers
from monadnock.relations.compare import Comparison
from monadnock.relations.compare_join import joined, spec_of, together
from monadnock.relations.compare_tables import TOLD, Value
from monadnock.relations.compare_words import number, signed, times
from monadnock.report import attacks as looks
from monadnock.report import text
from monadnock.report.compare_lines import over_runs
from monadnock.report.parts import Block, Cell, Listing, Passage, meaning

MOST = 5  # changes of a kind that are listed
FEW = 4  # runs from which on numbers are drawn over the runs, as those of a training are
_OVER = {
    "largest |x_down|, start token": True,
    "largest |h|": True,
    "heads with a sink": False,
    "mean first-key mass": False,
    "largest extremal ratio": True,
    "perplexity": True,
}


def numbers(comparison: Comparison) -> list[Block]:
    """List the head numbers of all runs, with what each differs by from the first."""
    lines = compare_numbers.lines(comparison.sides)
    rows = [
        (Cell(about.what), *(Cell(f"{value} ({where})" if where else value, change) for value, where, change in cells))
        for about, cells in lines
    ]
    if not rows:
        return []
    others = len(comparison.names) - 1
    says = (
        f"Beside each number, what it differs by from {comparison.names[0]}: a factor, or a difference (of shares: in "
        "points); = where it is the same, ≈ nearly the same."
    )
    body = Listing(("", *comparison.names), tuple(rows), (False, False, *[True] * others))
    return [Block("Side by side", says, tuple(f"{about.what}: {about.doc}." for about, _ in lines), body, wide=True)]


def over(comparison: Comparison) -> list[Block]:
    """Draw some of the numbers over the runs, if there are many."""
    if len(comparison.names) < FEW:
        return []
    blocks = []
    for about, row in compare_numbers.found(comparison.sides):
        if about.what in _OVER and sum(one is not None for one in row.values()) > 1:
            share = about.how == "share"
            values = {name: None if one is None else one.value * (100 if share else 1) for name, one in row.items()}
            title = f"{about.what[:1].upper()}{about.what[1:]}"
            says = f"By run{', in per cent' if share else ''}, in the order in which they were given."
            alt = "; ".join(f"{name} {text.number(value)}" for name, value in values.items())
            plot = over_runs(values, about.what + (" in %" if share else ""), log=_OVER[about.what])
            blocks.append(Block(title, says, (f"{about.what}: {about.doc}.",), plot, alt=f"Line over the runs: {alt}."))
    return blocks


def changed(comparison: Comparison) -> list[Block]:
    """Tell in sentences what changed, for every run but the first."""
    return [
        Block(
            f"{name} against {comparison.names[0]}",
            "What was gained, lost, or changed most.",
            body=tuple(Passage(topic, "", "", sentence) for topic, sentence in sentences),
            wide=True,
        )
        for name, sentences in comparison.sentences.items()
        if sentences
    ]


def largest(comparison: Comparison) -> list[Block]:
    """List the largest changes of every kind."""
    every = comparison.changes(MOST).partition_by("what", as_dict=True, maintain_order=True)
    return [_largest(comparison, what, every[what,]) for what in TOLD if (what,) in every]


def _largest(comparison: Comparison, what: str, frame: pl.DataFrame) -> Block:
    """Lay out changes of one kind; what says the same in every row is left out."""
    flags, several = frame["how"][0] != "changed", len(comparison.names) > 2
    numeric = frame["difference"].drop_nulls().len() > 0
    first, *others = comparison.names
    heads = (
        *["run"] * several,
        "where",
        *[""] * flags,
        first,
        "there" if several else others[0],
        *["change"] * numeric,
    )
    spec, value = TOLD[what]
    rows = []
    for row in frame.to_dicts():
        texts = [*[row["run"]] * several, row["where"], *[row["how"]] * flags, row["before"], row["after"]]
        rows.append(tuple(map(Cell, (*texts, *[_change(row, value)] * numeric))))
    says = "The largest that were gained or lost" if flags else "The largest changes" if numeric else "Changes"
    parts = frame.select("run", "how").rows()
    return Block(
        f"{what[:1].upper()}{what[1:]}",
        f"{says} against {first}, at most {MOST} of a run.",
        meaning(spec.table, *filter(None, (value.column, value.size))),
        body=Listing(
            heads,
            tuple(rows),
            (False,) * len(heads),
            frozenset(i for i in range(1, len(parts)) if parts[i] != parts[i - 1]),
            words=1 + several + flags,
        ),
    )


def _change(row: dict, value: Value) -> str:
    if row["difference"] is None:
        return ""
    return times(row["ratio"]) if value.change == "ratio" and row["ratio"] > 0 else signed(row["difference"])


def attacks(comparison: Comparison) -> list[Block]:
    """List what the same attacks do to the models of several runs."""
    runs = together(comparison.sides, spec_of("effects"))
    if not runs:
        return []
    names = [side.name for side in runs]
    frame = joined(comparison.sides, "effects", "value").drop_nulls(names[0])
    frame = frame.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in names[1:]))
    modes, metrics = looks.ordered_modes(frame["mode"]), looks.ordered_metrics(frame)
    order = lambda row: (modes.index(row["mode"]), row["where"], row["k"], metrics.index((row["metric"], row["data"])))  # noqa: E731
    rows, attack_of = [], []
    for row in sorted(frame.to_dicts(), key=order):
        shown = looks.metric(row["metric"])
        where = f", {row['where']}" if row["where"] else ""
        others = [metric for metric in metrics if metric[0] == row["metric"]]
        attack_of.append(looks.label(row["mode"], row["k"]) + where)
        values = [Cell(looks.number(row[name], shown), looks.change(row[name], row[names[0]], shown)) for name in names]
        head = looks.heading(*metrics[metrics.index((row["metric"], row["data"]))], [data for _, data in others])
        rows.append((Cell(attack_of[-1]), Cell(head), Cell(values[0].text), *values[1:]))
    if not rows:
        return []
    starts = frozenset(i for i in range(1, len(rows)) if attack_of[i] != attack_of[i - 1])
    changes = (False, False, False, *[True] * (len(names) - 1))
    body = Listing(("attack", "metric", *names), tuple(rows), changes, starts, words=2)
    says = "What the same attacks do; each on the massive layer of its own run, if no other is named."
    return [Block("Attacks", says, body=body, wide=True)]


def tables(comparison: Comparison) -> list[Block]:
    """Count the rows that differ, for every joined table in which any does."""
    frame = comparison.tables()
    unlike = frame.filter(pl.sum_horizontal("only_first", "only_here", "different") > 0)
    same = [name for name in frame["table"].unique(maintain_order=True) if name not in unlike["table"]]
    says = "Rows are joined on their keys, such as layer and head; `monadnock.compare` gives them whole."
    if same:
        says += f" Nothing differs in {listed(same, len(same))}."
    counts = ("both", "only_first", "only_here", "different")
    rows = tuple(tuple(Cell(number(row[name])) for name in ("table", "run", *counts)) for row in unlike.to_dicts())
    heads = ("table", "run", "rows in both", f"in {comparison.names[0]} only", "in the run only", "different")
    body = Listing(heads, rows, (False,) * len(heads), words=2) if rows else None
    return [Block("Joined tables", says, body=body, wide=True)] if frame.height else []
