"""Section on attacks: every metric against k, the table of all attacks, and the published rows of the same model."""

import polars as pl

from monadnock.findings.summary_attacks import averaged, placed
from monadnock.report import attacks, text
from monadnock.report.attack_table import listing, published
from monadnock.report.attacks import CHAIN, CLEAN
from monadnock.report.curves import k_curves
from monadnock.report.parts import Block, Findings, Key, Section, meaning
from monadnock.report.source import extent, finite
from monadnock.report.theme import GREY

_MOST_TASKS = 6  # with more of them only their mean is drawn; the table has them all
_MOST_COLUMNS = 5  # of a table beside another one, small ones counted


def effects(findings: Findings) -> list[Block]:
    """Draw every metric against k (figure 4 of oh2024), and list all attacks (its table 1) above the published ones."""
    table = attacks.with_means(averaged(findings["effects"]))
    one = pl.len().over("place", "mode", "k", "metric", "data") == 1
    singles = placed(findings["effects"]).filter(pl.col("seed").is_not_null(), ~one)
    blocks = []
    done = table.filter(pl.col("mode") != CLEAN, pl.col("value").is_not_null())
    for name, data in sorted(attacks.ordered_metrics(done), key=lambda pair: attacks.is_accuracy(pair[0])):
        rows = done.filter(metric=name, data=data)
        others = done.filter(metric=name)["data"].unique().to_list()
        if not attacks.is_accuracy(name) or len(others) <= _MOST_TASKS:
            title = ": ".join(filter(None, (attacks.metric(name).title, attacks.short(name, data, others))))
            blocks += _charts(rows, singles.filter(metric=name, data=data), title, sorted(done["k"].unique()))
    return [*blocks, *_tables(table), *_published(findings.manifest.model.id)]


def _made(findings: Findings) -> bool:
    """Say whether the run has attacks: rows of compressors are none."""
    table = findings["effects"]
    return table.is_empty() or placed(table).height > 0


def _charts(rows: pl.DataFrame, singles: pl.DataFrame, title: str, num_k: list[int]) -> list[Block]:
    """Draw one metric on one text or task, a chart for each place that was attacked, all with the same y axis."""
    name, data = rows.row(0, named=True)["metric"], rows.row(0, named=True)["data"]
    shown = attacks.metric(name)
    scale = 100 if shown.share else 1
    drawn = rows.with_columns(pl.col("value", "baseline", "error") * scale)
    singles = singles.with_columns(pl.col("value") * scale)
    values = finite(pl.concat([drawn["value"], drawn["baseline"], singles["value"]]))
    log = shown.ratio and not (values <= 0).any()
    low, high = extent(values, log=log, zero=not name.endswith(("acc", "acc_norm")))
    low = low if low else -0.03 * high  # room for marks at zero
    blocks = []
    for place, part in _by_place(drawn):
        modes = attacks.ordered_modes(part["mode"])
        looks = {mode: attacks.mode(mode, modes) for mode in modes}
        dots = singles.filter(pl.col("mode").is_in(modes), pl.col("place").is_in(part["place"].unique().to_list()))
        clean = next(iter(part["baseline"].drop_nulls()), None)
        keys = [Key(mode, look.colour, look.dash, look.shape) for mode, look in looks.items()]
        keys += [Key("single seeds", GREY, "dot")] * bool(dots.height)
        keys += [Key(f"clean model: {text.number(clean)}", GREY, "dashed")] * (clean is not None)
        plot = k_curves(
            part,
            looks,
            dots,
            y_label=shown.head + (" in %" if shown.share else ""),
            log=log,
            clean=clean,
            limits=(low, high),
            num_k=num_k,
        )
        blocks.append(
            Block(
                ", ".join(filter(None, (title, place))),
                f"On {data or 'unnamed data'}.{_endless(part)}",
                _notes(modes, [(name, data)]),
                plot,
                tuple(keys),
                f"Lines over k. {_spoken(part, modes, clean)}",
            )
        )
    return blocks


def _by_place(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Part attacks by where they were; those on no single layer join the others if these are in one place."""
    places = attacks.layers(rows["place"])
    if len(places) <= 1:
        return [(places[0] if places else "", rows)]
    rest = rows.filter(pl.col("place").is_in(attacks.ANYWHERE))
    return [(place, rows.filter(place=place)) for place in places] + [("all layers", rest)] * bool(rest.height)


def _endless(rows: pl.DataFrame) -> str:
    """Name the attacks whose value has no place on an axis."""
    found = rows.filter(~pl.col("value").is_finite()).to_dicts()
    named = [f"{attacks.label(row['mode'], row['k'])} ({text.number(row['value'])})" for row in found]
    return f" Not finite: {'; '.join(named)}." if named else ""


def _spoken(rows: pl.DataFrame, modes: list[str], clean: float | None) -> str:
    """Return the ends of every line, for those who cannot see the chart."""
    said = [] if clean is None else [f"Clean model: {text.number(clean)}."]
    for mode in modes:
        line = rows.filter(mode=mode).sort("k").to_dicts()
        ends = [f"{text.number(row['value'])} at k = {row['k']}" for row in line[:1] + line[1:][-1:]]
        said.append(f"{mode}: {', '.join(ends)}.")
    return " ".join(said)


def _notes(modes: list[str], columns: list[tuple[str, str]]) -> tuple[str, ...]:
    """Return what metrics and attacks are, and what the metrics were taken on."""
    told = {attacks.metric(name).head: attacks.metric(name).doc for name, _ in columns}
    does = {mode: attacks.MODES[mode].does for mode in modes if mode in attacks.MODES}
    lines = [f"{name}: {doc}." for name, doc in (told | does).items() if doc]
    if any(mode.endswith(")") for mode in modes):
        lines.append("a number in brackets: the same mode with other targets, which do not go on from the first ones.")
    data = "; ".join(dict.fromkeys(data for _, data in columns if data))
    return (*lines, *meaning("effects", "k"), *[f"data: {data}."] * bool(data))


def _tables(table: pl.DataFrame) -> list[Block]:
    """List the attacks: what they cost, and then whether the massive activation and the sinks outlive them."""
    pairs = attacks.ordered_metrics(table)
    cost = [pair for pair in pairs if pair[0] not in CHAIN]
    chain = [pair for pair in pairs if pair[0] in CHAIN]
    lead = [pair for pair in cost if pair[0] == "perplexity"][:1]
    seeds = table.filter(pl.col("seeds") > 1)["seeds"].unique().sort()
    number = f"{'up to ' * (len(seeds) > 1)}{seeds[-1]}" if len(seeds) else ""
    mean = f" What is drawn at random is a mean over {number} seeds." if number else ""
    errors = table.filter(pl.col("error").is_finite(), pl.col("metric").map_elements(attacks.is_accuracy, pl.Boolean))
    error = max(errors["error"], default=None)
    sure = "" if error is None else f" Standard errors of accuracies are up to {100 * error:.2g} points."
    modes = attacks.ordered_modes(table.filter(pl.col("mode") != CLEAN)["mode"])
    places = attacks.layers(table["place"])
    where = f", {places[0]}" if len(places) == 1 else ""
    told = [
        ("All attacks", "Every attack below the clean model, with the changes against it in small figures.", cost),
        (
            "Massive activation and sinks",
            "Whether an attack takes the massive activation away, and the attention sinks with it.",
            [*lead, *chain] if chain else [],
        ),
    ]
    return [
        Block(
            title + where,
            says + mean + sure * any(attacks.is_accuracy(name) for name, _ in columns),
            _notes(modes, columns),
            listing(table, columns),
            wide=sum(1 + attacks.metric(name).changes for name, _ in columns) > _MOST_COLUMNS,
        )
        for title, says, columns in told
        if columns
    ]


def _published(model: str) -> list[Block]:
    """List what oh2024 printed for the same model, if it is there."""
    name, table = published(model)
    if not table.height:
        return []
    says = f"The rows of {name} in table 1 of oh2024, in the same layout; the texts and settings are the paper's own."
    table = attacks.with_means(table)
    notes = (f"{name}: the model's name in oh2024, table 1.", *_notes(["zero", "retain"], []))
    body = listing(table, attacks.ordered_metrics(table))
    return [Block(f"Published: {name}, table 1 of oh2024", says, notes, body, wide=True)]


SECTIONS = (
    Section(
        "attacks",
        "What massive weights do",
        "What the model loses while its massive weights, or what comes of them, are changed.",
        ("effects",),
        "The table has no rows: no attack was made.",
        effects,
        _made,
    ),
)
