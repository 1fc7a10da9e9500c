"""The paragraph on the causal chain: its verdicts follow the numbers, whatever the table holds."""

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock.findings import table
from monadnock.findings.chain_links import (
    FAILS,
    GONE,
    HOLDS,
    LINKS,
    OPEN,
    PARTLY,
    STEPS,
    TOUCHED,
    Measured,
    Verdict,
    combine,
    judge,
    loss,
)
from monadnock.findings.modes import CONTROLS, MODES
from monadnock.findings.summary import summarise
from monadnock.findings.summary_chain import find_cuts, number, paragraph, parts, texts
from tests.report.chained import DATA, any_chain, chain_rows, row
from tests.report.conftest import manifest


def frame(*rows):
    return table("chain").frame(list(rows))


def said(*rows):
    return dict(summarise(manifest(), {"chain": frame(*rows)}).items).get("Chain")


def sinks(after, control=0.48, metric="sink_share", before=0.48):
    return Measured(metric, before, after, control, control)


def test_a_link_holds_if_half_of_its_effect_goes_and_with_no_control():
    assert judge(sinks(0.24)).word == judge(sinks(0.0)).word == HOLDS
    assert judge(sinks(0.25)).word == judge(sinks(0.43)).word == PARTLY
    assert judge(sinks(0.44)).word == judge(sinks(0.60)).word == FAILS
    assert judge(sinks(0.01, control=0.25)).word == HOLDS
    assert judge(sinks(0.01, control=0.24)) == Verdict(PARTLY, "a random draw does much of it")
    assert judge(sinks(0.02, control=0.01)) == Verdict(FAILS, "the same number cut at random does the same")
    assert judge(Measured("sink_share", 0.48, 0.01, 0.48, 0.005)).word == FAILS  # one draw is enough


def test_perplexity_has_to_grow():
    def grown(after, high=10.1):
        return judge(Measured("perplexity", 10.0, after, 9.9, high)).word

    assert grown(15.0) == grown(1e9) == grown(math.inf) == grown(math.nan) == HOLDS
    assert grown(14.9) == grown(11.01) == PARTLY
    assert grown(10.9) == grown(2.0) == FAILS
    assert grown(50.0, high=50.0) == grown(math.inf, high=math.nan) == FAILS


def test_a_cause_that_is_not_away_proves_nothing():
    effect = Measured("perplexity", 11.8, 50.0, 11.7, 11.9)
    assert judge(effect, sinks(0.2)).word == HOLDS
    for left in (0.48, 0.25, math.nan, None):
        assert judge(effect, sinks(left)) == Verdict(OPEN, "the cause is not away")


@pytest.mark.parametrize("missing", ["before", "after", "low", "high"])
def test_what_was_not_measured_leaves_a_link_open(missing):
    found = {"before": 0.5, "after": 0.1, "low": 0.5, "high": 0.5} | {missing: None}
    assert judge(Measured("sink_share", **found)).word == OPEN
    assert judge(Measured("sink_share", **found | {missing: math.nan})).word == OPEN


_number = st.one_of(st.none(), st.floats(), st.floats(0, 1e6))
_measured = st.builds(Measured, st.sampled_from(["start_h", "sink_share", "perplexity"]), *[_number] * 4)


@given(_measured, st.one_of(st.none(), _measured))
def test_a_verdict_follows_the_numbers(effect, proof):
    word, lost = judge(effect, proof).word, loss(effect)
    if word in (HOLDS, PARTLY):
        assert proof is None or loss(proof) >= GONE
        assert lost >= (GONE if word == HOLDS else TOUCHED)
        controls = [loss(Measured(effect.metric, effect.before, end, None, None)) for end in (effect.low, effect.high)]
        assert all(lost > control for control in controls)
        assert word == PARTLY or max(controls) < GONE
    if word == FAILS:
        assert not math.isnan(lost)


@given(st.lists(st.sampled_from([HOLDS, PARTLY, FAILS, OPEN])))
def test_ways_that_disagree_are_a_link_in_part(words):
    found = combine(map(Verdict, words)).word
    clear = set(words) - {OPEN}
    assert found == (OPEN if not clear else PARTLY if len(clear) > 1 else clear.pop())


PARAGRAPH = """
Of the links of the chain, super weights -> massive activation and massive rows -> massive activation hold;
massive activation -> sinks and sinks -> predictions hold in part.
Super weights make the massive activation: this holds. With the 4 super weights of layer 11 zeroed, |h| of the start
token goes from 24,832 to 988, at random 24,832; feature 507 of the start token is still at 18,073 behind layer 28.
Massive rows make the massive activation: this holds. With the 2 massive rows of layer 11 zeroed, |h| of the start
token goes from 24,832 to 187, at random 24,000 to 25,000.
The massive activation makes the sinks: this holds in part. With h zeroed behind layer 11, the share of heads with a
sink goes from 48% to 37%, at random 48% (holds in part). With h zeroed behind every layer, the share of heads with a
sink goes from 48% to 51%, at random 48% (does not hold, against sun2024). Massive activations also sit elsewhere.
The sinks serve the predictions: this holds in part. With key 0 masked in all layers, the share of heads with a sink
goes from 48% to 48%, at random 48% and perplexity goes from 11.76 to 11.77, at random 11.8 to 11.99 (stays open: the
cause is not away). With key 0 masked behind layer 11, perplexity goes from 11.76 to 14, at random 11.8 to 11.9
(holds in part).
All the way down from the super weights: perplexity goes from 11.76 to 8,122,129 (holds).
All the way down from the massive rows: the share of heads with a sink goes from 48% to 1% (holds); perplexity goes
from 11.76 to 11.5 (does not hold, against oh2024).
"""


def test_the_paragraph_tells_every_link_with_its_numbers():
    assert said(*chain_rows()) == " ".join(PARAGRAPH.split())


def test_the_parts_make_the_paragraph_and_bear_their_verdicts():
    found = parts(frame(*chain_rows()))
    assert " ".join(part.text for part in found) == paragraph(frame(*chain_rows()))
    assert [(part.name, part.verdict) for part in found] == [
        ("", ""),
        ("super weights -> massive activation", HOLDS),
        ("massive rows -> massive activation", HOLDS),
        ("massive activation -> sinks", PARTLY),
        ("sinks -> predictions", PARTLY),
        ("super weights, all the way down", HOLDS),
        ("massive rows, all the way down", f"{HOLDS}, {FAILS}"),
    ]


def test_where_the_papers_looked_at_no_such_model_nothing_contradicts_them():
    """With gains behind attention and FFN (Gemma, OLMo 2) only oh2024 says something, on rows and predictions."""
    gains = [row("norm gains -> predictions", "gain", "perplexity", (12.5, 884_557.0, 12.6, 785_772.0))]
    text = said(*chain_rows(), *gains)
    assert "against" in said(*chain_rows()) and "against" not in text
    assert "perplexity goes from 11.76 to 11.5 (does not hold, as oh2024 finds in Gemma 2)" in text
    assert text.endswith(
        "All the way down from the norm gains: perplexity goes from 12.5 to 884,557, at random 12.6 to 785,772 "
        "(holds in part: a random draw does much of it)."
    )


def test_a_link_that_was_not_tested_says_why():
    rows = [row("massive rows -> massive activation", None, None, None, note="no row of W_up is massive (sun2024)")]
    rows += [row("sinks -> predictions", "mask", "perplexity", (10, 20, 10, 10))]
    rows += [row("sinks -> predictions", "mask", "sink_share", (0.5, 0.0, 0.5, 0.5))]
    assert said(*rows) == (
        "Every link of the chain that could be tested holds. Massive rows make the massive activation: not tested, "
        "no row of W_up is massive (sun2024). The sinks serve the predictions: this holds. With key 0 masked in all "
        "layers, perplexity goes from 10 to 20, at random 10."
    )


def test_the_text_with_most_of_the_chain_is_told():
    rows = [row("sinks -> predictions", "mask", "perplexity", (9, 99, 9, 9), data="short")]
    assert texts(frame(*rows, *chain_rows())) == [DATA, "short"]
    assert said(*rows, *chain_rows()) == said(*chain_rows())
    assert said() is None


def test_the_order_of_rows_does_not_matter():
    rows = chain_rows()
    assert said(*rows[::-1]) == said(*rows)


def test_links_are_cut_by_modes_that_have_a_control():
    assert {mode for link in LINKS for mode in link.modes} == set(CONTROLS) <= set(MODES)
    assert len({link.name for link in LINKS}) == len(LINKS)
    assert {link.effect for link in STEPS} == {"massive activation", "sinks", "predictions"}


@given(any_chain())
def test_any_rows_give_a_paragraph_or_none(rows):
    found = said(*rows)
    assert found is None or (found.endswith(".") and "None" not in found and "  " not in found)
    chain = frame(*rows)
    for data in texts(chain):
        here = chain.filter(pl.col("data") == data)
        for link in LINKS:
            for cut in find_cuts(here, link):
                assert cut.verdict or cut.notes


@pytest.mark.parametrize(("value", "word"), [(None, "nothing"), (math.nan, "NaN"), (math.inf, "infinity")])
def test_numbers_that_are_none(value, word):
    assert number(value, "top1_h") == word
