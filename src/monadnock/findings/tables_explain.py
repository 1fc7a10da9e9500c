"""The tables in which outliers are explained: how they are made, what they act on, what a cut link does."""

from monadnock.findings.columns import EXPERT, FEATURE, FLAG, INT, LAYER, RANK, REAL, TEXT, Table

HEAD = ("head", INT, "0-based query head")
KV_HEAD = ("kv_head", INT, "0-based key-value head that the query head reads")

EXPLAINED: tuple[Table, ...] = (
    Table(
        "trace",
        "One row per layer and state of the start token fed alone, in the order in which they are made (oh2024).",
        (
            LAYER,
            ("step", INT, "0 for the first state of the layer"),
            (
                "state",
                TEXT,
                "before (h that comes in), attn_input (behind the norm), attn_output, attn_update (behind the norm "
                "after attention, where there is one), middle (h + attention), mlp_input, down_proj_input, mlp_output, "
                "mlp_update, residual (h that goes out)",
            ),
            EXPERT,
            ("top1", REAL, "largest |value|"),
            ("top2", REAL, "second largest |value|"),
            ("top3", REAL, "third largest |value|"),
            ("median", REAL, "median |value| of this state of the start token"),
            FEATURE,
            ("value", REAL, "signed value of the largest; its feature stands in the column before"),
        ),
    ),
    Table(
        "contributions",
        "One row per layer and feature of h that lives somewhere (see lifecycles): who adds to it and who takes away, "
        "for the start token fed alone.",
        (
            FEATURE,
            LAYER,
            ("before", REAL, "value in h that comes into the layer"),
            ("attention", REAL, "what attention adds, behind its norm where there is one"),
            ("mlp", REAL, "what the FFN adds, behind its norm where there is one"),
            ("after", REAL, "value in h that goes out: before + attention + mlp, up to rounding"),
        ),
    ),
    Table(
        "emergence",
        "One row per state of the FFN of the massive layer and massive row or feature: the start token against other "
        "tokens of the text (an2025).",
        (
            LAYER,
            EXPERT,
            (
                "state",
                TEXT,
                "gate, up, activation (of gate, else of up), intermediate (x_down), output (of W_down)",
            ),
            FEATURE,
            ("start", REAL, "signed value of the start token fed alone"),
            ("others", REAL, "mean |value| over positions 1 to 63 of the first window, through the same expert"),
            ("ratio", REAL, "|start| / others"),
        ),
    ),
    Table(
        "weight_outliers",
        "One row per entry of a matrix W_down that stands out: the largest of the eight columns with the largest "
        "extremal ratio, and all that are outliers of their row (the largest 32 at most).",
        (
            LAYER,
            EXPERT,
            RANK,
            ("row", INT, "output feature: a feature of the residual stream"),
            ("column", INT, "input feature: a feature of x_down"),
            ("weight", REAL, "W_down[row, column]"),
            ("column_ratio", REAL, "|w| / mean|w| of its column: the extremal ratio (an2025, figure 5)"),
            ("row_ratio", REAL, "|w| / mean|w| of its row"),
            ("outlier", FLAG, "row_ratio > 1000 (an2025)"),
        ),
    ),
    Table(
        "consistency",
        "One row per pair of kinds of outliers and criterion: the share of the first that are outliers of the second.",
        (
            ("outlier_1", TEXT, "weight outliers in W_down, or activation outliers in x_down or h"),
            ("outlier_2", TEXT, "activation outliers in x_down or h, or attention outliers in A"),
            ("dimension", TEXT, "what has to agree: feature or sequence (the position)"),
            ("criterion", TEXT, "what an outlier is: see docs/tables.md"),
            ("layers", TEXT, "same: both of one layer; next: the second kind of the layer behind"),
            ("consistency", REAL, "in percent; null where there is no outlier of the first kind"),
            ("num_outliers", INT, "outliers of the first kind that were looked up"),
            ("num_capped", INT, "samples whose list of activations is full (32 entries), so that some may be missing"),
            ("num_groups", INT, "matrices, or samples (times heads), over which the percentage is averaged"),
            ("published", REAL, "the same for Llama-2-7B in an2025, table 1"),
        ),
    ),
    Table(
        "scaling",
        "One row per query head: what scales its reading of other tokens, S_i = gate_i * (sum of A[i, j] over keys "
        "that are no sink), over all queries (an2025).",
        (
            LAYER,
            HEAD,
            ("kind", TEXT, "what scales: none, key (a sink), learned (a sink logit), gate, or several joined by +"),
            ("sink_keys", REAL, "keys with alpha_j > 0.3 (gu2025), averaged over windows"),
            (
                "learned_mass",
                REAL,
                "mean over queries of the probability that no key gets: 0 without a learned sink; null with sigmoid",
            ),
            ("gate", REAL, "mean over queries of |gate * y| / |y|; 1 without a gate"),
            ("mean", REAL, "mean of S_i over all queries of all windows; 1 if nothing scales; null with sigmoid"),
            ("std", REAL, "its standard deviation over all queries of all windows"),
            ("p10", REAL, "a tenth of all queries have a smaller S_i (to 0.01)"),
            ("p90", REAL, "a tenth of all queries have a larger S_i (to 0.01)"),
            (
                "context_share",
                REAL,
                "share of the variance of S_i between windows at the same position: 0 if it is a function of the "
                "position, 1 if only of the context; null for one window or no variance",
            ),
            ("value_ratio", REAL, "|v_sink| / mean|v| of the key with most attention, averaged over windows"),
        ),
    ),
    Table(
        "zero_update",
        "One row per layer: how much attention adds to h at tokens that are sinks and at others.",
        (
            LAYER,
            (
                "num_sinks",
                REAL,
                "positions that are a sink of some head (gu2025), averaged over windows",
            ),
            ("sinks", REAL, "mean length of what attention adds to h at these (behind its norm, where there is one)"),
            ("others", REAL, "the same at other positions"),
            ("ratio", REAL, "sinks / others"),
        ),
    ),
    Table(
        "spread",
        "One row per head and dimension of its queries and keys: the four that most align queries with the sink key.",
        (
            LAYER,
            HEAD,
            KV_HEAD,
            RANK,
            ("dimension", INT, "0-based index into d_head"),
            ("sink_product", REAL, "mean over queries that see it of q_d * k_d * scale for the sink key (logit units)"),
            ("mean_product", REAL, "the same averaged over all pairs of a query and a key that it sees"),
            ("share", REAL, "(sink_product - mean_product) as a share of the sum of all dimensions"),
        ),
    ),
    Table(
        "bands",
        "One row per layer and dimension of queries and keys as attention uses them (behind norms and rotary).",
        (
            LAYER,
            ("dimension", INT, "0-based index into d_head"),
            FEATURE,
            ("half", INT, "0 or 1: first or second dimension of its rotary pair; null where nothing is turned"),
            ("q_max", REAL, "largest |q| of the dimension over tokens and heads"),
            ("k_max", REAL, "largest |k| of the dimension over tokens and heads"),
        ),
    ),
    Table(
        "rotary",
        "One row per query head and rotary feature: two dimensions that turn by the same angle (jonasson2025).",
        (
            LAYER,
            HEAD,
            KV_HEAD,
            ("feature", INT, "0-based rotary feature i of d_head / 2, or of fewer where rotary is partial"),
            ("dimension", INT, "first dimension of the pair"),
            ("other_dimension", INT, "second dimension of the pair"),
            ("theta", REAL, "angle per position, in radians, from the model's own rotary embedding"),
            ("context", INT, "P: context length in training; the window in layers that slide"),
            ("cycles", REAL, "theta * P / (2 pi)"),
            ("q_radius", REAL, "mean over tokens of |(q_a, q_b)|, behind norms on queries"),
            ("k_radius", REAL, "the same of the keys"),
            ("q_relative", REAL, "q_radius / mean of q_radius over the head's features"),
            ("k_relative", REAL, "k_radius / mean of k_radius over the head's features"),
            ("q_concentration", REAL, "|mean vector before rotary| / q_radius: 1 if all point one way"),
            ("k_concentration", REAL, "the same of the keys"),
            (
                "angle",
                REAL,
                "phi in (-pi, pi]: angle of the mean query minus angle of the mean key, so that the logit at distance "
                "p goes as cos(phi + theta p)",
            ),
            ("sink_k_radius", REAL, "radius of the sink key, averaged over windows; null in heads without a sink"),
            (
                "sink_contribution",
                REAL,
                "what the pair adds to the sink's logit, mean over queries that see it, in logit units; null in heads "
                "without a sink",
            ),
            ("mean_contribution", REAL, "the same averaged over all pairs of a query and a key that it sees"),
            ("offset", FLAG, "offset feature: q_relative, k_relative >= 3 and both concentrations >= 0.9"),
            (
                "bound_frequency",
                FLAG,
                "theta P <= pi, half a turn: faster ones change their sign over the context (derived here)",
            ),
            (
                "bound_angle",
                FLAG,
                "phi, taken in [0, 2 pi), >= pi/2 and phi + theta P <= 3 pi/2: negative over the whole context "
                "(derived here)",
            ),
        ),
    ),
)

CHAIN: tuple[Table, ...] = (
    Table(
        "chain",
        "One row per link from massive weights to predictions, way to cut it, and metric: what happens when the link "
        "is cut, and when the same number is cut at random.",
        (
            ("step", INT, "0 for the first link"),
            ("link", TEXT, "which cause and which effect are tested, as `massive activation -> sinks`"),
            ("intervention", TEXT, "what was done to the cause, in words; null where the link was not tested"),
            ("mode", TEXT, "the mode of attack that does it: see docs/attack.md"),
            ("k", INT, "to how many rows, weights, features or positions"),
            ("targets", TEXT, "to which, as in effects"),
            (
                "metric",
                TEXT,
                "start_h, top1_h, sink_share, implicit_scaling or perplexity: see docs/explain.md",
            ),
            ("data", TEXT, "the text as `source, windows x length, BOS, first digits of its hash`"),
            ("before", REAL, "the metric of the clean model"),
            ("after", REAL, "the metric with the link cut"),
            ("control", REAL, "the metric with the same number of things cut at random, mean over draws"),
            ("control_min", REAL, "smallest over draws"),
            ("control_max", REAL, "largest over draws"),
            ("num_controls", INT, "how many draws"),
            ("note", TEXT, "what else is to be known, or why the link was not tested"),
        ),
        verb="explain",
    ),
)
