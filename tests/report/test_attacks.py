"""Charts, tables and texts of attacks, against rows worked out by hand."""

import json
import math

import numpy as np
import pytest
from bokeh.embed import json_item
from bokeh.models import Line, LogScale, Scatter, Span, Text
from hypothesis import given, settings

from monadnock.findings import schema
from monadnock.report import attacks, charts_attacks, charts_texts
from monadnock.report.parts import Findings
from tests.report.conftest import any_effects, manifest

TEXT = "topics, 2 x 1024, BOS, 1f3c9a2b"
CLEAN = {"mode": "none", "layer": None, "expert": None, "k": 0, "seed": None, "targets": ""}


def attack(mode, k, layer=11, **more):
    rows = " ".join(map(str, [1229, 1487, *range(k)][:k]))
    return CLEAN | {"mode": mode, "layer": layer, "k": k, "targets": f"layer {layer}: {rows}"} | more


def effect(base, value, metric="perplexity", data=TEXT, baseline=13.6, **more):
    return base | {"metric": metric, "data": data, "value": value, "baseline": baseline} | more


def effects(rows, model="m", **tables):
    made = manifest()
    made = made.model_copy(update={"model": made.model.model_copy(update={"id": model})})
    frames = {name: schema.table(name).frame(found) for name, found in {"effects": rows, **tables}.items()}
    return Findings(made, frames)


def charts(rows):
    return {block.title: block for block in charts_attacks.effects(effects(rows)) if block.kind == "chart"}


def listings(rows):
    return [block.body for block in charts_attacks.effects(effects(rows)) if block.kind == "listing"]


def shown(listing):
    return [tuple(f"{cell.text} {cell.change}".strip() for cell in row) for row in listing.rows]


def drawn(plot, glyph):
    return [r.data_source.data for r in plot.renderers if isinstance(r.glyph, glyph)]


SMALL = [
    effect(CLEAN, 13.6),
    *(effect(attack("zero", k), value) for k, value in ((1, 20.0), (50, 33.0), (3, 28.7))),
    effect(attack("retain", 3), 14.8),
    *(effect(attack("random", 50, seed=seed), value) for seed, value in ((0, 13.5), (1, 13.8))),
]


def test_curves_have_a_line_for_each_mode_and_the_clean_model_as_a_level():
    (block,) = charts(SMALL).values()
    assert block.title == "Perplexity, layer 11"
    plot = block.body
    assert isinstance(plot.y_scale, LogScale)
    assert plot.x_range.factors == ["1", "3", "50"]
    zero, retain, random = drawn(plot, Line)
    assert zero["k_text"] == ["1", "3", "50"]
    np.testing.assert_array_equal(zero["value"], [20, 28.7, 33])
    assert (retain["k_text"], random["k_text"], random["value"]) == (["3"], ["50"], pytest.approx([13.65]))
    (level,) = [each for each in plot.center if isinstance(each, Span)]
    assert level.location == 13.6
    seeds = [data for data in drawn(plot, Scatter) if "seed" in data and len(data["seed"])]
    assert [sorted(data["value"]) for data in seeds] == [[13.5, 13.8]]
    assert [key.label for key in block.keys] == ["zero", "retain", "random", "single seeds", "clean model: 13.6"]
    looks = {(key.colour, key.mark, key.shape) for key in block.keys}
    assert len(looks) == len(block.keys)
    assert "zero: 20 at k = 1, 33 at k = 50." in block.alt


def test_every_mode_looks_different_also_in_grey_and_those_that_nobody_knows():
    names = [*attacks.MODES, "mine", "yours (2)", "zero (2)"]
    looks = [attacks.mode(name, names) for name in names]
    assert len({(look.colour, look.dash, look.shape) for look in looks}) == len(names)
    assert len({(look.dash, look.shape) for look in looks[: len(attacks.MODES)]}) == len(attacks.MODES)
    assert "oh2024" in attacks.mode("zero (2)", names).does


@pytest.mark.parametrize(("value", "mark"), [(math.inf, "∞"), (math.nan, "NaN")])
def test_a_value_that_is_not_finite_is_named_and_marked_and_keeps_its_row(value, mark):
    rows = [effect(CLEAN, 13.6), effect(attack("zero", 1), 20.0), effect(attack("zero", 3), value)]
    (block,) = charts(rows).values()
    assert f"Not finite: zero, k = 3 ({mark})." in block.says
    (text,) = drawn(block.body, Text)
    assert (text["k_text"], text["value_text"]) == (["3"], [mark])
    assert text["top"] == [block.body.y_range.end]
    assert np.isnan(drawn(block.body, Line)[0]["value"][1])
    assert shown(listings(rows)[0])[-1] == ("zero, k = 3", mark)


def test_nothing_finite_at_all_still_gives_a_chart():
    (block,) = charts([effect(attack("zero", 3), math.inf, baseline=math.nan)]).values()
    assert block.body.y_range.start < block.body.y_range.end < math.inf


def test_different_places_are_never_joined():
    rows = [effect(attack("zero", k, layer), 10.0 * layer + k) for layer in (2, 11) for k in (1, 3)]
    rows += [effect(attack("zero", 1, None, targets="layer 2: 5; layer 11: 1229"), 99.0)]
    rows += [effect(attack("zero", 3, 2, expert=1), 77.0)]
    found = charts(rows)
    assert list(found) == [
        f"Perplexity, {place}" for place in ("layer 2", "layer 11", "layers 2 and 11", "layer 2, expert 1")
    ]
    for place, values in (("layer 2", [21, 23]), ("layer 11", [111, 113]), ("layers 2 and 11", [99])):
        np.testing.assert_array_equal(drawn(found[f"Perplexity, {place}"].body, Line)[0]["value"], values)
    assert len({block.body.y_range.end for block in found.values()}) == 1
    (listing,) = listings(rows)
    assert listing.heads == ("attack", "where", "perplexity")
    assert [row[:2] for row in shown(listing)[1:4]] == [
        ("zero, k = 1", "layer 2"),
        ("zero, k = 3", "layer 2"),
        ("zero, k = 1", "layer 11"),
    ]


def test_attacks_without_a_layer_join_the_only_one():
    mask = attack("mask", 1, None, targets="all layers, positions: 0")
    prefix = attack("prefix", 1, None, targets="token ids: 1")
    one = [effect(attack("zero", 1), 20.0), effect(mask, 40.0), effect(prefix, 13.7)]
    (block,) = charts(one).values()
    assert [key.label for key in block.keys][:3] == ["zero", "mask", "prefix"]
    two = [*one, effect(attack("zero", 1, 2), 14.0)]
    assert list(charts(two)) == [f"Perplexity, {place}" for place in ("layer 11", "layer 2", "all layers")]


def test_rows_that_somebody_chose_are_another_line():
    chosen = [attack("zero", k, targets=f"layer 11: {rows}") for k, rows in ((1, "5"), (3, "5 7 1229"))]
    rows = [*SMALL, effect(chosen[0], 13.61), effect(chosen[1], 21.0), effect(attack("retain", 0), 50.0)]
    (block,) = charts(rows).values()
    lines = dict(zip((key.label for key in block.keys), drawn(block.body, Line), strict=False))
    assert list(lines) == ["zero", "zero (2)", "retain", "random"]
    np.testing.assert_array_equal(lines["zero (2)"]["value"], [13.61, 21])
    assert lines["retain"]["k_text"] == ["0", "3"]


def test_the_table_has_the_clean_model_first_and_tells_changes():
    rows = [
        *SMALL,
        effect(CLEAN, 0.6, "acc", "boolq, first 9", 0.6, error=0.03),
        effect(attack("zero", 1), 0.45, "acc", "boolq, first 9", 0.6, error=0.04),
        effect(attack("zero", 1), 0.78, "kl", TEXT, 0.0),
        effect(attack("zero", 1), 0.5, "top1_agreement", TEXT, 1.0),
    ]
    (listing,) = listings(rows)
    assert listing.heads == ("attack", "perplexity", "boolq in %", "KL in nats", "same token in %")
    assert shown(listing) == [
        ("clean model", "13.60", "60.0", "0", "100.0"),
        ("zero, k = 1", "20.00 ×1.47", "45.0 −15.0", "0.780", "50.0"),  # noqa: RUF001
        ("zero, k = 3", "28.70 ×2.11", "", "", ""),  # noqa: RUF001
        ("zero, k = 50", "33.00 ×2.43", "", "", ""),  # noqa: RUF001
        ("retain, k = 3", "14.80 ×1.09", "", "", ""),  # noqa: RUF001
        ("random, k = 50", "13.65 =", "", "", ""),
    ]
    assert listing.starts == {1, 4, 5}
    block = next(block for block in charts_attacks.effects(effects(rows)) if block.kind == "listing")
    assert "mean over 2 seeds" in block.says
    assert "up to 4 points" in block.says
    assert f"data: {TEXT}; boolq, first 9." in block.notes


def test_without_a_clean_row_the_clean_model_is_known_from_the_attacks():
    (listing,) = listings([effect(attack("zero", 1), 20.0)])
    assert shown(listing)[0] == ("clean model", "13.60")
    (listing,) = listings([effect(attack("zero", 1), 20.0, baseline=None)])
    assert shown(listing) == [("clean model", ""), ("zero, k = 1", "20.00")]


def test_the_chain_has_a_table_of_its_own_beside_perplexity():
    rows = [*SMALL, effect(attack("zero", 3), 1234.0, "top1_h", TEXT, 24926.2)]
    rows += [effect(attack("zero", 3), 0.12, "sink_share", TEXT, 0.5)]
    cost, chain = listings(rows)
    assert cost.heads == ("attack", "perplexity")
    assert chain.heads == ("attack", "perplexity", "largest |h|", "heads with a sink in %")
    assert shown(chain)[0] == ("clean model", "13.60", "24,926", "50.0")
    assert shown(chain)[2] == ("zero, k = 3", "28.70 ×2.11", "1,234 ×0.0495", "12.0 −38.0")  # noqa: RUF001


def test_accuracies_of_several_tasks_have_a_mean_where_all_of_them_ran():
    values = {("boolq", 1): 0.4, ("piqa", 1): 0.5, ("boolq", 3): 0.3}
    rows = [effect(attack("zero", k), value, "acc", f"{task}, first 9", 0.6) for (task, k), value in values.items()]
    rows += [effect(attack("zero", 1), 0.4, "acc_norm", "piqa, first 9", 0.6)]
    found = charts(rows)
    assert list(found) == [
        "Mean accuracy, layer 11",
        "Accuracy: boolq, layer 11",
        "Accuracy: piqa, layer 11",
        "acc_norm: piqa, layer 11",
    ]
    mean = found["Mean accuracy, layer 11"]
    np.testing.assert_allclose(drawn(mean.body, Line)[0]["value"], [45])
    assert mean.says == "On 2 tasks, first 9."
    (listing,) = listings(rows)
    assert listing.heads[1:] == ("mean accuracy in %", "boolq in %", "piqa in %", "acc_norm piqa in %")
    assert [row[1] for row in shown(listing)[1:]] == ["45.0 −15.0", ""]  # noqa: RUF001


def test_of_many_tasks_only_the_mean_is_drawn():
    rows = [effect(attack("zero", 1), 0.4, "acc", f"task {number}", 0.6) for number in range(60)]
    assert list(charts(rows)) == ["Mean accuracy, layer 11"]
    assert len(listings(rows)[0].heads) == 62


def test_two_texts_are_told_apart():
    rows = [effect(attack("zero", 1), 20.0, data=data) for data in ("wiki, 2 x 64, BOS, aa", "c4, 2 x 64, BOS, bb")]
    assert list(charts(rows)) == ["Perplexity: wiki, layer 11", "Perplexity: c4, layer 11"]
    assert listings(rows)[0].heads == ("attack", "perplexity wiki", "perplexity c4")
    rows = [effect(attack("zero", 1), 20.0, data=data) for data in ("wiki, 2 x 64, BOS, aa", "wiki, 2 x 64, BOS, bb")]
    assert "perplexity wiki, 2 x 64, BOS, aa" in listings(rows)[0].heads


def test_published_rows_of_the_same_model_stand_below_ours():
    found = charts_attacks.effects(effects(SMALL, model="meta-llama/Meta-Llama-3-8B"))
    assert "oh2024" in found[-1].title
    listing = found[-1].body
    assert listing.heads[:5] == (
        "attack",
        "perplexity wikitext",
        "perplexity c4",
        "perplexity pg19",
        "mean accuracy in %",
    )
    assert shown(listing)[0][:5] == ("clean model", "5.75", "9.94", "8.98", "73.0")
    assert shown(listing)[1][1] == "104.57 ×18.2"  # noqa: RUF001
    assert not any("oh2024" in block.title for block in charts_attacks.effects(effects(SMALL, model="gpt2")))


def test_only_the_clean_model_gives_a_table_and_no_chart():
    found = charts_attacks.effects(effects([effect(CLEAN, 13.6)]))
    assert [block.kind for block in found] == ["listing"]


@settings(max_examples=20, deadline=None)
@given(any_effects())
def test_any_rows_give_charts_with_finite_axes(rows):
    for block in charts_attacks.effects(effects(rows)):
        if block.kind == "chart":
            assert -math.inf < block.body.y_range.start < block.body.y_range.end < math.inf
            json.dumps(dict(json_item(block.body)), allow_nan=False)
        else:
            assert {len(row) for row in block.body.rows} == {len(block.body.heads)} == {len(block.body.changes)}


def text(base, written, same, prompt="Once"):
    return base | {"prompt": prompt, "text": written, "same_tokens": same, "num_tokens": 8}


def passages(rows):
    blocks = charts_texts.generations(effects([], generations=rows))
    return [(passage.label, passage.note, passage.same, passage.rest) for block in blocks for passage in block.body]


def test_texts_stand_below_each_other_the_clean_one_first_and_equal_ones_together():
    rows = [text(attack("random", k, seed=seed), " a time", 8) for k in (1, 3) for seed in (0, 1)]
    rows += [text(attack("zero", 1), " a b", 1), text(attack("zero", 3), "\n\n\nx", 0), text(CLEAN, " a time", 8)]
    assert passages(rows) == [
        ("clean model", "8 tokens", "", " a time"),
        ("zero, k = 1", "the first 1 of 8 tokens as the clean model", " a ", "b"),
        ("zero, k = 3", "other than clean from the first token on", "", "↵↵↵\nx"),
        ("random, k = 1, 3", "seeds 0, 1; 8 tokens as the clean model", " a time", ""),
    ]


def test_texts_of_seeds_that_differ_are_not_put_together():
    rows = [
        text(attack("random", k, seed=seed), written, 8) for k, seed, written in ((1, 0, "a"), (1, 1, "b"), (3, 0, "a"))
    ]
    assert [passage[0:2] for passage in passages(rows)] == [
        ("random, k = 1, 3", "seed 0; the first 8 of 8 tokens as the clean model"),
        ("random, k = 1", "seed 1; the first 8 of 8 tokens as the clean model"),
    ]


def test_prompts_are_headings_and_long_ones_are_told_in_full():
    rows = [text(CLEAN, "", 0, prompt) for prompt in ("Once", "one\n" + "long prompt " * 20)]
    first, second = charts_texts.generations(effects([], generations=rows))
    assert first.title == "“Once”"
    assert first.body[0].rest == "(nothing)"
    assert second.title.endswith("…”")
    assert "long prompt " * 20 in second.says
