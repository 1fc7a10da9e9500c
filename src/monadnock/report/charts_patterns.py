"""Section on patterns of sensitivity: in how many matrices each was found, the strongest, and matrices in words."""

import polars as pl

from monadnock.findings.summary_compress import in_words, matrix_name
from monadnock.report import text
from monadnock.report.matrix_maps import KEY, SETTING, by_setting, known, ordered, setting_words, with_setting
from monadnock.report.parts import Block, Cell, Findings, Listing, Section, meaning

_NAMES = {
    "attention_head": "attention head", "rotary": "rotary", "row": "row", "partial_row": "partial row",
    "column": "column",
}  # fmt: skip
_LEFT = "unstructured"
_OF_EACH = 3  # places told of each pattern
_TOLD = 12  # matrices told in words
_SPANS = ("row_start", "row_end", "column_start", "column_end")
_FFN = ("gate", "up", "down")


def patterns(findings: Findings) -> list[Block]:
    """Count where each pattern was found, list the strongest, and say what each matrix shows."""
    table = known(findings["patterns"], "pattern")
    settings = by_setting(table, "kind")
    if not settings:
        return []
    chosen = settings[0]
    rows = with_setting(table, chosen)
    words = f"Looked for in the {chosen['kind'] or 'unnamed'} kind: {', '.join(setting_words(chosen, SETTING))}."
    left = len(settings) - 1
    words += f" {text.count(left, 'more setting or kind', 'more settings or kinds')} in the run." if left else ""
    names = [name for name in _NAMES if name in rows["pattern"]]
    names += [name for name in rows["pattern"].unique(maintain_order=True) if name not in (*_NAMES, _LEFT)]
    losses = with_setting(known(findings["sensitivity"]), {name: chosen[name] for name in SETTING})
    return [*_counts(rows, names, words), *_strongest(rows, names), *_told(rows, losses)]


def _counts(rows: pl.DataFrame, names: list[str], words: str) -> list[Block]:
    """Count by module and pattern the matrices in which it was found, of those in which it was looked for."""
    if not names:
        return []
    matrices = rows.group_by(*KEY, "pattern").agg(found=pl.col("found").fill_null(False).any())
    counts = matrices.group_by("module", "pattern").agg(pl.col("found").sum(), of=pl.len())
    told = {(module, name): f"{found} of {of}" for module, name, found, of in counts.iter_rows()}
    modules = ordered(rows["module"])
    cells = [(module, *(told.get((module, name), "") for name in names)) for module in modules]
    notes = meaning("patterns", "pattern", "found", "p_value")
    if "attention_head" in names and any((module, "attention_head") in told for module in _FFN):
        notes += ("attention head in gate, up and down: stripes as wide as a head, which should not be there.",)
    return [
        Block(
            "Matrices with a pattern",
            f"In how many matrices of a module the sensitivities make a pattern that chance does not make. {words}",
            notes,
            _listing(("module", *(_named(name) for name in names)), cells, words=1),
        )
    ]


def _strongest(rows: pl.DataFrame, names: list[str]) -> list[Block]:
    """List of every pattern the matrices in which it is strongest, each with its strongest place."""
    title = "Strongest patterns"
    found = rows.filter(pl.col("found").fill_null(False), pl.col("score").is_finite(), pl.col("pattern").is_in(names))
    if found.is_empty():
        return [Block(title, "No pattern was found in any matrix.")] if names else []
    cells, starts = [], set()
    for name in names:
        here = found.filter(pattern=name).sort("score", descending=True, maintain_order=True)
        starts.add(len(cells))
        for row in here.unique(KEY, keep="first", maintain_order=True).head(_OF_EACH).to_dicts():
            score, chance = (_score(name, row[column]) for column in ("score", "null_score"))
            value = "" if row["p_value"] is None else text.number(row["p_value"])
            cells.append((_named(name), matrix_name(row), _place(row), score, chance, value))
    heads = ("pattern", "matrix", "where", "score", "by chance", "p")
    return [
        Block(
            title,
            f"The {_OF_EACH} matrices in which each pattern is strongest, at its strongest place. Scores of rotary are "
            "correlations, others how many times as sensitive as the rest.",
            meaning("patterns", "score", "null_score", "p_value", "aligned"),
            _listing(heads, cells, words=3, starts=frozenset(starts - {0})),
            wide=True,
        )
    ]


def _told(rows: pl.DataFrame, losses: pl.DataFrame) -> list[Block]:
    """Say what each matrix shows, the largest plain losses first where they are known."""
    size = {}
    for row in losses.filter(pl.col("relative").is_finite()).sort(pl.col("kind") == "plain").to_dicts():
        size[tuple(row[name] for name in KEY)] = row["relative"]
    matrices = {tuple(row[name] for name in KEY): row for row in rows.sort(KEY).to_dicts()}
    order = sorted(matrices, key=lambda place: -size.get(place, 0.0))[:_TOLD]
    rows = rows.drop_nulls("score")
    placed = pl.all_horizontal(pl.col("axis", *_SPANS).is_not_null())
    rows = rows.filter(placed | (pl.col("pattern") == _LEFT))
    cells = []
    for place in order:
        here = rows.filter(*(pl.col(name).eq_missing(pl.lit(value)) for name, value in zip(KEY, place, strict=True)))
        cells.append((matrix_name(matrices[place]), in_words(here.to_dicts())))
    says = "What the sensitivities of each matrix show" + (", the largest losses first" if size else "")
    says += f"; {len(order)} of {len(matrices)} matrices." if len(order) < len(matrices) else "."
    note = "x: how many times as sensitive as the rest, at the strongest place; r: correlation."
    notes = (note, "unstructured: share of the variance that rows and columns do not explain.")
    return [Block("In words", says, notes, _listing(("matrix", "patterns"), cells, words=2, wraps=True), wide=True)]


def _named(pattern: str) -> str:
    return _NAMES.get(pattern, text.token(pattern))


def _score(pattern: str, score: float | None) -> str:
    if score is None:
        return ""
    return text.number(score) if pattern == "rotary" else f"{text.number(score)}x"


def _place(row: dict) -> str:
    """Return where a pattern is: a head, a row, a column, or a part of a row."""
    sides = [_span(row, side) for side in ("row", "column")]
    if row["pattern"] == "rotary":
        return "all heads"
    if row["pattern"] == "partial_row":
        return ", ".join(filter(None, sides)) + (", along a head" if row["aligned"] else "")
    lines = sides[row["axis"] == "column"]
    return f"head {row['head']}" + (f", {lines}" if lines else "") if row["head"] is not None else lines


def _span(row: dict, side: str) -> str:
    start, end = row[f"{side}_start"], row[f"{side}_end"]
    if start is None or end is None:
        return ""
    return f"{side} {start}" if end - start == 1 else f"{side}s {start}-{end - 1}"


def _listing(
    heads: tuple[str, ...], rows: list[tuple], *, words: int, starts: frozenset[int] = frozenset(), wraps: bool = False
) -> Listing:
    cells = tuple(tuple(map(Cell, row)) for row in rows)
    return Listing(heads, cells, (False,) * len(heads), starts, words, wraps)


SECTIONS = (
    Section(
        "patterns",
        "Patterns of sensitivity",
        "Whether costly weights stand in rows, columns and heads, or anywhere.",
        ("patterns",),
        "The table has no rows: no matrix was looked at, or no token came to any.",
        patterns,
    ),
)
