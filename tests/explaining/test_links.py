"""Every planted link is found, every broken one told as broken, and the numbers are those of plain code."""

from contextlib import ExitStack

import polars as pl
import pytest
import torch

from monadnock import interventions as change
from monadnock.data import token_windows
from monadnock.evaluation import perplexity
from monadnock.evaluation.chain import follow_chain
from monadnock.explaining.cutting import make_plan
from monadnock.findings.chain_links import FAILS, GAINS, HOLDS, LINKS, MASSIVE, OPEN, PREDICTIONS, ROWS, SINKS, SUPER
from monadnock.findings.summary_chain import paragraph
from monadnock.models import Adapter, Source, observe
from monadnock.models.start import start_states
from monadnock.scanning import scan
from monadnock.sites import Site, Stream
from tests.attacking.conftest import assert_unchanged, states
from tests.explaining.conftest import FEATURE, LAYER, LENGTH, SINK_LAYER, SIZES, TOKENIZER, planted, verdicts
from tests.explaining.conftest import ROWS as PLANTED
from tests.planting import KEY, read_out
from tests.tiny import tiny_model

WAYS = {
    (link.name, mode) for link in LINKS for mode in link.modes if GAINS not in (link.cause, link.effect)
}  # llama has no norm behind attention and FFN


@pytest.mark.parametrize("model_type", ["llama", "mixtral"])
def test_a_model_in_which_every_link_is_planted(model_type, text, run_explain):
    adapter = planted(model_type, text, predicts=True)
    before = states(adapter)
    table = run_explain(adapter).table("chain")
    assert_unchanged(adapter, before)
    assert verdicts(table) == dict.fromkeys(WAYS, HOLDS)
    assert paragraph(table).startswith("Every link of the chain that could be tested holds.")
    assert table["num_controls"].unique().to_list() == [3]
    assert table["note"].null_count() == table.height


def test_sinks_that_do_not_come_from_the_massive_activation(text, run_explain):
    table = run_explain(planted("llama", text, broken="sinks", predicts=True)).table("chain")
    found = verdicts(table)
    to_sinks = {way for way in WAYS if way[0].endswith(f"-> {SINKS}")}
    assert {way: found[way] for way in to_sinks} == dict.fromkeys(to_sinks, FAILS)
    others = {way for way in WAYS - to_sinks if way[0].startswith((SUPER, ROWS, SINKS))}
    assert {way: found[way] for way in others} == dict.fromkeys(others, HOLDS)
    assert "The massive activation makes the sinks: this does not hold, against sun2024." in paragraph(table)


def test_a_massive_activation_that_does_not_come_from_the_rows(text, run_explain):
    table = run_explain(planted("llama", text, broken="rows", predicts=True)).table("chain")
    found = verdicts(table)
    assert found[f"{ROWS} -> {MASSIVE}", "zero"] == found[f"{SUPER} -> {MASSIVE}", "super"] == FAILS
    assert "Massive rows make the massive activation: this does not hold, against oh2024." in paragraph(table)


def test_sinks_that_do_not_serve_the_predictions(text, run_explain):
    table = run_explain(planted("llama", text)).table("chain")
    found = verdicts(table)
    to_predictions = {way for way in WAYS if way[0].endswith(f"-> {PREDICTIONS}")}
    assert {way: found[way] for way in to_predictions} == dict.fromkeys(to_predictions, FAILS)
    assert {way: found[way] for way in WAYS - to_predictions} == dict.fromkeys(WAYS - to_predictions, HOLDS)


def test_the_numbers_are_those_of_plain_code(text, run_explain):
    adapter = planted("gpt2", text)
    table = run_explain(adapter, controls=2).table("chain")
    windows = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=SIZES["tokens"])
    ways = {
        "zero": [change.zero_rows(adapter, LAYER, PLANTED)],
        "super": [change.scale_weights(adapter, LAYER, [(FEATURE, row) for row in PLANTED])],
        "activation-zero": [change.set_activations(adapter, LAYER, {FEATURE: 0.0})],
        "activation-all": [change.set_activations(adapter, layer, {FEATURE: 0.0}) for layer in range(4)],
        "mask": [change.mask_keys(adapter, [0])],
        "mask-behind": [change.mask_keys(adapter, [0], layers=[2, 3])],
    }
    seen = {"clean": measured(adapter, windows)}
    for mode, managers in ways.items():
        with ExitStack() as stack:
            for manager in managers:
                stack.enter_context(manager)
            seen[mode] = measured(adapter, windows)
    assert set(table["mode"]) == set(ways)
    for row in table.to_dicts():
        assert row["before"] == pytest.approx(seen["clean"][row["metric"]], rel=1e-4)
        assert row["after"] == pytest.approx(seen[row["mode"]][row["metric"]], rel=1e-4)


def measured(adapter, windows):
    chain = follow_chain(adapter, windows.ids)
    sizes = start_states(adapter, TOKENIZER.bos_token_id).residual.abs().amax(1)
    return {
        "start_h": float(sizes[LAYER:].median()),  # the planted feature lives from its layer on
        "top1_h": chain.top1_h,
        "sink_share": chain.sink_share,
        "implicit_scaling": chain.implicit_scaling,
        "perplexity": perplexity(adapter, windows),
    }


def test_controls_are_those_of_attacks_with_their_mean_and_range(llama, run_explain):
    run = run_explain(llama, controls=4)
    drawn = run.table("effects").filter(mode="random", metric="perplexity")
    assert drawn["seed"].to_list() == [0, 1, 2, 3]
    row = run.table("chain").filter(link=f"{ROWS} -> {PREDICTIONS}", metric="perplexity").row(0, named=True)
    values = drawn["value"]
    assert [row[f"control{end}"] for end in ("", "_min", "_max")] == [values.mean(), values.min(), values.max()]
    assert row["num_controls"] == 4


def test_a_model_without_outliers_says_why_nothing_is_tested(text, run_explain):
    adapter = Adapter(tiny_model("llama", num_hidden_layers=3), TOKENIZER, Source("plain", "object"))
    with torch.no_grad():
        for layer in range(3):
            adapter.weight(layer, "q").read().mul_(0.1)  # no head has a sink
    run = run_explain(adapter)
    table = run.table("chain")
    assert verdicts(table) == {} and table["mode"].null_count() == table.height
    assert paragraph(table) == (
        "No link of the chain could be tested. "
        "Super weights make the massive activation: not tested, the run lists no super weight. "
        "Massive rows make the massive activation: not tested, no row of W_up is massive (sun2024). "
        "The massive activation makes the sinks: not tested, no feature of the start token is massive (sun2024). "
        "The sinks serve the predictions: not tested, no head has a sink (gu2025)."
    )
    assert set(run.table("effects")["mode"]) == {"none"}
    assert dict(run.summary().items)["Chain"] == paragraph(table)


def test_gains_are_a_cause_where_the_family_has_them(text, run_explain):
    adapter = Adapter(tiny_model("gemma3_text"), TOKENIZER, Source("gemma", "object"))
    with torch.no_grad():
        for layer in range(3):
            adapter.norm(layer, "mlp_output").weight[FEATURE] = 20_000.0
    run = run_explain(adapter)
    found = run.table("chain").filter(pl.col("mode") == "gain")
    assert set(found["link"]) >= {f"{GAINS} -> {MASSIVE}", f"{GAINS} -> {PREDICTIONS}"}
    assert verdicts(run.table("chain"))[f"{GAINS} -> {MASSIVE}", "gain"] == HOLDS
    assert found["targets"].unique().to_list() == [f"all layers, attn_output and mlp_output: {FEATURE}"]


def test_sinks_that_move_to_the_next_key_leave_the_link_open(text, run_explain):
    adapter = planted("gpt2", text)
    windows = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=SIZES["tokens"])
    kept = []
    with observe(adapter, {Site(Stream.ATTN_INPUT, SINK_LAYER): lambda batch: kept.append(batch.values.clone())}):
        for ids in windows.ids:
            adapter.forward(ids)
    place = torch.arange(LENGTH).expand(len(kept), -1)
    first, second = (read_out(torch.stack(kept), place == position) for position in (0, 1))
    for head in range(4):  # both are sought, the first a little more
        row = torch.tensor([head * adapter.d_head + adapter.d_head // 2 - 1])
        adapter.weight(SINK_LAYER, "k").set_rows(row, KEY * (first + 0.95 * second))
    table = run_explain(adapter).table("chain")
    found = verdicts(table)
    link = f"{SINKS} -> {PREDICTIONS}"
    assert found[link, "mask"] == found[link, "mask-behind"] == OPEN
    shares = table.filter(link=link, metric="sink_share").select("before", "after").rows()
    assert shares == [(0.25, 0.25)] * 2
    assert "The sinks serve the predictions: this stays open." in paragraph(table)
    assert "from 25% to 25%" in paragraph(table) and "(stays open: the cause is not away)" in paragraph(table)


def test_the_plan_names_what_matters(text, tmp_path):
    adapter = planted("mixtral", text)
    run = scan(adapter, text=text, out=tmp_path / "run", probes=["start_token"], **SIZES)
    plan = make_plan(adapter, run)
    assert plan.targets.features[0] == FEATURE and plan.alive == (1, 2, 3)
    expert = run.table("massive_weights")["expert"][0]
    assert [(cut.mode, cut.k, cut.words) for cut in plan.cuts] == [
        ("super", 2, f"the 2 super weights of layer 1, expert {expert}, zeroed"),
        ("zero", 2, f"the 2 massive rows of layer 1, expert {expert}, zeroed"),
        ("activation-zero", 1, "h at feature 3 of position 0 zeroed behind layer 1"),
        ("activation-all", 1, "h at feature 3 of position 0 zeroed behind every layer"),
        ("mask", 1, "key 0 masked in all layers"),
        ("mask-behind", 1, "key 0 masked in the layers behind layer 1"),
    ]
