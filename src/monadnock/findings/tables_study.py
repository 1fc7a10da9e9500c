"""The tables in which studies over chosen inputs are written down: columns, types, and one line of meaning for each."""

from monadnock.findings.columns import FEATURE, FLAG, INT, LAYER, REAL, TEXT, TOKEN, TOKEN_CLASS, TOKEN_ID, Table

INPUT = (
    ("study", TEXT, "bos, length or attention"),
    ("input", TEXT, "name of the input, as `BOS in the middle`"),
    ("prompt", TEXT, "its text, without the tokens that the study puts between"),
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
            ("inserted", FLAG, "whether the study put this token there: BOS, or what stands in for it"),
            ("top1", REAL, "largest |h| of the position behind this layer"),
            FEATURE,
            ("ratio", REAL, "top1 / median|h| of this layer over the scanned text"),
            ("rms", REAL, "root mean square of h of the position behind this layer"),
            ("massive", FLAG, "top1 > 100 and ratio > 1000 (sun2024)"),
            ("attention", REAL, "alpha_j: mean over heads, and over queries that see the key, of A[i, j]"),
            ("uniform", REAL, "what alpha_j would be if every query gave all the keys it sees the same"),
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
