"""The sentences that explain: planted numbers give the right words, and whatever the tables hold gives none or some."""

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import table
from monadnock.findings.summary import summarise
from monadnock.findings.summary_explain import finite, massive_features, massive_layer, scaled, selecting, ways
from tests.findings.test_summary import sentence
from tests.report.conftest import manifest
from tests.report.explained import any_explained, any_rows


def frame(name, rows):
    return table(name).frame(rows)


def steps(feature, *changes, start=0.0):
    """Return contributions from what attention and FFN add, layer by layer."""
    rows, value = [], start
    for layer, (attention, mlp) in enumerate(changes):
        rows.append(
            {"feature": feature, "layer": layer, "before": value, "attention": attention, "mlp": mlp,
             "after": value + attention + mlp}
        )  # fmt: skip
        value += attention + mlp
    return rows


def inner(*sizes):
    """Return the states x_down and h of every layer, as large as given."""
    return [
        {"layer": layer, "state": state, "top1": size, "feature": 70 + layer}
        for layer, pair in enumerate(sizes)
        for state, size in zip(("down_proj_input", "residual"), pair, strict=True)
    ]


LIFE = steps(507, (2.0, 3.0), (10.0, 24990.0), (-5.0, 1.0), (-20.0, -15000.0), (-3000.0, -2500.0))


def test_the_block_that_makes_it_and_those_that_take_it_away_are_named():
    small = steps(9, (1.0, 0.0), (0.0, 2.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    said = sentence("Emergence", trace=inner((1.0, 5.0), (3064.8, 25005.0), (0.1, 25001.0)), contributions=small + LIFE)
    assert said == (
        "the FFN of layer 1 adds most to feature 507 of the start token: 24,990, from an x_down of 3,065 (row 71); the "
        "FFN of layer 3 (-15,000) and attention of layer 4 (-3,000) take it away; 4,481 is left behind the last layer."
    )
    upside_down = [
        row | {name: -row[name] for name in ("before", "attention", "mlp", "after")} for row in LIFE
    ]  # fmt: skip
    said = sentence("Emergence", trace=[], contributions=upside_down)
    assert said.startswith(
        "the FFN of layer 1 adds most to feature 507 of the start token: -24,990; the FFN of layer 3 (15,000)"
    )


def test_what_attention_makes_and_nobody_takes_away_is_said_so():
    said = sentence("Emergence", trace=inner((9.0, 9.0)), contributions=steps(3, (400.0, 1.0), (2.0, -10.0)))
    assert said == (
        "attention of layer 0 adds most to feature 3 of the start token: 400; no later block takes it away; 393 is "
        "left behind the last layer."
    )
    uphill = sentence("Emergence", trace=[], contributions=steps(3, (-90.0, 400.0), (-2.0, 1.0)))
    assert "no later block takes it away; 309 is left" in uphill  # what attention takes before the FFN makes it
    assert sentence("Emergence", trace=[], contributions=[]) is None


def test_a_feature_that_a_norm_makes_bit_by_bit_is_told_so():
    states = [
        {"layer": 0, "state": name, "top1": size, "feature": 3}
        for name, size in (("down_proj_input", 0.3), ("mlp_output", 1.5), ("mlp_update", 900.0))
    ]
    assert sentence("Emergence", trace=states, contributions=steps(3, (1.0, 899.0), (2.0, 800.0))) == (
        "the FFN of layer 0 adds most to feature 3 of the start token: 899, once the norm behind it has raised its "
        "largest |value| from 1.5; it grows to 1,702 behind layer 1; no later block takes it away; 1,702 is left "
        "behind the last layer."
    )


def test_ways_of_features_come_largest_first_and_stay_signed():
    found = ways(frame("contributions", steps(5, (1.0, 1.0), (-30.0, -2.0), (28.0, 1.0)) + LIFE))
    assert found["feature"].to_list() == [507, 5]
    assert found.row(1, named=True) == {
        "feature": 5, "peak": -30.0, "peak_layer": 1, "made_layer": 1, "made_by": "attention", "made": -30.0,
        "gone_layer": 2, "gone_by": "attention", "gone": 28.0, "left": -1.0,
    }  # fmt: skip
    crossing = ways(frame("contributions", steps(5, (0.5, 9.5), (1.0, -13.0))))
    assert crossing.select("gone_layer", "gone_by", "gone").row(0) == (1, "mlp", -13.0)
    still = ways(frame("contributions", steps(5, (1.0, 2.0))))
    assert still.select("gone_layer", "gone_by", "gone").row(0) == (None, None, None)


@given(st.lists(st.tuples(st.integers(-999, 999), st.integers(-999, 999)), min_size=1))
def test_the_layer_that_makes_a_feature_raises_it_most(changes):
    rows = steps(1, *((float(a), float(m)) for a, m in changes))
    (way,) = ways(frame("contributions", rows)).to_dicts()
    growth = [abs(row["after"]) - abs(row["before"]) for row in rows]
    assert growth[way["made_layer"]] == max(growth)
    assert abs(way["peak"]) == max(abs(row["after"]) for row in rows)
    made = rows[way["made_layer"]]
    assert made[way["made_by"]] == way["made"]
    if way["gone_layer"] is None:
        assert min(growth) >= 0
    else:
        assert growth[way["gone_layer"]] == min(growth)
        assert rows[way["gone_layer"]][way["gone_by"]] == way["gone"]


def test_the_massive_layer_is_the_largest_x_down_up_to_the_peak_of_h():
    assert massive_layer(frame("trace", inner((1.0, 5.0), (40.0, 9.0), (80.0, 900.0), (999.0, 8.0)))) == 2
    assert massive_layer(frame("trace", inner((math.nan, 5.0), (4.0, math.inf), (3.0, 2.0)))) == 1  # nothing up to it
    assert massive_layer(frame("trace", [])) is None
    lives = [{"feature": f, "massive": m} for f, m in ((9, True), (3, True), (9, False), (4, None), (None, True))]
    assert massive_features(frame("lifecycles", lives)).to_list() == [3, 9]


def head(number, kind="key", **more):
    row = {"layer": 0, "head": number, "kind": kind, "mean": 0.5, "p10": 0.2, "p90": 0.9, "context_share": 0.97}
    return row | more


def test_scaling_tells_what_scales_and_whether_it_follows_the_context():
    rows = [head(0), head(1), head(2, p10=0.5, p90=0.55), head(3, "none", mean=1.0, p10=1.0, p90=1.0)]
    assert sentence("Implicit scaling", scaling=rows) == (
        "3 of 4 heads scale what they read of other tokens by a sink; the scale S is 0.50 on average in the median "
        "head (a tenth of the queries below 0.20, a tenth above 0.90), and it is no constant and follows the context: "
        "in 2 of 3 such heads S varies by more than 0.1 between queries, and 97% of the variance (median) is between "
        "windows at the same position."
    )
    mixed = sentence("Implicit scaling", scaling=[head(0, "learned"), head(1, "key+gate"), head(2, "learned")])
    assert "3 of 3 heads scale what they read of other tokens, 2 by a sink logit and 1 by a sink and a gate;" in mixed
    assert sentence("Implicit scaling", scaling=[head(0, "none")]).startswith(
        "no head has a sink, a sink logit or a gate"
    )
    assert sentence("Implicit scaling", scaling=[]) is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"context_share": 0.1}, "it is no constant and goes by the position"),
        ({"context_share": 0.5}, "it is no constant and depends on both position and context"),
        ({"context_share": None}, "one window cannot tell whether it follows the context"),
        ({"context_share": math.nan}, "one window cannot tell whether it follows the context"),
        ({"p10": 0.5, "p90": 0.59}, "it is close to a constant: only in 0 of 1 such heads"),
        ({"p10": None}, "it is close to a constant"),
    ],
)
def test_other_scales_get_other_words(more, words):
    heads, verdict = scaled(frame("scaling", [head(0, **more), head(1, "none")]))
    assert heads["head"].to_list() == [0]
    assert words in verdict


def feature(number, i, **more):
    row = {"layer": 2, "head": number, "feature": i, "k_radius": 4.0, "mean_contribution": -3.0, "offset": False}
    return row | {"bound_frequency": False, "bound_angle": False} | more


def test_offsets_are_counted_and_held_against_all_and_slow_features():
    slow = {"bound_frequency": True}
    rows = [feature(0, 0), feature(0, 1), feature(0, 2, **slow), feature(1, 2, **slow, bound_angle=True)]
    rows += [feature(0, 5, **slow, offset=True, bound_angle=True), feature(1, 5, **slow, offset=True)]
    rows += [feature(1, 6, **slow, offset=True, bound_angle=True), feature(1, 0, offset=True)]
    said = sentence("Rotary offsets", rotary=rows)
    assert said == (
        "4 of 8 rotary features of heads are offset features, most often feature 5, 0 and 6; 75% of them satisfy "
        "theta P <= pi (62% of all features do), and 50% are negative over the whole context (60% of all with "
        "theta P <= pi)."
    )
    sinks = [feature(0, 3, sink_contribution=1.0), feature(0, 4, sink_contribution=0.5), feature(1, 3)]
    said = sentence("Rotary offsets", rotary=sinks)
    assert said == (
        "none of 3 rotary features of heads is an offset feature; in 1 head with a sink, the sink stands out most "
        "often by feature 3 (1)."
    )
    assert sentence("Rotary offsets", rotary=[]) is None
    unknown = [row | {"bound_frequency": None, "bound_angle": None} for row in rows]
    assert "theta" not in sentence("Rotary offsets", rotary=unknown)


def test_the_selecting_feature_lifts_the_sink_most_against_the_mean_key():
    rows = [
        feature(0, 1, sink_contribution=9.0, mean_contribution=8.5),
        feature(0, 2, sink_contribution=0.1, mean_contribution=-7.0, sink_k_radius=0.2),
        feature(1, 1, sink_contribution=math.nan),
        feature(1, 3, sink_contribution=1.0, sink_k_radius=1.0, k_radius=0.0),
    ]
    chosen = selecting(frame("rotary", rows))
    assert chosen.select("head", "feature", "gain", "kept").rows() == [(0, 2, 7.1, 0.05), (1, 3, 4.0, None)]


W, X, H, A = (
    "weight outliers in W_down", "activation outliers in x_down", "activation outliers in h", "attention outliers in A",
)  # fmt: skip


def share(first, second, value, criterion="an2025", layers="same"):
    found = 0 if value is None else 5
    return {"outlier_1": first, "outlier_2": second, "criterion": criterion, "layers": layers, "consistency": value,
            "num_outliers": found, "published": 95.0}  # fmt: skip


def test_consistency_is_told_by_the_criterion_that_finds_most():
    rows = [share(W, X, None), share(X, H, 33.3), share(W, X, 100.0, "mine"), share(H, A, 80.4, "mine", "next")]
    assert sentence("Consistency", consistency=rows) == (
        "share of outliers of one kind that are outliers of another, by mine (in brackets Llama-2-7B in an2025): "
        "W_down in x_down 100% (95%) and h in A of the next layer 80% (95%); an2025's own rule finds no weight outlier."
    )
    assert "an2025's own" not in sentence("Consistency", consistency=[share(W, X, 40.0), share(W, X, 1.0, "mine")])
    assert sentence("Consistency", consistency=[share(W, X, None)]).startswith("no outlier of one kind")
    assert sentence("Consistency", consistency=[]) is None


def test_finite_rows_have_all_numbers():
    rows = pl.DataFrame({"a": [1.0, math.nan, None, math.inf, 2.0], "b": [1, 2, 3, 4, None]})
    assert finite(rows, "a", "b").rows() == [(1.0, 1)]


@settings(max_examples=150, deadline=None)
@given(any_explained(), any_rows("lifecycles"))
def test_whatever_the_tables_hold_there_are_sentences(tables, lives):
    frames = {name: table(name).frame(rows) for name, rows in tables.items()}
    for _, text in summarise(manifest(), frames).items:
        assert text.endswith(".")
        assert "None" not in text
        assert "nan" not in text
    massive_features(table("lifecycles").frame(lives))
