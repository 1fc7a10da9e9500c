"""The rows and columns of matrices that hold most of a loss of rounding, with their share in every kind of loss."""

import polars as pl

from monadnock.findings.summary_compress import matrix_name
from monadnock.findings.words import listed
from monadnock.report.matrix_maps import KEY, percent
from monadnock.report.parts import Block, Cell, Listing, meaning

KINDS = {
    "plain": "Each weight rounded alone, nothing making up for it",
    "compensated": "Each weight rounded, the others of its row making up for it as well as they can",
    "sequential": "Column by column, as GPTQ rounds: only later columns make up for a weight",
}
_FIRST, _MORE = 8, 4  # lines that have the largest plain shares, and those of the next kind
_OF_ONE = 2  # lines of one matrix
_SMALL = 0.05  # a share below which a second line of a matrix is not told
_LISTED = 16  # lines of a matrix that a run lists; others have smaller shares
_HIDDEN = 10  # times: how much smaller the compensated share of a line is that is hidden
_READS = dict.fromkeys("qkv", "attention") | dict.fromkeys(("gate", "up"), "FFN")  # modules that read the same input


def line_list(rows: pl.DataFrame, of: str) -> list[Block]:
    """List rows and columns with large shares, each with its share in every kind."""
    if rows.is_empty():
        return []
    shares = _Shares(rows)
    first, *others = shares.kinds
    chosen = _chosen(rows.filter(kind=first), [], _FIRST if others else _FIRST + _MORE)
    start = len(chosen)
    if others:
        chosen = _chosen(rows.filter(kind=others[0]), chosen, start + _MORE)
    parted = start if start < len(chosen) else 0
    says = f"The largest shares of the {first} loss that single rows and columns of a matrix hold"
    says += f", and below the line those of the {others[0]} one. " if parted else ". "
    says += "Of modules that read the same input, one stands for all. "
    if {"plain", "compensated"} <= set(shares.kinds):
        says += (
            "Both kinds are needed: of two inputs that fire together, each can make up for the other, so that only the "
            f"plain loss tells what rounding both would cost{shares.hidden()}."
        )
    cells = [
        [matrix_name(row), f"{row['axis']} {row['index']}", *map(shares.of(row).get, shares.kinds)] for row in chosen
    ]
    body = Listing(
        ("matrix", "where", *shares.kinds),
        tuple(tuple(Cell(each or "") for each in row) for row in cells),
        (False,) * (2 + len(shares.kinds)),
        frozenset({parted} if parted else ()),
        words=2,
    )
    notes = meaning("sensitivity_lines", "axis", "index", "share", "kind")
    notes += (f"< : not among the {_LISTED} rows or columns of the matrix that the run lists.",)
    title = "Rows and columns that hold the loss" + (f" ({of})" if of else "")
    return [Block(title, says.strip(), notes, body, wide=True)]


def _chosen(rows: pl.DataFrame, taken: list[dict], most: int) -> list[dict]:
    """Add lines, the largest shares first, up to `most` in all; of each matrix a few, and no two of the same input."""
    chosen, matrices = list(taken), {}
    same = lambda row: tuple(row[name] for name in (*KEY, "axis", "index"))  # noqa: E731
    told = {same(row) for row in taken}
    ranked: dict[tuple, list[dict]] = {}
    for row in rows.sort("share", descending=True, maintain_order=True).to_dicts():
        reads = _READS.get(row["module"], row["module"]) if row["axis"] == "column" else row["module"]
        place = (row["layer"], reads, row["expert"], row["axis"])
        if matrices.setdefault(place, row["module"]) == row["module"]:
            ranked.setdefault(tuple(row[name] for name in KEY), []).append(row)
    for lines in ranked.values():
        new = [row for row in lines if same(row) not in told]
        chosen += [row for place, row in enumerate(new[:_OF_ONE]) if not place or row["share"] >= _SMALL]
    return chosen[:most]


class _Shares:
    """The share of every line in every kind; of a line that is not listed, a bound."""

    def __init__(self, rows: pl.DataFrame):
        kinds = rows["kind"].unique(maintain_order=True).to_list()
        self.kinds = [kind for kind in KINDS if kind in kinds] + [kind for kind in kinds if kind not in KINDS]
        self.rows = rows.to_dicts()
        self.listed: dict[tuple, dict[int, float]] = {}
        for row in self.rows:
            self.listed.setdefault(self._place(row, row["kind"]), {})[row["index"]] = row["share"]

    @staticmethod
    def _place(row: dict, kind: str) -> tuple:
        return (*(row[name] for name in KEY), row["axis"], kind)

    def of(self, row: dict) -> dict[str, str]:
        """Return the shares of a line by kind, in words."""
        told = {kind: self._bounded(row, kind) for kind in self.kinds}
        return {kind: f"{'' if sure else '< '}{percent(share)}" for kind, (share, sure) in told.items()}

    def _bounded(self, row: dict, kind: str) -> tuple[float | None, bool]:
        """Return the share of a line, or what it is at most, and which of both."""
        here = self.listed.get(self._place(row, kind), {})
        if row["index"] in here:
            return here[row["index"]], True
        return (min(here.values()), False) if len(here) >= _LISTED else (None, True)

    def hidden(self) -> str:
        """Name the lines of one matrix that hold much of the plain loss and next to nothing of the compensated one."""
        found: dict[tuple, list[tuple[dict, float]]] = {}
        for row in self.rows:
            if row["kind"] == "plain" and row["share"] >= 2 * _SMALL:
                share, _ = self._bounded(row, "compensated")
                if share is not None and _HIDDEN * share <= row["share"]:
                    found.setdefault(self._place(row, "plain"), []).append((row, share))
        if not found:
            return ""
        lines = max(found.values(), key=lambda pairs: sum(row["share"] for row, _ in pairs))
        rows = [row for row, _ in lines]
        plain, other = sum(row["share"] for row in rows), sum(share for _, share in lines)
        where = rows[0]["axis"] + "s" * (len(rows) > 1) + f" {listed([str(row['index']) for row in rows])}"
        return (
            f". Here {where} of {matrix_name(rows[0])} hold{'s' * (len(rows) == 1)} {percent(plain)} of the plain loss "
            f"and {percent(other)} of the compensated one at most"
        )
