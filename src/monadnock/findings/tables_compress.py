"""The tables of sensitivity and compression: columns, types, and one line of meaning for each."""

from monadnock.findings.columns import EXPERT, FLAG, INT, LAYER, RANK, REAL, TEXT, Table

MATRIX = (LAYER, ("module", TEXT, "q, k, v, o, gate, up or down"), EXPERT)
NAME = ("name", TEXT, "the module's name in the checkpoint, as model.layers.11.mlp.down_proj")
KIND = (
    "kind",
    TEXT,
    "compensated (spqr's s_ij), plain (without compensation) or sequential (column by column, as GPTQ rounds)",
)
SETTING = (
    ("bits", INT, "bits of a rounded weight"),
    ("group", INT, "columns of a row that share a grid; null: the whole row"),
    ("damping", REAL, "added to the Hessian's diagonal, in parts of its mean"),
    ("data", TEXT, "the calibration text in words, with the first digits of its hash"),
)

COMPRESSED: tuple[Table, ...] = (
    Table(
        "sensitivity",
        "One row per weight matrix and kind: what rounding its weights costs, and how few weights carry most of it "
        "(spqr).",
        (
            *MATRIX,
            NAME,
            KIND,
            *SETTING,
            ("num_tokens", INT, "calibration tokens that the matrix saw"),
            ("num_inputs", INT, "columns; with fewer tokens than these, the damping decides"),
            ("num_dead", INT, "inputs that were 0 at every token"),
            ("total", REAL, "sum of s_ij: what rounding adds to the squared output of the layer, mean over tokens"),
            ("relative", REAL, "total over tr(W H W^T) / 2, the squared output itself, mean over tokens"),
            ("top_1e4", REAL, "share of the total in the most sensitive 0.01 % of the weights"),
            ("top_1e3", REAL, "share in the most sensitive 0.1 %"),
            ("top_1e2", REAL, "share in the most sensitive 1 %"),
        ),
        verb="sensitivity",
    ),
    Table(
        "sensitivity_lines",
        "One row per row or column of a matrix with a large share of its sensitivity, the 16 largest of each axis.",
        (
            *MATRIX,
            KIND,
            *SETTING,
            ("axis", TEXT, "row (an output) or column (an input)"),
            RANK,
            ("index", INT, "0-based row or column"),
            ("share", REAL, "its share of the total"),
        ),
        verb="sensitivity",
    ),
    Table(
        "patterns",
        "One row per matrix, kind and pattern looked for: how strong, whether chance makes the same, and where.",
        (
            *MATRIX,
            KIND,
            *SETTING,
            ("pattern", TEXT, "row, partial_row, column, attention_head, rotary or unstructured"),
            ("axis", TEXT, "which lines it is about: row or column; null for unstructured"),
            (
                "score",
                REAL,
                "how strong: a ratio of geometric means for lines, blocks and heads, a correlation for rotary, a share "
                "for unstructured",
            ),
            ("null_score", REAL, "the same in the median of the permutations"),
            ("p_value", REAL, "(1 + permutations with a score as large) / (1 + permutations); null: none is made"),
            ("found", FLAG, "p_value <= 0.01, and the score above the least that one would see"),
            ("head", INT, "0-based head it is about (of keys and values: key-value head); null for none"),
            ("aligned", FLAG, "whether a partial row keeps to the borders of heads; null for the others"),
            ("row_start", INT, "first row of the place; null where there is none"),
            ("row_end", INT, "row after the last"),
            ("column_start", INT, "first column of the place"),
            ("column_end", INT, "column after the last"),
        ),
        verb="sensitivity",
    ),
    Table(
        "compressions",
        "One row per compressor and matrix: what is left of the matrix and of its outputs, and the bits it takes.",
        (
            ("method", TEXT, "the compressor with its settings, as in the table effects"),
            *MATRIX,
            NAME,
            ("average_bits", REAL, "bits of a weight with its statistics and outliers, as the paper counts (spqr)"),
            ("outlier_share", REAL, "share of weights kept apart"),
            ("kept_rows", INT, "rows kept as they were"),
            ("weight_error", REAL, "|W' - W| / |W|, root sums of squares"),
            ("output_error", REAL, "tr(D H D^T) / tr(W H W^T), D = W' - W; null without calibration"),
        ),
        verb="compress",
    ),
    Table(
        "prescriptions",
        "One row per thing to do before this model is quantised, the most important first, with the evidence.",
        (
            RANK,
            (
                "action",
                TEXT,
                "keep_module, keep_rows, keep_sinks, rotate, per_row, no_rotation, no_rows, ...: see docs/prescribe.md",
            ),
            *MATRIX,
            ("rows", TEXT, "rows it is about, separated by blanks; null for all"),
            ("name", TEXT, "the module's name in the checkpoint; null where it is about no module"),
            ("amount", REAL, "how many tokens, rows or bits; null where the action says it all"),
            ("evidence", TEXT, "table and column that it is taken from"),
            ("value", REAL, "the number found there"),
            ("bound", REAL, "the number it is held against"),
            ("reason", TEXT, "why, in a sentence"),
        ),
        verb="prescribe",
    ),
)
