"""Section on compressors: what each does to the model, perplexity against bits, and the errors of every matrix."""

import math

import polars as pl

from monadnock.findings.summary_compress import matrix_name
from monadnock.findings.words import listed
from monadnock.relations.compare_words import times
from monadnock.report import attacks, text
from monadnock.report.matrix_maps import KEY, known, largest, matrix_map, ordered, percent
from monadnock.report.parts import Block, Cell, Findings, Key, Listing, Section, meaning
from monadnock.report.source import extent, finite, peak
from monadnock.report.theme import GREY
from monadnock.report.trades import look, trade

_METRICS = ("average_bits", "stored_bits", "perplexity", "kl", "top1_agreement")
_CLEAN = "model as it is"
_UNNAMED = "unnamed"
_MOST_TEXTS, _MOST_MAPS, _WORST = 3, 6, 3
_STORED = "stored bits: bits of a weight in the packed files, with all that it takes to unpack them."
_ERRORS = {
    "output error": "output_error", "weight error": "weight_error", "average bits": "average_bits",
    "share of outliers": "outlier_share", "rows kept": "kept_rows",
}  # fmt: skip


def compressors(findings: Findings) -> list[Block]:
    """List what each compressor does, draw perplexity against bits, and map the errors of the matrices."""
    effects = findings["effects"].filter(pl.col("method").is_not_null(), pl.col("metric").is_in(_METRICS))
    effects = effects.with_columns(pl.col("data").fill_null("unnamed data"))
    effects = effects.unique(["method", "metric", "data"], keep="last", maintain_order=True)
    texts = effects["data"].unique(maintain_order=True).to_list()
    blocks = [_table(effects, texts)] if effects.height else []
    for data in texts[:_MOST_TEXTS]:
        blocks += _chart(effects.filter(data=data), data if len(texts) > 1 else "")
    order = list(dict.fromkeys(method for data in texts for method, _ in _found(effects.filter(data=data))))
    return [*blocks, *_maps(findings["compressions"], order)]


def _found(effects: pl.DataFrame) -> list[tuple[str, dict[str, float | None]]]:
    """Return every compressor of one text with its metrics, few bits first."""
    found: dict[str, dict[str, float | None]] = {}
    for row in effects.to_dicts():
        found.setdefault(row["method"], {})[row["metric"]] = row["value"]
    most = float("inf")
    bits = lambda pair: most if pair[1].get("average_bits") is None else pair[1]["average_bits"]  # noqa: E731
    return sorted(found.items(), key=bits)


def _baseline(effects: pl.DataFrame, metric: str) -> float | None:
    return next(iter(effects.filter(metric=metric)["baseline"].drop_nulls()), None)


def _table(effects: pl.DataFrame, texts: list[str]) -> Block:
    """List the compressors below the model as it is, for each text."""
    columns = [name for name in _METRICS if name in effects["metric"]]
    shown = {name: attacks.metric(name) for name in columns}
    several = len(texts) > 1
    rows, starts = [], set()
    for data in texts:
        here = effects.filter(data=data)
        clean = {name: _baseline(here, name) for name in columns}
        bare = {name: clean[name] if name in ("average_bits", "perplexity") else None for name in columns}
        starts.add(len(rows))
        for method, values in [(_CLEAN, bare), *_found(here)]:
            cells = [_cell(name, values.get(name), None if values is bare else clean[name]) for name in columns]
            rows.append((Cell(method or _UNNAMED), *[Cell(data)] * several, *cells))
    heads = [shown[name].head + (" in %" if shown[name].share else "") for name in columns]
    notes = [f"{shown[name].head}: {shown[name].doc}." for name in columns if shown[name].doc]
    notes += [*meaning("compressions", "average_bits"), *[_STORED] * ("stored_bits" in columns)]
    on = "on several texts" if several else f"on {texts[0]}"
    return Block(
        "Compressors",
        f"The model with its linear layers compressed, against the model as it is (few bits first), {on}.",
        tuple(notes),
        Listing(
            ("compressor", *["text"] * several, *heads),
            tuple(rows),
            (False, *[False] * several, *(name == "perplexity" for name in columns)),
            frozenset(starts - {0}),
            words=1 + several,
        ),
        wide=True,
    )


def _cell(name: str, value: float | None, clean: float | None) -> Cell:
    """Return a metric, and for a perplexity what it is over that of the model as it is."""
    if value is None or name.endswith("bits"):
        return Cell("" if value is None else text.number(value))
    told = attacks.number(value, attacks.metric(name))
    if name != "perplexity" or clean is None or not clean > 0 or not math.isfinite(value / clean):
        return Cell(told)
    return Cell(told, "=" if value == clean else times(value / clean))


def _chart(effects: pl.DataFrame, of: str) -> list[Block]:
    """Draw perplexity against average bits on one text."""
    title = "Perplexity against bits" + (f", {text.line(of, 60)}" if of else "")
    found = [(method, values.get("average_bits"), values.get("perplexity")) for method, values in _found(effects)]
    points = pl.DataFrame(found, {"method": pl.String, "bits": pl.Float64, "perplexity": pl.Float64}, orient="row")
    drawn = points.filter(pl.col("bits").is_finite(), pl.col("perplexity").is_finite(), pl.col("perplexity") > 0)
    rest = points.join(drawn, "method", how="anti", maintain_order="left").to_dicts()
    without = "; ".join(f"{row['method']} ({text.number(row['perplexity'])})" for row in rest)
    says = "Further left takes less room, further down loses less." + (
        f" Without a place here: {without}." if without else ""
    )
    if drawn.is_empty():
        return []
    clean = _baseline(effects, "perplexity")
    methods = drawn["method"].to_list()
    looks = [look(method, methods) for method in methods]
    keys = [Key(method or _UNNAMED, one.colour, "bare", one.shape) for method, one in zip(methods, looks, strict=True)]
    keys += [Key(f"{_CLEAN}: {text.number(clean)}", GREY, "dashed")] * (clean is not None)
    spoken = "; ".join(
        f"{row['method']} {text.number(row['perplexity'])} at {text.number(row['bits'])} bits"
        for row in drawn.to_dicts()
    )
    notes = (f"perplexity: {attacks.metric('perplexity').doc}.", *meaning("compressions", "average_bits"))
    plot = trade(drawn, clean)
    return [Block(title, says, notes, plot, tuple(keys), f"Points: {text.printable(spoken)}.", wide=True)]


def _maps(table: pl.DataFrame, order: list[str]) -> list[Block]:
    """Map the errors of each compressor's matrices in this order, all on one scale, and name the worst."""
    table = known(table).with_columns(pl.col("method").fill_null(_UNNAMED))
    table = table.unique(["method", *KEY], keep="last", maintain_order=True)
    methods = table["method"].unique(maintain_order=True).to_list()
    methods.sort(key=lambda method: order.index(method) if method in order else len(order))
    parts = {method: table.filter(method=method) for method in methods[:_MOST_MAPS]}
    value_of = {
        method: "output_error" if largest(rows, "output_error").height else "weight_error"
        for method, rows in parts.items()
    }
    limits = {
        value: extent(
            finite(pl.concat([rows[value] for method, rows in parts.items() if value_of[method] == value])), log=True
        )
        for value in set(value_of.values())
    }
    modules = ordered(table["module"])
    left = len(methods) - len(parts)
    blocks = []
    for method, rows in parts.items():
        value = value_of[method]
        worst = largest(rows, value).head(_WORST).to_dicts()
        if not worst:
            continue
        named = listed([f"{matrix_name(row)} ({percent(row[value])})" for row in worst])
        words = "outputs" if value == "output_error" else "weights"
        says = f"How far the {words} of each matrix are off; most: {named}."
        if left and not blocks:
            says += f" {text.count(left, 'more compressor is', 'more compressors are')} in the run's table."
        blocks.append(
            Block(
                f"Errors of {text.line(method, 60)}",
                says,
                (*meaning("compressions", value, "average_bits"), "no cell: not compressed; grey: no number."),
                matrix_map(rows, value, _ERRORS, log=True, limits=limits[value], modules=modules),
                alt=f"Map of layers and modules. {peak(rows, value, 'error', 'layer', 'module')}",
            )
        )
    return blocks


SECTIONS = (
    Section(
        "compressors",
        "Compressors",
        "What the model loses when its linear layers are compressed, and in which matrices.",
        ("compressions",),
        "The table has no rows: no matrix was compressed.",
        compressors,
    ),
)
