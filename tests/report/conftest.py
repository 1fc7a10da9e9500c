"""Synthetic runs: plausible tables of a 6-layer, 4-head model, with token texts that try to break the page."""

import math
import random

import pytest
from hypothesis import strategies as st

from monadnock.findings import Manifest, Run, schema
from monadnock.report import write_report
from monadnock.report.parts import Findings
from tests.report import compress_rows, dictionary_rows, lens_rows, pretrain_rows, study_rows, train_rows
from tests.report.chained import chain_rows
from tests.report.explained import explained
from tests.report.html_page import Page

LAYERS, HEADS, EXPERTS, WINDOWS, LENGTH = 6, 4, 3, 4, 128
STREAMS = ("residual", "down_proj_input")
HOSTILE = (
    "</script><script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "&lt;b&gt;",
    "$$x^2$$ \\(y\\)",
    " \n\t",
    "\x00\x1b[31m\u202e",
    "@{token_text}{safe}",
    "",
    " the",
    "🪨",
)
MODEL = "</title><script>document.title = 'owned'</script><b>mountain</b>\x07"


def manifest(**text):
    return Manifest.model_validate(
        {
            "monadnock": "0.1.0",
            "model": {
                "id": MODEL,
                "source": "object",
                "family": "llama",
                "dtype": "float32",
                "device": "cpu",
                "num_layers": LAYERS,
                "num_heads": HEADS,
                "num_kv_heads": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_experts": EXPERTS,
                "vocab_size": 100,
                "num_parameters": 123456,
            },
            "text": {
                "source": "<i>topics</i>",
                "num_windows": WINDOWS,
                "length": LENGTH,
                "bos": True,
                "start_token_id": 1,
                "start_token": "<s>",
                "token_hash": "0" * 64,
                "seed": 0,
                **text,
            },
            "probes": ["activations"],
            "attention": "eager, observed",
            "thresholds": {
                "an2025.activation_ratio": 1000.0,
                "sun2024.magnitude": 100.0,
                "sun2024.median_ratio": 1000.0,
                "gu2025.sink_mass": 0.3,
                "an2025.attention_ratio": 1000.0,
                "an2025.weight_ratio": 1000.0,
                "monadnock.column_ratio": 100.0,
                "monadnock.offset_radius": 3.0,
            },
            "versions": {"torch": "2.13.0"},
            "self_check": {"relative_error": 1e-7, "tolerance": 1e-5, "num_logit_positions": LENGTH},
            "seconds": 12.3,
        }
    )


def rows(name):
    """Return plausible rows of a table; here and there a value is missing, NaN or infinite."""
    rng = random.Random(name)
    huge = lambda layer: rng.lognormvariate(1, 0.3) * (800 if 2 <= layer <= 4 else 4)  # noqa: E731
    at = [(stream, layer) for stream in STREAMS for layer in range(LAYERS)]
    grid = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    token = lambda: {  # noqa: E731
        "token": rng.choice(HOSTILE),
        "token_id": rng.randrange(100),
        "token_class": rng.choice(["start", "delimiter", "weak", "other"]),
    }
    make = {
        "layers": lambda: [
            {"stream": s, "layer": i, "top1": top, "top2": top / 2, "top3": top / 3, "median": 0.1 * i, "mean_abs": 0.2,
             "rms": 0.3, "kurtosis": math.nan, "num_outliers": int(top > 500)}
            for s, i in at for top in [huge(i) if i != 5 else math.inf]
        ],
        "activations": lambda: [
            {"stream": s, "layer": i, "rank": r + 1, "sequence": w, "position": rng.choice([0, 0, 7]), **token(),
             "feature": rng.choice([3, 17]), "value": -huge(i), "ratio_mean": 2000.0, "ratio_median": math.inf,
             "criterion": rng.choice(["an2025", "sun2024", "an2025+sun2024", None]), "overflows_float16": False}
            for s, i in at for w in range(WINDOWS) for r in range(5)
        ],
        "features": lambda: [
            {"stream": s, "layer": i, "feature": f, "max_abs": huge(i) / (f + 1), "mean_abs": 0.3}
            for s, i in at for f in rng.sample(range(20), 12)
        ],
        "start_states": lambda: [
            {"stream": s, "layer": i, "rank": r + 1, "feature": f, "value": (-1) ** f * huge(i) / (r + 1)}
            for s, i in at for r, f in enumerate([3, 17, 5, 8])
        ],
        "massive_weights": lambda: [
            {"layer": 2, "expert": 1, "rank": r + 1, "feature": 7 * r, "magnitude": 900 / (r + 1), "massive": r < 3}
            for r in range(50)
        ],
        "super_weights": lambda: [
            {"layer": 2, "expert": 1, "rank": r + 1, "row": 3, "column": 7 * r, "weight": 1.5, "contribution": 90.0 - r}
            for r in range(12)
        ],
        "lifecycles": lambda: [
            {"feature": 3, "birth": 2, "death": 5, "peak_layer": 3, "peak_value": -900.0, "massive": True},
            {"feature": 3, "birth": 5, "death": None, "peak_layer": 5, "peak_value": 400.0},
            {"feature": 17, "birth": 2, "death": None, "peak_layer": 4, "peak_value": math.nan},
        ],
        "norm_gains": lambda: [
            {"layer": None if n == "final" else i, "norm": n, "feature": f, "gain": 20.0, "ratio": 20.0 / (f + 1),
             "massive_feature": f == 3}
            for i in range(LAYERS) for n in ("attn_input", "mlp_input", "final") for f in (3, 5)
        ],
        "norms": lambda: [
            {"layer": i, "norm": n, "mean": 1.0, "median": 1.0, "min": -0.5, "max": 2.0 + i, "num_negative": 1}
            for i in range(LAYERS) for n in ("attn_input", "mlp_input")
        ],
        "attention": lambda: [
            {"layer": i, "head": h, "sequence": w, "position": r, **token(), "cumulative": 60 / (r + 1) + i,
             "normalized": 0.5, "num_queries": LENGTH - r, "outlier": False}
            for i in range(LAYERS) for h in (None, *range(HEADS)) for w in range(WINDOWS) for r in range(3)
        ],
        "heads": lambda: [
            {"layer": i, "head": h, "kind": rng.choice(["sink", "previous", "self", "local", "broad"]),
             "first_key_mass": rng.random(), "sink_mass": mass, "sink_position": rng.choice([0, 0, 0, 5]),
             "sink_token_class": rng.choice(["start", "delimiter", None]), "sink": mass > 0.3, "entropy": 2.0,
             "mean_distance": 30.0, "previous_mass": 0.1, "self_mass": 0.2, "local_mass": 0.3, "logit_gap": 7.0 + mass,
             "num_outliers": 0}
            for i, h in grid for mass in [rng.random()]
        ],
        "weights": lambda: [
            {"layer": i, "module": m, "expert": e, "axis": a, "extremal_ratio": rng.lognormvariate(2, 1),
             "index": None if a == "tensor" else 3, "sigma_over_mean": 1.26, "kurtosis": 3.4, "num_outliers": 0,
             "w8_error": math.inf if (i, m) == (0, "q") else rng.random() / 30}
            for i in range(LAYERS) for a in ("tensor", "row", "column")
            for m, e in [("q", None), ("k", None), ("v", None), ("o", None), ("down", 0), ("down", 1)]
        ],
        "router": lambda: [
            {"layer": i, "expert": e, "input": n, "probability": rng.random()}
            for i in range(LAYERS) for e in range(EXPERTS) for n in ("start", "text")
        ],
        "parameters": lambda: [
            {"component": c, "layer": i, "count": 1000 + (i or 0)}
            for c, i in [("embedding", None), *(("q", i) for i in range(LAYERS)), ("norm", None)]
        ],
        "nonfinite": lambda: [
            {"where": "weight", "layer": 1, "name": "<b>q.weight</b>", "count": 2},
            {"where": "residual", "layer": None, "name": "text", "count": 1},
        ],
        "effects": lambda: [
            {**attack, "metric": metric, "data": data, "baseline": clean, "error": 0.03 if metric == "acc" else None,
             "value": clean if attack["mode"] == "none" else broken(attack, clean * (1 + attack["k"] * rng.random()))}
            for attack in attacks()
            for metric, data, clean in (METRICS if attack["layer"] in (None, 1) else METRICS[:2])
            if attack["mode"] != "mask" or metric == "perplexity"
        ] + compress_rows.effects(),
        "inputs": study_rows.inputs,
        "maps": study_rows.maps,
        "generations": lambda: [
            {**attack, "prompt": prompt, "text": HOSTILE[(i + j) % len(HOSTILE)], "same_tokens": i, "num_tokens": 8}
            for i, attack in enumerate(attacks())
            for j, prompt in enumerate(("<b>Once</b>", "a very long prompt\n" * 30))
        ],
    }  # fmt: skip
    make |= (
        explained(rng)
        | dictionary_rows.ROWS
        | lens_rows.ROWS
        | compress_rows.ROWS
        | train_rows.ROWS
        | pretrain_rows.ROWS
    )
    make["chain"] = lambda: [each | {"data": DATA, "note": "<i>a note</i>"} for each in chain_rows()]
    return make[name]() if name in make else []


DATA = "<i>topics</i>, 2 x 64, BOS, 0123abcd"
METRICS = (
    ("perplexity", DATA, 13.6), ("kl", DATA, 0.0), ("top1_agreement", DATA, 1.0), ("top1_h", DATA, 24926.0),
    ("sink_share", DATA, 0.5), ("implicit_scaling", DATA, 0.6), ("acc", "boolq, first 9", 0.6),
    ("acc", "<u>piqa</u>, first 9", 0.7), ("f1,<b>strict</b>", "squad", 0.2),
)  # fmt: skip


def attacks():
    """Return the clean model and attacks on two layers, as the columns that tables of attacks share."""
    clean = {"mode": "none", "layer": None, "expert": None, "k": 0, "seed": None, "targets": ""}
    found = [clean] + [
        clean | {"mode": mode, "layer": layer, "k": k, "seed": seed, "targets": f"layer {layer}: {numbers(k, seed)}"}
        for layer in (1, 2)
        for mode, seeds in (("zero", [None]), ("retain", [None]), ("random", [0, 1]), ("<b>new</b>", [None]))
        for seed in seeds
        for k in (1, 2, 4)
    ]
    return [*found, clean | {"mode": "mask", "k": 1, "targets": "all layers, positions: 0"}]


def numbers(k, seed=None):
    return " ".join(str(10 * (seed or 0) + i) for i in range(k))


def broken(attack, value):
    """Return the value, but infinity or NaN for two of the attacks."""
    return {("zero", 4): math.inf, ("retain", 1): math.nan}.get((attack["mode"], attack["k"]), value)


def any_effects():
    """Return a strategy of lists of rows as no attack writes them."""
    number = st.one_of(st.none(), st.floats())
    effect = st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["none", "zero", "retain", "random", "mask", "new", None]),
            "layer": st.sampled_from([None, 0, 3]),
            "expert": st.sampled_from([None, 1]),
            "k": st.sampled_from([None, 0, 1, 5]),
            "seed": st.sampled_from([None, 0, 1]),
            "targets": st.sampled_from([None, "", "layer 3: 5", "layer 0: 5; layer 3: 1", "all layers: 1"]),
            "metric": st.sampled_from(["perplexity", "acc", "top1_h", "sink_share", "odd one", "", None]),
            "data": st.sampled_from(["topics, 2 x 64", "boolq", None]),
            "value": number,
            "baseline": number,
            "error": number,
        }
    )
    return st.lists(effect, max_size=12)


def write_run(path, names=tuple(schema.TABLES), empty=(), **text):
    """Write a run that holds the named tables; those in `empty` have no rows."""
    frames = {name: schema.table(name).frame(None if name in empty else rows(name)) for name in names}
    return Run.write(path, manifest(**text), frames, force=True)


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """Return a run with every table and its report beside it; tests only read it."""
    run = write_run(tmp_path_factory.mktemp("full") / "run")
    assert write_report(run) == run.path / "report.html"
    return run


@pytest.fixture(scope="session")
def full_page(full_run):
    return Page.read(full_run.path / "report.html")


@pytest.fixture
def make_run(tmp_path):
    return lambda *args, **kwargs: write_run(tmp_path / "run", *args, **kwargs)


@pytest.fixture
def findings():
    """Return the synthetic run as the charts see it."""
    return Findings(manifest(), {name: schema.table(name).frame(rows(name)) for name in schema.TABLES})
