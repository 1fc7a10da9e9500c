"""The sentence on attacks tells the strongest one with its k, however little was measured."""

import math

import polars as pl
import pytest
from hypothesis import given

from monadnock.findings import table
from monadnock.findings.summary import summarise
from monadnock.findings.summary_attacks import averaged, place, placed
from tests.report.conftest import any_effects, manifest

CLEAN = {"mode": "none", "layer": None, "expert": None, "k": 0, "seed": None, "targets": "", "baseline": 13.6}
FIRST = [1229, 1487, 874, 926, 88]


def row(mode, k, value, metric="perplexity", layer=11, **more):
    rows = " ".join(map(str, FIRST[:k]))
    base = CLEAN | {"mode": mode, "k": k, "layer": layer, "targets": f"layer {layer}: {rows}"}
    return base | {"metric": metric, "data": "topics, 2 x 64, BOS, 01234567", "value": value} | more


def said(*rows):
    return dict(summarise(manifest(), {"effects": table("effects").frame(list(rows))}).items).get("Attacks")


ZERO = [row("zero", k, value) for k, value in ((1, 20.0), (3, 29.0), (2, 28.7))]
CHAIN = [
    row("zero", k, h, "top1_h", baseline=24926.2) for k, h in ((1, 9000.0), (2, 1234.0))
] + [row("zero", 2, 0.12, "sink_share", baseline=0.5)]  # fmt: skip


def test_the_smallest_k_that_does_most_of_the_damage_is_told():
    rows = [*ZERO, row("retain", 2, 14.8), row("retain", 1, 16.0), *CHAIN]
    rows += [row("random", 50, value, seed=seed) for seed, value in ((0, 13.5), (1, 13.7))]
    assert said(*rows) == (
        "zeroing the 2 largest rows of layer 11 takes perplexity from 13.6 to 28.7; keeping only them gives 14.8; "
        "zeroing 50 random rows gives 13.6; the largest |h| goes from 24,926 to 1,234; "
        "the share of heads with a sink goes from 50% to 12%."
    )
    assert said(*ZERO) == "zeroing the 2 largest rows of layer 11 takes perplexity from 13.6 to 28.7."


def test_what_is_kept_is_told_with_its_own_k():
    assert "keeping only it gives 14.8" in said(row("zero", 1, 20.0), row("retain", 1, 14.8))
    assert "keeping only the 5 largest rows gives 14.8" in said(*ZERO, row("retain", 5, 14.8), row("retain", 1, 99.0))
    assert "keeping only the largest row gives 14.8" in said(*ZERO, row("retain", 1, 14.8))


def test_a_model_that_does_not_care_is_told_with_the_largest_k():
    assert said(*(row("zero", k, 13.6 + 0.01 * k) for k in (1, 5))) == (
        "zeroing the 5 largest rows of layer 11 takes perplexity from 13.6 to 13.7."
    )


@pytest.mark.parametrize(("value", "word"), [(math.inf, "infinity"), (math.nan, "NaN")])
def test_a_broken_model_is_told_as_such(value, word):
    rows = [row("zero", 1, 20.0), row("zero", 2, value), row("zero", 3, value)]
    assert said(*rows) == f"zeroing the 2 largest rows of layer 11 takes perplexity from 13.6 to {word}."


def test_the_layer_that_matters_most_comes_first():
    found = said(row("zero", 2, 14.0, layer=2), *ZERO, row("zero", 1, 13.7, layer=None, targets="layer 1: 5"))
    assert found.startswith("zeroing the 2 largest rows of layer 11")
    assert "; in layer 2, zeroing the 2 largest rows takes perplexity from 13.6 to 14; in layer 1," in found


def test_without_zeroing_the_attack_that_changes_most_is_told():
    mask = row("mask", 4, 40.0, layer=None, targets="all layers, positions: 0 1 2 3")
    assert said(row("super", 1, 22.0), mask) == "mask with k = 4 in all layers takes perplexity from 13.6 to 40."


def test_without_perplexity_another_metric_is_told():
    tasks = [row("zero", k, value, "acc", data="boolq", baseline=0.6) for k, value in ((1, 0.55), (3, 0.4))]
    assert said(*tasks) == "zeroing the 3 largest rows of layer 11 takes acc of boolq from 60% to 40%."


def test_nothing_is_said_where_nothing_was_attacked():
    assert said() is None
    assert said(row("none", 0, 13.6)) is None
    assert said(row("zero", 1, None)) is None
    assert said(row("zero", 1, 20.0, baseline=None)).endswith("takes perplexity to 20.")


def test_places():
    assert place(2, 3, "layer 2, expert 3: 5") == "layer 2, expert 3"
    assert place(None, None, "layer 0, expert 3: 5") == "layer 0, expert 3"
    assert place(None, None, "layer 1, expert 3: 5; layer 2, expert 3: 7") == "layers 1 and 2"
    assert place(None, None, "; ".join(f"layer {i}: 5" for i in range(9))) == "9 layers from 0 to 8"
    assert place(None, None, "all layers, positions: 0") == "all layers"
    assert place(None, None, "token ids: 1 1") == place(None, None, None) == ""


def test_seeds_are_averaged_and_nothing_else():
    rows = [row("random", 5, value, seed=seed, error=0.1) for seed, value in ((0, 1.0), (1, 3.0))]
    rows += [row("zero", 5, 7.0, error=0.2), row("zero", 5, 8.0, layer=2), row("zero", 5, 9.0, expert=1)]
    frame = averaged(table("effects").frame(rows))
    assert frame.select("mode", "place", "value", "seeds", "error").rows() == [
        ("random", "layer 11", 2.0, 2, None),
        ("zero", "layer 11", 7.0, 1, 0.2),
        ("zero", "layer 2", 8.0, 1, None),
        ("zero", "layer 11, expert 1", 9.0, 1, None),
    ]


def test_attacks_that_do_not_go_on_from_each_other_are_numbered():
    targets = {1: ["1229", "5"], 2: ["1229 1487", "5 1229", "12 14"], 3: ["1229 1487 5"]}
    rows = [row("zero", k, 1.0, targets=f"layer 11: {rows}") for k, lists in targets.items() for rows in lists]
    frame = placed(table("effects").frame(rows)).with_columns(pl.col("targets").str.strip_prefix("layer 11: "))
    assert frame.select("targets", "mode").rows() == [
        ("1229", "zero"), ("5", "zero (2)"), ("1229 1487", "zero"), ("5 1229", "zero (2)"), ("12 14", "zero (3)"),
        ("1229 1487 5", "zero"),
    ]  # fmt: skip


@given(any_effects())
def test_any_rows_give_a_sentence_or_none(rows):
    found = said(*rows)
    assert found is None or (found.endswith(".") and "None" not in found and "  " not in found)
