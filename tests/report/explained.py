"""Plausible rows of the tables that explain outliers; here and there a value is missing, NaN or infinite."""

import math

from hypothesis import strategies as st

from monadnock.findings.columns import FLAG, INT, REAL, TEXT
from monadnock.findings.schema import table

LAYERS, HEADS, DIMS = 6, 4, 8
PAIRS = DIMS // 2
STATES = (
    "before", "attn_input", "attn_output", "middle", "mlp_input", "down_proj_input", "mlp_output", "residual",
)  # fmt: skip
KINDS = ("weight outliers in W_down", "activation outliers in x_down", "activation outliers in h")


def explained(rng):
    """Return rows by table name, as functions; feature 3 is made in layer 2 and taken away in layer 5."""
    big = {"residual", "middle", "before", "down_proj_input", "mlp_output"}
    size = lambda state, layer: rng.lognormvariate(1, 0.3) * (800 if state in big and layer in (2, 3, 4) else 4)  # noqa: E731
    heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    place = {"layer": 2, "expert": 1}
    return {
        "trace": lambda: [
            {"layer": i, "step": s, "state": n, "expert": 1 if n == "down_proj_input" else None, "top1": top,
             "top2": top / 2, "top3": math.nan if i == 5 else top / 3, "median": 0.1 * i, "feature": 3, "value": -top}
            for i in range(LAYERS) for s, n in enumerate(STATES)
            for top in [math.inf if (i, n) == (5, "attn_output") else size(n, i)]
        ],
        "contributions": lambda: [
            {"feature": f, "layer": i, "before": b * scale, "attention": scale / 10, "mlp": m * scale,
             "after": a * scale}
            for f, scale in ((3, -900.0), (17, 0.5), (5, math.nan))
            for i, (b, m, a) in enumerate(
                [(0, 0, 0.1), (0.1, 0, 0.2), (0.2, 1, 1.3), (1.3, 0, 1.4), (1.4, 0, 1.5), (1.5, -1.4, 0.2)]
            )
        ],
        "emergence": lambda: [
            {**place, "state": n, "feature": f, "start": -900.0 / (f + 1), "others": o,
             "ratio": None if o is None else 90.0}
            for n, o in (("gate", 2.0), ("up", 3.0), ("activation", None), ("intermediate", 0.0), ("output", math.inf))
            for f in (3, 17, 5)
        ],
        "weight_outliers": lambda: [
            {"layer": i, "expert": e, "rank": r + 1, "row": 3, "column": 7 * r, "weight": -0.5,
             "column_ratio": math.nan if (i, e, r) == (1, 0, 0) else rng.lognormvariate(3, 1), "row_ratio": 20.0,
             "outlier": False}
            for i in range(LAYERS) for e in (0, 1) for r in range(3)
        ],
        "consistency": lambda: [
            {"outlier_1": first, "outlier_2": second, "dimension": "feature" if first == KINDS[0] else "sequence",
             "criterion": criterion, "layers": layers, "consistency": share, "num_outliers": 0 if share is None else 9,
             "num_groups": 4, "published": 95.0}
            for criterion, lost in (("an2025", None), ("column_ratio+sun2024+gu2025", 40.0), ("<i>mine</i>", math.nan))
            for first, second, layers, share in (
                (KINDS[0], KINDS[1], "same", lost), (KINDS[1], KINDS[2], "same", 100.0),
                (KINDS[2], "attention outliers in A", "next", 80.0), (KINDS[2], "<b>bold</b> outliers", "same", 1.0),
            )
        ],
        "scaling": lambda: [
            {"layer": i, "head": h, "kind": kind, "sink_keys": 1.0, "learned_mass": 0.1, "gate": 0.8, "mean": mean,
             "std": 0.1, "p10": mean / 2, "p90": min(1.0, 1.4 * mean), "context_share": rng.choice([0.8, 0.6, None]),
             "value_ratio": math.nan if (i, h) == (2, 0) else rng.random() / 2}
            for i, h in heads
            for kind, mean in [
                ("none", 1.0) if i < 2 else rng.choice([("key", 0.5), ("learned", 0.7), ("key+gate", 0.4)])
            ]
        ],
        "zero_update": lambda: [
            {"layer": i, "num_sinks": 1.5 * (i > 1), "sinks": 2.0 if i > 1 else None, "others": 5.0,
             "ratio": {0: None, 1: None, 4: math.nan}.get(i, 0.4 + 0.1 * i)}
            for i in range(LAYERS)
        ],
        "spread": lambda: [
            {"layer": i, "head": h, "kv_head": h // 2, "rank": r + 1, "dimension": d, "sink_product": 2.0,
             "mean_product": -1.0, "share": math.nan if r == 3 else 0.5 / (r + 1)}
            for i, h in heads if i > 1 for r, d in enumerate(rng.sample(range(DIMS), 4))
        ],
        "bands": lambda: [
            {"layer": i, "dimension": d, "feature": d % PAIRS, "half": d // PAIRS,
             "q_max": math.inf if (i, d) == (0, 0) else rng.lognormvariate(1, 1), "k_max": rng.lognormvariate(2, 1)}
            for i in range(LAYERS) for d in range(DIMS)
        ],
        "rotary": lambda: [
            {"layer": i, "head": h, "kv_head": h // 2, "feature": f, "dimension": f, "other_dimension": f + PAIRS,
             "theta": 10.0**-f, "context": 1000, "cycles": 10.0**-f * 1000 / 2 / math.pi, "q_radius": 9.0,
             "k_radius": math.nan if (i, h) == (3, 1) else 5.0, "q_relative": 4.0 if offset else 0.9,
             "k_relative": 3.5 if offset else 1.1, "q_concentration": 0.95, "k_concentration": 0.95,
             "angle": rng.uniform(-math.pi, math.pi), "sink_k_radius": 0.5 if i > 1 else None,
             "sink_contribution": rng.random() * f if i > 1 else None, "mean_contribution": -float(f),
             "offset": offset, "bound_frequency": f == 3, "bound_angle": f == 3 and h > 0}
            for i, h in heads for f in range(PAIRS) for offset in [f == 3 or (i, h, f) == (1, 1, 2)]
        ],
    }  # fmt: skip


TEXTS = {
    "state": [*STATES, "attn_update", "mlp_update", "gate", "up", "activation", "intermediate", "output", "odd"],
    "kind": ["none", "key", "learned", "gate", "key+gate", "odd"],
    "outlier_1": [*KINDS, "odd"],
    "outlier_2": [*KINDS, "attention outliers in A", "odd"],
    "dimension": ["feature", "sequence", "odd"],
    "criterion": ["an2025", "column_ratio+sun2024+gu2025", "odd"],
    "layers": ["same", "next", "odd"],
}


def any_rows(name):
    """Return a strategy of lists of rows of a table as no scan writes them."""
    values = {
        INT: st.sampled_from([None, 0, 1, 2, 5]),
        REAL: st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 0.5, 1e308, -1e308])),
        FLAG: st.sampled_from([None, True, False]),
    }
    row = {
        column: values[dtype] if dtype != TEXT else st.sampled_from([None, "", *TEXTS[column]])
        for column, dtype, _ in table(name).columns
    }
    return st.lists(st.fixed_dictionaries(row), max_size=8)


def any_explained():
    """Return a strategy of the tables that explain outliers, each with rows as no scan writes them."""
    return st.fixed_dictionaries({name: any_rows(name) for name in explained(None)})
