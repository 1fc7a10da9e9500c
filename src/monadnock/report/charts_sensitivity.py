"""Section on sensitivity: what rounding each matrix loses, how few weights carry it, and in which rows and columns."""

import polars as pl

from monadnock.findings.summary_compress import matrix_name
from monadnock.findings.words import listed
from monadnock.report import text
from monadnock.report.charts_sensitivity_lines import KINDS, line_list
from monadnock.report.matrix_maps import (
    KEY,
    SETTING,
    by_setting,
    known,
    largest,
    matrix_map,
    ordered,
    percent,
    setting_words,
    with_setting,
)
from monadnock.report.parts import Block, Findings, Section, meaning
from monadnock.report.source import extent, finite, peak

_MOST_SETTINGS = 2
_NUMBERS = {
    "relative loss": "relative", "loss": "total", "share in 0.01 % of the weights": "top_1e4",
    "share in 0.1 %": "top_1e3", "share in 1 %": "top_1e2", "tokens": "num_tokens", "inputs": "num_inputs",
    "inputs always 0": "num_dead", "damping": "damping",
}  # fmt: skip


def sensitivity(findings: Findings) -> list[Block]:
    """Draw the loss and its concentration (maps) for each kind, and list the rows and columns that hold most of it."""
    matrices = known(findings["sensitivity"], "kind")
    lines = known(findings["sensitivity_lines"], "kind", "axis", "index").filter(pl.col("share").is_finite())
    blocks = []
    settings = by_setting(matrices if matrices.height else lines)
    for setting in settings[:_MOST_SETTINGS]:
        varying = [name for name in SETTING if len({each[name] for each in settings}) > 1]
        of = ", ".join(setting_words(setting, varying))
        here = [with_setting(table, setting) for table in (matrices, lines)]
        left = len(settings) - _MOST_SETTINGS
        more = f" {text.count(left, 'more setting')} in the run." if left > 0 else ""
        blocks += [*_maps(here[0], f"{', '.join(setting_words(setting, SETTING))}.{more}", of), *line_list(here[1], of)]
    return blocks


def _maps(rows: pl.DataFrame, setting: str, of: str) -> list[Block]:
    """Draw the maps, plain and compensated side by side, all losses on one scale."""
    rows = rows.unique([*KEY, "kind"], keep="last", maintain_order=True)
    kinds = [kind for kind in KINDS if kind in rows["kind"]]
    kinds += [kind for kind in rows["kind"].unique(maintain_order=True) if kind not in KINDS]
    limits = extent(finite(rows["relative"]), log=True)
    modules = ordered(rows["module"])
    blocks = []
    for pair in (kinds[:2], kinds[2:]):
        told = {kinds[0]: setting} if pair else {}
        blocks += [_loss(rows.filter(kind=kind), kind, told.get(kind, ""), of, limits, modules) for kind in pair]
        blocks += [_concentration(rows.filter(kind=kind), kind, of, modules) for kind in pair]
    return blocks


def _loss(
    rows: pl.DataFrame, kind: str, setting: str, of: str, limits: tuple[float, float], modules: list[str]
) -> Block:
    says = f"{KINDS.get(kind, 'Each weight rounded')}: the sum of losses, over the loss of setting the matrix to 0"
    says += f"{_experts(rows)}. {setting}".rstrip()
    unseen = rows.filter(num_tokens=0).height
    says += f" No token came to {text.count(unseen, 'matrix', 'matrices')}." if unseen else ""
    if not rows["relative"].is_finite().any():
        return Block(_title("Loss of rounding", kind, of), f"{says} No matrix has a number.")
    return Block(
        _title("Loss of rounding", kind, of),
        says,
        (*meaning("sensitivity", "kind", "relative", "total", "num_tokens", "num_inputs"), "grey: no number."),
        matrix_map(rows, "relative", _NUMBERS, log=True, limits=limits, modules=modules),
        alt=f"Map of layers and modules. {peak(rows, 'relative', 'relative loss', *_matrix(rows))}",
    )


def _concentration(rows: pl.DataFrame, kind: str, of: str, modules: list[str]) -> Block:
    title = _title("Concentration", kind, of)
    worst = largest(rows, "top_1e3").head(3)
    if worst.is_empty():
        return Block(title, "No matrix has a number.")
    told = listed([f"{matrix_name(row)} ({percent(row['top_1e3'])})" for row in worst.to_dicts()])
    return Block(
        title,
        f"The share of this loss that the most sensitive 0.1 % of the weights carry{_experts(rows)}; most: {told}.",
        meaning("sensitivity", "kind", "top_1e4", "top_1e3", "top_1e2"),
        matrix_map(rows, "top_1e3", _NUMBERS, log=False, limits=(0.0, 1.0), modules=modules),
        alt=f"Map of layers and modules. {peak(rows, 'top_1e3', 'share', *_matrix(rows))}",
    )


def _title(what: str, kind: str, of: str) -> str:
    return f"{what}, {kind}" + (f" ({of})" if of else "")


def _experts(rows: pl.DataFrame) -> str:
    return ", of the worst expert" if rows["expert"].n_unique() > 1 else ""


def _matrix(rows: pl.DataFrame) -> list[str]:
    return KEY if rows["expert"].null_count() < rows.height else KEY[:2]


SECTIONS = (
    Section(
        "sensitivity",
        "Sensitivity to rounding",
        "Which matrices lose most when their weights are rounded, and how few weights, rows and columns carry it.",
        ("sensitivity", "sensitivity_lines"),
        "The tables have no rows: no matrix was measured, or no token came to any.",
        sensitivity,
    ),
)
