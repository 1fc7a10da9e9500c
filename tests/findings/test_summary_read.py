"""The sentences on what was read tell each number beside its control, and nothing that was not measured."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import table
from monadnock.findings.summary import summarise
from tests.report.conftest import manifest
from tests.report.test_tokens import any_rows

READ = ("dictionaries", "continuations", "state_similarity", "first_sentence", "readings", "lifecycles")
TOPICS = {"Dictionaries", "States alike", "First sentence", "In words"}


def said(**rows):
    found = summarise(manifest(), {name: table(name).frame(list(each)) for name, each in rows.items()})
    return {topic: sentence for topic, sentence in found.items if topic in TOPICS}


def known(name, *, tied, **more):
    row = {"dictionary": name, "tied": tied, "num_tokens": 32000, "width": 4096, "effective_rank": 3456.7}
    return row | {"positive_share": 0.561, "noise_floor": 0.0569, "capacity": 308.9} | more


NEXT = {"data": "topics", "pairs": 1024, "rank": 15886.0, "control_rank": 16579.0, "top_share": 0.0078125}
NEXT |= {"control_share": 0.02832, "better_share": 0.467285}


def test_one_matrix_is_told_once():
    rows = [known(name, tied=True, own_correlation=1.0) for name in ("input", "output")]
    assert said(dictionaries=rows) == {
        "Dictionaries": "input and output: one matrix of 32,000 tokens with 4,096 entries each, effective rank 3,457, "
        "56.1% of the pairs of rows with a positive product (random directions: half). Amplitudes below F = 0.0569 are "
        "noise; 1 / F^2 = 309 words fit into a state."
    }


def test_two_matrices_are_told_with_their_correlation():
    rows = [known("input", tied=False, own_correlation=1.0), known("output", tied=False, own_correlation=0.0234)]
    told = said(dictionaries=rows)["Dictionaries"]
    assert told.startswith("input: a matrix of 32,000 tokens")
    assert "; output: a matrix of 32,000 tokens" in told
    assert "; the two rows of one token correlate by 0.0234. Amplitudes" in told


@pytest.mark.parametrize(
    ("better", "verdict"), [(0.467, "do not suggest"), (0.53, "do not suggest"), (0.54, "suggest")]
)
def test_continuations_are_told_beside_their_control(better, verdict):
    told = said(dictionaries=[known("input", tied=False)], continuations=[NEXT | {"better_share": better}])
    assert told["Dictionaries"].endswith(  # two standard errors of 1,024 pairs are 3.1%
        "Raw input embeddings, read by the output dictionary, rank the next token of a text at 15,886 in the median "
        "(next tokens dealt out anew: 16,579), 0.8% of them among the first 10 (2.8%); it comes before the one dealt "
        f"out in {better:.1%} of 1,024 pairs (chance: 50%), so that they {verdict} what comes next."
    )


def step(layer, mean, relation="later", gap=1, data="topics"):
    return {"data": data, "layer": layer, "relation": relation, "gap": gap, "mean": mean}


STEPS = [step(-1, 0.1), step(0, 0.8), step(1, 0.9), step(2, 0.98), step(3, 0.95), step(4, 0.6)]


def test_the_first_two_layers_and_the_last_are_left_out_of_the_mean():
    assert said(state_similarity=STEPS)["States alike"] == (  # (0.9 + 0.98 + 0.95) / 3
        "what goes into a layer and what comes out of it have a similarity of 0.943 on average (layers 2 to 4); most "
        "is changed by layer 0 (0.1), layer 5 (0.6) and layer 1 (0.8)."
    )


def test_tokens_of_one_layer_are_told_and_texts_are_not_mixed():
    rows = [step(layer, mean, "all pairs", 0) for layer, mean in ((-1, 0.9), (0, 0.2), (1, 0.4))]
    rows += [step(0, 0.5, "neighbours", 0), step(0, 0.9, "neighbours", 0, "other")]
    assert said(state_similarity=rows)["States alike"] == (
        "different tokens of one layer, mean over layers: neighbours 0.5 and all pairs 0.3. "
        "This is of topics, the first of 2 texts."
    )


def fall(sentence, value, control, error, layer=None):
    row = {"data": "topics", "layer": layer, "sentence": sentence, "num_texts": 41, "num_heads": 270}
    return row | {"fall": value, "effect_error": error, "control_fall": control, "effect": value - control}


def test_the_first_sentence_effect_has_a_verdict_for_each_sentence():
    rows = [fall(2, -0.03, 0.01, 0.01), fall(1, 0.05, 0.01, 0.019), fall(3, 0.05, 0.01, 0.02)]
    assert said(first_sentence=[fall(1, 9.0, 0.0, 0.1, layer=0), *rows])["First sentence"] == (
        "attention to the first token falls by 0.05 where sentence 1 ends (270 heads, 41 texts), and falls by 0.01 at "
        "the same positions of texts where none ends: the effect holds (0.04 ± 0.019); where sentence 2 ends it is "
        "reversed (-0.04 ± 0.01); where sentence 3 ends it is not seen (0.04 ± 0.02)."
    )


def test_without_an_error_there_is_no_verdict():
    told = said(first_sentence=[fall(1, 0.05, 0.01, None)])["First sentence"]
    assert told.endswith("the effect (0.04) has no error to go by.")


def word(index, sign, rank, text, amplitude, **more):
    row = {"kind": "feature", "layer": 11, "index": index, "side": "writes", "dictionary": "output", "sign": sign}
    return row | {"rank": rank, "word": text, "amplitude": amplitude} | more


def life(feature, massive):
    return {"feature": feature, "birth": 2, "death": None, "peak_layer": 2, "peak_value": 900.0, "massive": massive}


LIVES = [life(507, True), life(247, True), life(17, False)]


def test_massive_features_are_told_by_the_tokens_they_push():
    rows = [word(507, 1, rank, text, 0.3) for rank, text in enumerate([",", " a", "\n", "'", "fifth"], 1)][::-1]
    rows += [word(507, -1, 1, "Cisco", -0.2), word(247, -1, 1, "x", 0.01), word(17, 1, 1, "small", 0.5)]
    rows += [word(507, 1, 1, "read", 0.3, side="reads"), word(507, 1, 1, "other", 0.3, kind="qk")]
    told = "read by the output dictionary, feature 507 pushes up ',', ' a', '\\n' and \"'\", and down 'Cisco'; "
    assert said(readings=rows, lifecycles=LIVES)["In words"] == told + "feature 247 pushes down 'x'."
    noise = [known("output", tied=True, noise_largest=0.15)]
    assert said(readings=rows, lifecycles=LIVES, dictionaries=noise)["In words"] == (
        told + "feature 247 pushes no token down by more than a random state does."
    )


def test_nothing_is_said_of_what_was_not_read():
    assert said() == {}
    assert said(**{name: [] for name in READ}) == {}
    assert said(dictionaries=[{"dictionary": "input"}], state_similarity=[step(0, math.nan)]) == {}
    assert said(readings=[word(17, 1, 1, "small", 0.5)], lifecycles=LIVES) == {}
    assert said(first_sentence=[fall(1, math.nan, 0.0, 0.1)]) == {}


FEATURE = {"kind": st.just("feature"), "side": st.just("writes"), "dictionary": st.just("output")}
FEATURE |= {"index": st.sampled_from([None, 1, 3]), "sign": st.sampled_from([None, 1, -1, 2])}
STEP = {"layer": st.sampled_from([None, -1, 0, 3]), "relation": st.sampled_from(["later", "all pairs", None])}
STEP |= {"gap": st.sampled_from([None, 0, 1])}
END = {"layer": st.none() | st.just(0), "sentence": st.sampled_from([None, 1, 2])}


def rows_of(name, columns):
    """Return a strategy of rows whose known columns are likely to be told."""
    pairs = st.lists(st.fixed_dictionaries(columns), min_size=8, max_size=8)
    return st.builds(lambda rows, more: [r | m for r, m in zip(rows, more, strict=False)], any_rows(name), pairs)


@settings(max_examples=60, deadline=None)
@given(
    any_rows("dictionaries"),
    any_rows("continuations"),
    rows_of("state_similarity", STEP),
    rows_of("first_sentence", END),
    rows_of("readings", FEATURE),
)
def test_any_rows_give_sentences_or_none(dictionaries, continuations, alike, ends, readings):
    told = said(
        dictionaries=dictionaries, continuations=continuations, state_similarity=alike, first_sentence=ends,
        readings=readings, lifecycles=[life(3, True), life(1, None)],
    )  # fmt: skip
    for sentence in told.values():
        assert sentence.endswith(".")
        assert not {"None", "nan", "inf"} & set(sentence.replace("(", " ").split())


def test_attention_that_rises_is_said_to_rise():
    told = said(first_sentence=[fall(1, -0.05, 0.01, 0.01)])["First sentence"]
    assert told.startswith("attention to the first token rises by 0.05 where sentence 1 ends")
    assert told.endswith(
        "and falls by 0.01 at the same positions of texts where none ends: the effect is reversed (-0.06 ± 0.01)."
    )
