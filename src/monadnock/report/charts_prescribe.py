"""Section on prescriptions: what to do before the model is quantised, where, why, and the number behind it."""

from monadnock.findings.summary_compress import matrix_name
from monadnock.report import text
from monadnock.report.parts import Block, Cell, Findings, Listing, Section, meaning

_HEADS = ("do", "where", "why", "evidence", "number", "bound")


def prescriptions(findings: Findings) -> list[Block]:
    """List the prescriptions in their order, with evidence and reason."""
    rows = findings["prescriptions"].sort("rank", nulls_last=True, maintain_order=True).to_dicts()
    cells = tuple(tuple(map(Cell, _cells(row))) for row in rows)
    body = Listing(_HEADS, cells, (False,) * len(_HEADS), words=4, wraps=True)
    says = f"{text.count(len(rows), 'prescription')}, the most important first; each with the number that it rests on."
    notes = meaning("prescriptions", "action", "rows", "amount", "evidence", "value", "bound")
    return [Block("What to do", says, notes, body, wide=True)]


def _cells(row: dict) -> tuple[str, ...]:
    numbers = ["" if row[name] is None else text.number(row[name]) for name in ("value", "bound")]
    return (
        (row["action"] or "unnamed").replace("_", " "),
        _place(row),
        row["reason"] or "",
        row["evidence"] or "",
        *numbers,
    )


def _place(row: dict) -> str:
    """Name what a prescription is about: a matrix or its rows, or so many tokens."""
    if row["action"] == "keep_sinks" and row["amount"] is not None:
        return f"keys and values of {text.number(row['amount'])} tokens"
    parts = []
    if row["module"] is not None and row["layer"] is not None:
        parts.append(matrix_name(row))
    elif row["layer"] is not None:
        parts.append(f"layer {row['layer']}")
    if row["rows"]:
        parts.append(f"row{'s' * (len(row['rows'].split()) > 1)} {row['rows']}")
    return ", ".join(parts)


SECTIONS = (
    Section(
        "prescriptions",
        "Prescriptions",
        "What to keep, and how to round, before this model is quantised.",
        ("prescriptions",),
        "The table has no rows: nothing was prescribed.",
        prescriptions,
    ),
)
