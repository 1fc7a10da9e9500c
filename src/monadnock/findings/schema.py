"""The schema of every table in a run: column names, types, and one line of meaning for each."""

from dataclasses import dataclass

import polars as pl

from monadnock.errors import MonadnockError, nearest

INT, REAL, TEXT, FLAG = pl.Int64, pl.Float64, pl.String, pl.Boolean

# Columns that mean the same wherever they stand.
STREAM = ("stream", TEXT, "kind of state: residual (h), down_proj_input (x_down), ...")
LAYER = ("layer", INT, "0-based index of the decoder layer; null where the finding belongs to no layer")
EXPERT = ("expert", INT, "0-based expert; null in dense layers")
SEQUENCE = ("sequence", INT, "0-based window of the scanned text")
POSITION = ("position", INT, "0-based position in the window, BOS counted where it was put in front")
TOKEN_ID = ("token_id", INT, "id of the token at that position")
TOKEN = ("token", TEXT, "decoded text of the token at that position")
TOKEN_CLASS = ("token_class", TEXT, "start, delimiter, weak (articles, prepositions, conjunctions, blanks) or other")
FEATURE = ("feature", INT, "0-based index into the stream's width")
RANK = ("rank", INT, "1 for the largest")

# What an attack was; the same columns in every table of attacks.
ATTACK = (
    ("mode", TEXT, "what was done: none (the clean model), zero, retain, random, ...: see docs/attack.md"),
    ("layer", INT, "0-based layer that was changed; null for none, and where several were (see targets)"),
    ("expert", INT, "0-based expert that was changed; null in dense layers"),
    ("k", INT, "how many rows, weights, features or positions were changed (retain: kept), in each layer"),
    ("seed", INT, "what the control was drawn with; null where nothing is drawn"),
    ("targets", TEXT, "what exactly was changed (retain: kept), as `layer 11: 1229 1487`"),
)


@dataclass(frozen=True)
class Table:
    """A table's name, what a row is, its columns as (name, polars type, meaning), and the verb that fills it."""

    name: str
    doc: str
    columns: tuple[tuple[str, type[pl.DataType], str], ...]
    verb: str = "scan"

    @property
    def polars(self) -> pl.Schema:
        """The polars schema of the table."""
        return pl.Schema({name: dtype for name, dtype, _ in self.columns})

    def frame(self, rows: list[dict] | pl.DataFrame | None = None) -> pl.DataFrame:
        """Return rows as a frame of exactly this schema; missing columns become null, unknown ones are an error."""
        if rows is None or len(rows) == 0:
            return pl.DataFrame(schema=self.polars)
        frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows, infer_schema_length=None)
        if unknown := set(frame.columns) - set(self.polars):
            raise ValueError(f"table {self.name} has no column {sorted(unknown)}")
        return frame.select(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in self.polars.items()
        )


_TABLES = (
    Table(
        "layers",
        "One row per stream and layer: size and shape of the distribution, averaged over the windows.",
        (
            STREAM,
            LAYER,
            ("top1", REAL, "largest |value| of a window, averaged over windows"),
            ("top2", REAL, "second largest |value|, likewise"),
            ("top3", REAL, "third largest |value|, likewise"),
            ("median", REAL, "median |value| of a window, likewise (log histogram, relative error at most 0.4 %)"),
            ("mean_abs", REAL, "mean |value|, likewise"),
            ("rms", REAL, "root of the mean square over all windows"),
            ("kurtosis", REAL, "E(x-m)^4 / (E(x-m)^2)^2 over all windows; 3 for a Gaussian"),
            ("num_outliers", INT, "entries with |value| > 1000 mean|value| of their window (an2025), all windows"),
        ),
    ),
    Table(
        "activations",
        "One row per large entry: the five largest of every stream, layer and window, and all that meet a criterion "
        "(the largest 32 at most).",
        (
            STREAM,
            LAYER,
            EXPERT,
            RANK,
            SEQUENCE,
            POSITION,
            TOKEN_ID,
            TOKEN,
            TOKEN_CLASS,
            FEATURE,
            ("value", REAL, "signed value"),
            ("ratio_mean", REAL, "|value| / mean|value| of this stream, layer and window"),
            ("ratio_median", REAL, "|value| / median|value| of this stream, layer and window"),
            ("criterion", TEXT, "an2025 (> 1000 mean), sun2024 (> 100 and > 1000 median), an2025+sun2024, or null"),
            ("overflows_float16", FLAG, "|value| > 65504, beyond float16"),
        ),
    ),
    Table(
        "features",
        "One row per stream, layer and feature, the 64 largest by max_abs of each layer.",
        (
            STREAM,
            LAYER,
            FEATURE,
            ("max_abs", REAL, "largest |value| of the feature over all tokens"),
            ("mean_abs", REAL, "mean |value| of the feature over all tokens"),
        ),
    ),
    Table(
        "start_states",
        "One row per large entry of the states of the start token fed alone, the eight largest of every layer.",
        (STREAM, LAYER, EXPERT, RANK, FEATURE, ("value", REAL, "signed value")),
    ),
    Table(
        "massive_weights",
        "One row per feature of x_down at the massive layer, the 50 largest: rows of W_up and W_gate (oh2024).",
        (
            LAYER,
            EXPERT,
            RANK,
            FEATURE,
            ("magnitude", REAL, "|x_down| of the start token fed alone"),
            ("massive", FLAG, "magnitude > 100 and > 1000 median|x_down| over the text (sun2024)"),
        ),
    ),
    Table(
        "super_weights",
        "One row per entry W_down[row, column] with a massive column and a massive residual row.",
        (
            LAYER,
            EXPERT,
            RANK,
            ("row", INT, "output feature: a feature of the residual stream"),
            ("column", INT, "input feature: a feature of x_down"),
            ("weight", REAL, "W_down[row, column]"),
            ("contribution", REAL, "W_down[row, column] * x_down[column] of the start token"),
        ),
    ),
    Table(
        "lifecycles",
        "One row per stretch of layers over which a residual feature of the start token lives: |value| > 100 and "
        "> 100 median|h| over the text.",
        (
            FEATURE,
            ("birth", INT, "first layer whose output has it alive"),
            ("death", INT, "first later layer whose output does not; null if it lives to the last layer"),
            ("peak_layer", INT, "layer of the largest |value| in between"),
            ("peak_value", REAL, "signed value there"),
            ("rise_layer", INT, "layer that adds most to |value|: where it is made"),
            ("fall_layer", INT, "layer that takes most away, the layer of death included; null if none does"),
            ("massive", FLAG, "massive in one of these layers: |value| > 100 and > 1000 median|h| (sun2024)"),
        ),
    ),
    Table(
        "norm_gains",
        "One row per norm and feature: the four largest |gain| of every norm, and the massive features.",
        (
            LAYER,
            ("norm", TEXT, "attn_input, mlp_input, attn_output, mlp_output, query, key or final"),
            FEATURE,
            ("gain", REAL, "effective gain, 1 + weight in families that store it so"),
            ("ratio", REAL, "|gain| / median|gain| of this norm"),
            ("massive_feature", FLAG, "the feature is massive in the residual of the start token"),
        ),
    ),
    Table(
        "norms",
        "One row per norm: its gains at a glance.",
        (
            LAYER,
            ("norm", TEXT, "as in norm_gains"),
            ("mean", REAL, "mean gain"),
            ("median", REAL, "median gain"),
            ("min", REAL, "smallest gain"),
            ("max", REAL, "largest gain"),
            ("num_negative", INT, "gains below zero"),
        ),
    ),
    Table(
        "attention",
        "One row per key: the two largest cumulative and the largest normalised score of every head and window, and "
        "every outlier.",
        (
            LAYER,
            ("head", INT, "0-based query head; null for the mean over heads"),
            SEQUENCE,
            POSITION,
            TOKEN_ID,
            TOKEN,
            TOKEN_CLASS,
            ("cumulative", REAL, "c_j = sum over queries of A[i, j]"),
            ("normalized", REAL, "alpha_j = c_j / number of queries that see key j"),
            ("num_queries", INT, "number of queries that see key j"),
            ("outlier", FLAG, "c_j > 1000 mean_j c_j (an2025)"),
        ),
    ),
    Table(
        "heads",
        "One row per query head, averaged over windows.",
        (
            LAYER,
            ("head", INT, "0-based query head"),
            ("kind", TEXT, "sink, previous, self, local or broad: see docs/tables.md"),
            ("first_key_mass", REAL, "mean over queries of A[i, 0]"),
            (
                "sink_mass",
                REAL,
                "largest alpha_j, window mean, over keys with a quarter of the queries that any key has",
            ),
            ("sink_position", INT, "position of that key; null where more than half of the windows do not agree"),
            ("sink_token_class", TEXT, "its token class; null where more than half of the windows do not agree"),
            ("sink", FLAG, "sink_mass > 0.3 (gu2025)"),
            ("entropy", REAL, "mean over queries 4, 12, 20, ... of -sum_j A[i, j] ln A[i, j], in nats"),
            ("mean_distance", REAL, "mean over queries of sum_j A[i, j] (i - j), in tokens"),
            ("previous_mass", REAL, "mean over queries of A[i, i-1]"),
            ("self_mass", REAL, "mean over queries of A[i, i]"),
            ("local_mass", REAL, "mean over queries of the sum of A[i, j] over the last 8 keys, i included"),
            ("num_outliers", INT, "keys with c_j > 1000 mean_j c_j (an2025), all windows"),
        ),
    ),
    Table(
        "weights",
        "One row per weight matrix and axis: tensor (all entries), row (per output) or column (per input feature).",
        (
            LAYER,
            ("module", TEXT, "q, k, v, o, gate, up, down, router"),
            EXPERT,
            ("axis", TEXT, "what a slice is: the whole tensor, a row or a column of the [out, in] matrix"),
            ("extremal_ratio", REAL, "largest over slices of max|w| / mean|w|"),
            ("index", INT, "the slice where it is; null for the tensor"),
            ("sigma_over_mean", REAL, "standard deviation / mean|w|, mean over slices; 1.2533 for a centred Gaussian"),
            ("kurtosis", REAL, "E(w-m)^4 / (E(w-m)^2)^2, mean over slices; 3 for a Gaussian"),
            ("num_outliers", INT, "entries with |w| > 1000 mean|w| of their slice (an2025 for rows)"),
            ("w8_error", REAL, "|w - absmax8(w)| / |w| (root sum of squares), one 8-bit scale per slice"),
        ),
    ),
    Table(
        "router",
        "One row per layer and expert: the router's probabilities.",
        (
            LAYER,
            EXPERT,
            ("input", TEXT, "start (the start token alone) or text (mean over its tokens)"),
            ("probability", REAL, "softmax over all experts of the router's logits"),
        ),
    ),
    Table(
        "parameters",
        "One row per component and layer; the counts add up to the checkpoint's own count.",
        (
            (
                "component",
                TEXT,
                "embedding, position, q, k, v, o, gate, up, down, router, norm, bias, unembedding, other",
            ),
            LAYER,
            ("count", INT, "number of parameters; a tied unembedding counts 0"),
        ),
    ),
    Table(
        "nonfinite",
        "One row per place where NaN or infinity was met; empty in a healthy model.",
        (
            ("where", TEXT, "weight, or the stream"),
            LAYER,
            ("name", TEXT, "parameter name, or the pass in which it was seen (start or text)"),
            ("count", INT, "number of such entries"),
        ),
    ),
    Table(
        "effects",
        "One row per attack and metric: what the model does while something in it is changed.",
        (
            *ATTACK,
            ("metric", TEXT, "perplexity, kl, top1_agreement, top1_h, sink_share, implicit_scaling, or a task's own"),
            ("data", TEXT, "the text as `source, windows x length, BOS, first digits of its hash`, or the task"),
            ("value", REAL, "the metric under the attack"),
            ("baseline", REAL, "the same of the clean model"),
            ("error", REAL, "standard error of the value; null where the metric comes without one"),
        ),
        verb="attack",
    ),
    Table(
        "generations",
        "One row per attack and prompt: what the model writes, greedily, while something in it is changed.",
        (
            *ATTACK,
            ("prompt", TEXT, "what was given"),
            ("text", TEXT, "what the model went on with"),
            ("same_tokens", INT, "how many first tokens equal those of the clean model"),
            ("num_tokens", INT, "how many tokens were written"),
        ),
        verb="attack",
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _TABLES}


def table(name: str) -> Table:
    """Return the schema of a table; an unknown name is a `MonadnockError` with the nearest known names."""
    if name not in TABLES:
        raise MonadnockError(f"There is no table {name!r}: {nearest(name, TABLES)}")
    return TABLES[name]
