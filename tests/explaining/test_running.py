"""A stopped start goes on, draws are decided by their seed, every bit comes back, and bad requests are told."""

import pytest
import torch

from monadnock import MonadnockError
from monadnock.attacking.measures import Predictions, TheChain
from monadnock.findings import Run
from monadnock.models import Adapter, Source
from monadnock.scanning import scan
from tests.attacking.conftest import assert_unchanged, states
from tests.explaining.conftest import LENGTH, SIZES, TOKENIZER, planted
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model


def test_the_same_call_gives_the_same_chain(llama, run_explain, tmp_path):
    one, other = (run_explain(llama, out=tmp_path / name).table("chain") for name in ("one", "other"))
    assert one.equals(other)


def test_a_new_run_is_scanned_with_all_probes(llama, run_explain):
    from monadnock.probes.base import probe_names

    run = run_explain(llama, controls=1)
    assert set(run.manifest.probes) == set(probe_names())
    assert run.manifest.text.token_hash[:8] in run.table("chain")["data"][0]
    assert [attack.metrics for attack in run.manifest.attacks] == [["perplexity", "chain"]]


@pytest.mark.parametrize("stop", [1, 9, 30])
def test_a_stopped_start_goes_on_and_ends_with_the_same_numbers(llama, run_explain, tmp_path, monkeypatch, stop):
    whole = run_explain(llama, out=tmp_path / "whole")
    before, calls, add = states(llama), [], Run.add

    def stops(self, *args):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(args[:2])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        run_explain(llama)
    assert_unchanged(llama, before)
    kept = sum(1 for _ in (tmp_path / "run" / "tables").glob("[ce]*/*.parquet"))
    assert kept == stop == len(calls)
    monkeypatch.setattr(Run, "add", lambda self, *args: calls.append(args[:2]) or add(self, *args))
    again = run_explain(llama)
    assert len(calls) == len(set(calls))  # nothing is measured twice
    for name in ("chain", "effects"):
        assert again.table(name).equals(whole.table(name))


def test_nothing_is_measured_twice_and_controls_can_be_added(llama, run_explain, monkeypatch):
    run = run_explain(llama, controls=1)
    chain, measured = run.table("chain"), []
    for kind in (Predictions, TheChain):
        run_it = kind.run
        monkeypatch.setattr(
            kind, "run", lambda self, change, *rest, f=run_it: measured.append(change.targets) or f(self, change, *rest)
        )
    monkeypatch.setattr("monadnock.explaining.measuring.start_states", None)  # nor is the start token fed again
    assert run_explain(llama, controls=1).table("chain").equals(chain)
    assert measured == []
    monkeypatch.undo()
    more = run_explain(llama, controls=3).table("chain")
    assert more.height == chain.height and more["num_controls"].unique().to_list() == [3]
    assert (more["control_max"] >= chain["control_max"]).all() and (more["after"] == chain["after"]).all()
    assert run_explain(llama, controls=2).table("chain").equals(more)  # what is known is kept


def test_what_was_attacked_before_is_not_measured_again(llama, text, run_explain, tmp_path, monkeypatch):
    from monadnock.attacking import attack

    options = {"text": text, "out": tmp_path / "run", **SIZES}
    attack(llama, modes=["zero", "random"], ks=[2], seeds=3, metrics=["perplexity", "chain"], **options)
    added, add = [], Run.add
    monkeypatch.setattr(Run, "add", lambda self, *args: added.append(args[:2]) or add(self, *args))
    run = run_explain(llama)
    assert not [part for table, part in added if table == "effects" and part.startswith(("none", "zero", "random"))]
    assert run.table("chain").filter(mode="zero").height > 0
    assert len(run.manifest.attacks) == 1


def test_another_text_is_another_chain(llama, run_explain):
    run = run_explain(llama, controls=1)
    height = run.table("chain").height
    both = run_explain(llama, controls=1, seed=1)
    assert both.table("chain").height == 2 * height and both.table("chain")["data"].n_unique() == 2


def test_why_a_link_is_not_tested_is_kept_for_every_text(run_explain):
    adapter = Adapter(tiny_model("llama"), TOKENIZER, Source("plain", "object"))
    run_explain(adapter, controls=1)
    both = run_explain(adapter, controls=1, seed=1).table("chain").drop_nulls("note")
    assert both["data"].n_unique() == 2
    assert both.height == 2 * both["link"].n_unique()


def test_every_bit_comes_back_also_after_an_exception(text, run_explain, monkeypatch):
    adapter = planted("mixtral", text)
    adapter.model.train()
    before, follow = state(adapter.model), TheChain.run
    run_explain(adapter, controls=1)
    assert_untouched(adapter.model, before)

    def breaks(self, change, *rest):
        if change is None:
            return follow(self, change, *rest)
        with change.enter():
            raise RuntimeError("broken")

    monkeypatch.setattr(TheChain, "run", breaks)
    with pytest.raises(RuntimeError, match="broken"):
        run_explain(adapter, controls=2)
    assert_untouched(adapter.model, before)


def test_layers_below_the_cut_are_not_run_again(llama, run_explain):
    run_explain(llama, controls=1)
    ran = []
    handle = llama.module(0, "self_attn").register_forward_hook(lambda _m, _a, out: ran.append(out[0].shape[1]))
    try:
        run_explain(llama, controls=2)
    finally:
        handle.remove()
    whole = [size for size in ran if size == LENGTH]
    # clean states and the clean chain of two windows; then only a mask in all layers runs layer 0, once for each metric
    assert len(whole) == 2 + 2 + 2 * 2


def test_bad_requests(llama, run_explain, text, tmp_path):
    with pytest.raises(MonadnockError, match="0 controls were asked"):
        run_explain(llama, controls=0)
    with pytest.raises(MonadnockError, match="cannot be read"):
        run_explain(llama, text="nowhere.txt")
    assert not (tmp_path / "run").exists()
    other = Adapter(tiny_model("llama", seed=1), TOKENIZER, Source("another", "object"))
    scan(other, text=text, out=tmp_path / "other", probes=["start_token"], **SIZES)
    with pytest.raises(MonadnockError, match="is a run of another, the model is llama"):
        run_explain(llama, out=tmp_path / "other")
    scan(llama, text=text, out=tmp_path / "bare", probes=["parameters"], **SIZES)
    with pytest.raises(MonadnockError, match="scan with the probe start_token"):
        run_explain(llama, out=tmp_path / "bare")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(MonadnockError, match="holds files that are not a run"):
        run_explain(llama, out=tmp_path / "full")


def test_the_same_name_with_other_weights(text, run_explain):
    adapter = planted("llama", text)
    run_explain(adapter, controls=1)
    with torch.no_grad():
        adapter.weight(3, "o").read().mul_(1.5)
    with pytest.raises(MonadnockError, match="with other weights"):
        run_explain(adapter, controls=2)


def test_where_else_outliers_sit_is_said(text, tmp_path):
    from monadnock.explaining.cutting import make_plan
    from monadnock.findings import table

    adapter = planted("llama", text)
    run = scan(adapter, text=text, out=tmp_path / "run", probes=["start_token"], **SIZES)
    plain = {cut.mode: cut.note for cut in make_plan(adapter, run).cuts}
    assert set(plain.values()) == {""}
    shared = {"stream": "residual", "layer": 1, "criterion": "sun2024"}
    entries = [shared | {"position": place, "token_class": kind} for place, kind in ((0, "start"), (7, "delimiter"))]
    heads = [{"layer": 2, "head": head, "sink": True, "sink_position": head} for head in range(3)]
    frames = {"activations": table("activations").frame(entries), "heads": table("heads").frame(heads)}
    tables = {name: run.table(name) for name in run.manifest.tables} | frames
    more = Run.write(tmp_path / "more", run.manifest, tables)
    found = {cut.mode: cut.note for cut in make_plan(adapter, more).cuts}
    assert "later tokens (mostly of class delimiter)" in found["activation-zero"] == found["activation-all"]
    assert found["mask"] == "2 of 3 heads with a sink have it on another key than 0, which was not masked"
    assert found["zero"] == found["super"] == ""
