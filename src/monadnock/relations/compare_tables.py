"""Which tables of two runs can be joined, on which keys, and which of their columns are compared, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Value:
    """A column that is compared.

    Attributes:
        column: its name in the table.
        change: how the largest changes are found: numbers by ratio or difference, flags (gained or lost), names.
        told: what a row is called where its changes are listed; without it they are in the joined table only.
        size: for a flag, the column that says how large what was gained or lost is.
        per: for a flag, the keys that name what has it, if these are fewer than name a row; one row is enough.
        only: rows whose changes are listed, as key and value.
        topic: the heading of its sentence; without it there is none.
        named: how many changes its sentence names.
    """

    column: str
    change: str = "ratio"
    told: str = ""
    size: str = ""
    per: tuple[str, ...] = ()
    only: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    topic: str = ""
    named: int = 1


@dataclass(frozen=True)
class Compared:
    """A table that is joined row by row.

    Attributes:
        table: its name.
        keys: columns that name a row, in this run and in another.
        values: columns that are compared.
        shape: facts of the model that have to agree, or else one row means two things.
        words: what keys are called where a row is named; other keys are called as their column.
    """

    table: str
    keys: tuple[str, ...]
    values: tuple[Value, ...]
    shape: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


LAYERS = ("num_layers",)
HEADS = (*LAYERS, "num_heads")
WIDTH = (*LAYERS, "hidden_size")
INNER = (*LAYERS, "intermediate_size", "num_experts")
EVERY = (*WIDTH, "intermediate_size", "num_experts")


def _values(change: str, *columns: str) -> tuple[Value, ...]:
    return tuple(Value(column, change) for column in columns)


COMPARED: tuple[Compared, ...] = (
    Compared(
        "massive_weights",
        ("layer", "expert", "feature"),
        (
            Value("massive", "flag", "massive row", size="magnitude", topic="Massive rows"),
            Value("magnitude", "difference", "|x_down| of a row"),
            *_values("difference", "rank"),
        ),
        INNER,
        {"feature": "row"},
    ),
    Compared(
        "super_weights",
        ("layer", "expert", "row", "column"),
        _values("ratio", "weight", "contribution"),
        EVERY,
    ),
    Compared(
        "lifecycles",
        ("feature", "birth"),
        (
            Value("massive", "flag", "massive feature", size="peak_value", per=("feature",), topic="Massive features"),
            Value("peak_value", "ratio"),
            *_values("difference", "peak_layer", "rise_layer", "fall_layer", "death"),
        ),
        WIDTH,
        {"birth": "born in layer"},
    ),
    Compared(
        "layers",
        ("stream", "layer"),
        (
            Value("top1", "ratio", "largest |value|", topic="Largest activations"),
            *_values("ratio", "median", "mean_abs", "rms", "kurtosis"),
            *_values("difference", "num_outliers"),
        ),
        LAYERS,
    ),
    Compared(
        "features",
        ("stream", "layer", "feature"),
        _values("ratio", "max_abs", "mean_abs"),
        EVERY,
    ),
    Compared(
        "start_states",
        ("stream", "layer", "expert", "feature"),
        _values("ratio", "value"),
        EVERY,
    ),
    Compared(
        "heads",
        ("layer", "head"),
        (
            Value("sink", "flag", "sink", size="sink_mass", topic="Sinks"),
            Value("sink_mass", "difference", "sink mass"),
            Value("kind", "name", "kind of head", topic="Kinds of heads"),
            *_values("difference", "first_key_mass", "previous_mass", "self_mass", "local_mass", "entropy"),
            *_values("difference", "logit_gap", "mean_distance", "num_outliers"),
            *_values("name", "sink_token_class"),
        ),
        HEADS,
    ),
    Compared(
        "scaling",
        ("layer", "head"),
        (
            Value("mean", "difference", "implicit scaling", topic="Implicit scaling"),
            *_values("difference", "std", "p10", "p90", "context_share", "sink_keys", "learned_mass", "gate"),
            *_values("ratio", "value_ratio"),
            *_values("name", "kind"),
        ),
        HEADS,
    ),
    Compared(
        "zero_update",
        ("layer",),
        (Value("ratio", "ratio", "update at sinks / others"), *_values("ratio", "sinks", "others")),
        LAYERS,
    ),
    Compared(
        "contributions",
        ("feature", "layer"),
        (
            Value("mlp", "difference", "what the FFN adds"),
            Value("attention", "difference", "what attention adds"),
            *_values("difference", "before", "after"),
        ),
        WIDTH,
    ),
    Compared(
        "emergence",
        ("layer", "expert", "state", "feature"),
        _values("ratio", "start", "others", "ratio"),
        EVERY,
    ),
    Compared("spread", ("layer", "head", "dimension"), _values("difference", "share", "sink_product"), HEADS),
    Compared("bands", ("layer", "dimension"), _values("ratio", "q_max", "k_max"), HEADS),
    Compared(
        "rotary",
        ("layer", "head", "feature"),
        (
            Value("offset", "flag", "offset feature", size="k_relative", topic="Rotary offset features"),
            *_values("flag", "bound_frequency", "bound_angle"),
            *_values("ratio", "q_relative", "k_relative"),
            *_values("difference", "q_concentration", "k_concentration", "sink_contribution", "mean_contribution"),
        ),
        HEADS,
    ),
    Compared(
        "weights",
        ("layer", "module", "expert", "axis"),
        (
            Value("extremal_ratio", "ratio", "extremal ratio", only={"axis": "column"}, topic="Extremal ratios"),
            Value("w8_error", "difference", "8-bit error", only={"axis": "tensor"}, topic="8-bit error"),
            *_values("ratio", "kurtosis", "sigma_over_mean"),
            *_values("difference", "num_outliers"),
        ),
        (*LAYERS, "num_experts"),
    ),
    Compared(
        "weight_outliers",
        ("layer", "expert", "row", "column"),
        _values("ratio", "weight", "column_ratio", "row_ratio"),
        EVERY,
    ),
    Compared(
        "norm_gains",
        ("layer", "norm", "feature"),
        (
            Value("gain", "ratio", "norm gain", topic="Norm gains"),
            *_values("ratio", "ratio"),
            *_values("flag", "massive_feature"),
        ),
        WIDTH,
    ),
    Compared(
        "norms",
        ("layer", "norm"),
        (*_values("ratio", "max", "median", "mean"), *_values("difference", "min", "num_negative")),
        LAYERS,
    ),
    Compared(
        "router",
        ("layer", "expert", "input"),
        (Value("probability", "difference", "router's probability", topic="Router"),),
        (*LAYERS, "num_experts"),
    ),
    Compared("parameters", ("component", "layer"), _values("difference", "count"), LAYERS),
    Compared("nonfinite", ("where", "layer", "name"), _values("difference", "count"), LAYERS),
    Compared("trace", ("layer", "state", "expert"), _values("ratio", "top1", "median"), LAYERS),
    Compared(
        "consistency",
        ("outlier_1", "outlier_2", "dimension", "criterion", "layers"),
        _values("difference", "consistency", "num_outliers"),
    ),
    Compared(
        "effects",
        ("mode", "where", "k", "metric", "data"),
        (
            Value("value", "ratio", "perplexity", only={"metric": "perplexity"}, topic="Perplexity", named=3),
            *_values("ratio", "baseline"),
        ),
    ),
    Compared(
        "sensitivity",
        ("layer", "module", "expert", "kind", "bits", "group", "damping", "data"),
        (*_values("ratio", "relative"), *_values("difference", "top_1e3")),
        (*LAYERS, "num_experts"),
    ),
    Compared(
        "compressions",
        ("method", "layer", "module", "expert"),
        (*_values("difference", "average_bits"), *_values("ratio", "weight_error", "output_error")),
        (*LAYERS, "num_experts"),
    ),
    Compared("finetunings", ("name", "data"), _values("difference", "before", "after")),
    Compared("pretrainings", ("name", "data"), _values("difference", "loss", "perplexity", "absmax", "pruned")),
    Compared("training_outliers", ("name", "step", "layer"), _values("ratio", "top_1", "median", "start", "x_down")),
    Compared("robustness", ("name", "data", "zeroed", "order", "metric", "text"), _values("ratio", "value", "base")),
    Compared("answers", ("name", "questions", "question", "turn", "judge"), _values("difference", "score")),
    Compared("chain", ("link", "metric", "data"), _values("ratio", "before", "after", "control")),
)

TOLD: dict[str, tuple[Compared, Value]] = {
    value.told: (spec, value) for spec in COMPARED for value in spec.values if value.told
}
BY_NAME: dict[str, Compared] = {compared.table: compared for compared in COMPARED}
