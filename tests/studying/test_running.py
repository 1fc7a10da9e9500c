"""Studies of planted models: BOS is massive where it was put, nothing is done twice, and refusals leave nothing."""

import polars as pl
import pytest
import torch

from monadnock import MonadnockError
from monadnock.findings import Run
from monadnock.models import Adapter, Source
from monadnock.scanning import scan
from tests.scans import assert_untouched, state
from tests.studying.conftest import LAYER, LENGTH, PROMPT, TOKENIZER, planted
from tests.tiny import tiny_model
from tests.words import BOS_ID, word_tokenizer


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_planted_bos_is_massive_exactly_where_it_was_put(model_type, run_study):
    adapter = planted(model_type)
    before = state(adapter.model)
    run = run_study(adapter, "bos", prompt=PROMPT)
    assert_untouched(adapter.model, before)
    inputs = run.table("inputs")
    massive = inputs.filter(pl.col("massive"))
    places = {
        name: sorted(set(massive.filter(input=name).select("layer", "position").rows()))
        for name in inputs["input"].unique()
    }
    layers = range(LAYER, adapter.num_layers)
    assert places == {
        "no BOS": [],
        "BOS at the start": [(layer, 0) for layer in layers],
        "BOS in the middle": [(layer, 3) for layer in layers],
        "BOS at the end": [(layer, 7) for layer in layers],
    }
    assert set(massive["feature"]) == {3}
    assert massive["inserted"].all() and set(massive["token_id"]) == {BOS_ID}
    assert inputs.filter(pl.col("inserted")).height == 3 * adapter.num_layers
    told = dict(run.summary().items)["BOS"]
    assert "BOS at the end, '<s>' (|h| " in told and "no BOS, none;" in told
    assert told.endswith("BOS is massive wherever it stands.")


def test_medians_come_from_the_run(llama, run_study):
    run = run_study(llama, "bos", prompt=PROMPT)
    medians = run.table("layers").filter(stream="residual").sort("layer")["median"]
    found = run.table("inputs").with_columns(median=medians.gather(pl.Series(run.table("inputs")["layer"])))
    assert (found["top1"] / found["median"] - found["ratio"]).abs().max() < 1e-9 * found["ratio"].max()


def test_maps_are_kept_of_the_first_layers_and_behind_the_massive_one(llama, run_study):
    run = run_study(llama, "bos", prompt=PROMPT)
    maps = run.table("maps")
    assert sorted(maps["layer"].unique()) == [0, 1, LAYER + 1]
    assert maps["head"].null_count() == maps.height
    assert maps.height == 3 * (7 * 8 // 2 + 3 * 8 * 9 // 2)
    sums = maps.group_by("input", "layer", "query").agg(pl.col("mass").sum())
    assert sums["mass"].to_list() == pytest.approx([1.0] * sums.height)
    assert (maps["key"] <= maps["query"]).all()


def test_alpha_is_the_mean_of_a_maps_columns(llama, run_study):
    run = run_study(llama, "attention", prompt=PROMPT)
    maps = (
        run.table("maps").group_by("layer", "key").agg(pl.col("mass").mean())
    )  # each query that sees the key has a row
    both = maps.join(run.table("inputs"), left_on=["layer", "key"], right_on=["layer", "position"])
    assert both.height == 3 * 8
    assert both["mass"].to_list() == pytest.approx(both["attention"].to_list(), abs=1e-6)


def test_layers_and_heads_are_added_to_what_is_there(llama, run_study):
    run_study(llama, "attention", prompt=PROMPT)
    parts = {
        part: part.stat().st_mtime_ns
        for part in (run_study(llama, "attention", prompt=PROMPT).path / "tables").rglob("*/*")
    }
    run = run_study(llama, "attention", prompt=PROMPT, layers=[3, 1], heads=[2])
    places = run.table("maps").select("layer", "head").unique().sort("layer", "head").rows()
    assert places == [(0, None), (1, None), (1, 2), (2, None), (3, None), (3, 2)]
    assert all(part.stat().st_mtime_ns == stamp for part, stamp in parts.items())
    everywhere = run_study(llama, "attention", prompt=PROMPT, heads=[0]).table("maps").filter(head=0)
    assert sorted(everywhere["layer"].unique()) == [0, 1, 2]


def test_another_prompt_stands_beside_the_first(llama, run_study):
    run_study(llama, "bos", prompt=PROMPT)
    both = run_study(llama, "bos", prompt="w1 w2").table("inputs")
    assert both.select("prompt", "input").unique().height == 8
    assert dict(Run.open(run_study(llama, "bos", prompt=PROMPT).path).heights())["inputs"] == both.height


def test_a_stopped_study_goes_on_and_ends_with_the_same_rows(llama, run_study, tmp_path, monkeypatch):
    whole = run_study(llama, "length", out=tmp_path / "whole")
    before, added, add = state(llama.model), [], Run.add

    def stops(self, *args):
        if len(added) == 9:
            raise KeyboardInterrupt
        added.append(args[1])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        run_study(llama, "length")
    assert_untouched(llama.model, before)
    monkeypatch.setattr(Run, "add", lambda self, *args: added.append(args[1]) or add(self, *args))
    again = run_study(llama, "length")
    assert len(added) == len(set(added)) == 14 * 4
    for name in ("inputs", "maps"):
        assert again.table(name).equals(whole.table(name))
    seen = []
    monkeypatch.setattr("monadnock.studying.running.observe_input", lambda *args: seen.append(args))
    run_study(llama, "length")
    assert seen == []


def test_bos_alone_and_both_are_the_same_inputs(llama, run_study, monkeypatch):
    run_study(llama, "length", bos=True)
    added, add = [], Run.add
    monkeypatch.setattr(Run, "add", lambda self, *args: added.append(args[1]) or add(self, *args))
    assert run_study(llama, "length").table("inputs")["input"].n_unique() == 14
    assert len(added) == 7 * 4


def test_a_study_adds_to_a_scan_and_to_its_report(llama, run_study, text, tmp_path):
    scanned = scan(llama, text=text, out=tmp_path / "run", length=LENGTH, tokens=LENGTH, progress=False)
    run = run_study(llama, "bos")
    assert set(run.heights()) == {*scanned.manifest.tables, "inputs", "maps"}
    assert "BOS in four places" in run.report().read_text(encoding="utf-8")


def test_a_tokenizer_without_bos_uses_the_runs_start_token(text, tmp_path):
    from monadnock.studying import study

    adapter = Adapter(tiny_model("llama"), word_tokenizer(bos=False), Source("llama", "object"))
    run = study(
        adapter, "bos", prompt=PROMPT, text=text, out=tmp_path / "run", length=LENGTH, tokens=LENGTH, progress=False
    )
    put = run.table("inputs").filter(pl.col("inserted"))
    assert set(put["token_id"]) == {run.manifest.text.start_token_id}
    assert set(put["input"]) == {f"start token {at}" for at in ("at the start", "in the middle", "at the end")}


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("boss", {}, "There is no study 'boss': did you mean bos"),
        ("bos", {"prompt": ""}, "The prompt is empty"),
        ("bos", {"prompt": " \n"}, "The prompt is empty"),
        ("bos", {"prompt": "w1 \udcff"}, "The prompt is not UTF-8 text"),
        ("bos", {"prompt": "w1 " * 400}, "has 401 tokens, a map of attention has at most 256"),
        ("bos", {"bos": False}, "puts BOS in four places itself"),
        ("attention", {"heads": [4]}, "Head 4 was asked, but llama has the heads 0 to 3"),
        ("attention", {"heads": [-1]}, "Head -1 was asked"),
        ("attention", {"layers": [4]}, "Layer 4 was asked, but llama has the layers 0 to 3"),
        ("attention", {"text": "nowhere.txt"}, "nowhere.txt cannot be read"),
    ],
)
def test_refused_requests_leave_nothing(llama, run_study, tmp_path, kind, options, told):
    with pytest.raises(MonadnockError, match=told):
        run_study(llama, kind, **options)
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_model(llama, run_study, text, tmp_path):
    other = Adapter(tiny_model("llama", seed=1), TOKENIZER, Source("another", "object"))
    scan(other, text=text, out=tmp_path / "run", length=LENGTH, tokens=LENGTH, progress=False)
    with pytest.raises(MonadnockError, match="is a run of another, the model is llama"):
        run_study(llama, "bos")
    with torch.no_grad():
        other.weight(1, "down").read().mul_(1.5)
    with pytest.raises(MonadnockError, match="with other weights"):
        run_study(other, "bos")
    assert "inputs" not in Run.open(tmp_path / "run").heights()


@pytest.mark.parametrize(
    ("probes", "told"),
    [
        (["start_token"], "has no table layers from which medians of h are read"),
        (["activations"], "has no table massive_weights from which the massive layer is read"),
        (["activations:query", "start_token"], "has no table layers from which medians of h are read"),
    ],
)
def test_a_run_without_what_a_study_needs(llama, run_study, text, tmp_path, probes, told):
    scan(llama, text=text, out=tmp_path / "run", length=LENGTH, tokens=LENGTH, probes=probes, progress=False)
    with pytest.raises(MonadnockError, match=told):
        run_study(llama, "bos")


def test_a_folder_with_other_files_is_left_alone(llama, run_study, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(MonadnockError, match="holds files that are not a run"):
        run_study(llama, "bos")
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["thesis.txt"]
