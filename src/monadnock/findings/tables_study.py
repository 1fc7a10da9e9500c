"""The tables in which studies over chosen inputs are written down: columns, types, and one line of meaning for each."""

from monadnock.findings.columns import FEATURE, FLAG, INT, LAYER, REAL, TEXT, TOKEN, TOKEN_CLASS, TOKEN_ID, Table

INPUT = (
    ("study", TEXT, "bos, length or attention"),
    ("input", TEXT, "name of the input, as `BOS in the middle`"),
)

STUDIES: tuple[Table, ...] = (
    Table(
        "inputs",
        "One row per input of a study, layer and position: how large its state is and how much attention it gets.",
        (
            *INPUT,
            LAYER,
            ("position", INT, "0-based position in the input"),
            TOKEN_ID,
            TOKEN,
            TOKEN_CLASS,
            ("top1", REAL, "largest |h| of the position behind this layer"),
            FEATURE,
            ("rms", REAL, "root mean square of h of the position behind this layer"),
            ("massive", FLAG, "top1 > 100 and > 1000 median|h| of this layer over the scanned text (sun2024)"),
            ("attention", REAL, "alpha_j: mean over heads, and over queries that see the key, of A[i, j]"),
            ("num_sink_heads", INT, "heads in which alpha_j > 0.3 (gu2025) and that a quarter of the queries see"),
        ),
        verb="study",
    ),
    Table(
        "maps",
        "One row per pair of a query and a key of an input, for the heads and layers that a study keeps.",
        (
            *INPUT,
            LAYER,
            ("head", INT, "0-based query head; null for the mean over heads"),
            ("query", INT, "0-based position of the query"),
            ("key", INT, "0-based position of the key, at most that of the query"),
            ("mass", REAL, "A[query, key]"),
        ),
        verb="study",
    ),
)
