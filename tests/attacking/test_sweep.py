"""Attacks on planted models: the right rows, the right numbers, one clean baseline, and going on after a stop."""

import polars as pl
import pytest
import torch

from monadnock.attacking import MODES, attack
from monadnock.attacking.measures import Predictions, TheChain
from monadnock.data import token_windows
from monadnock.evaluation import perplexity
from monadnock.findings import Run
from tests.attacking.conftest import LAYER, LENGTH, ROWS, SIZES, TOKENIZER, assert_unchanged, states

EVERYWHERE = [name for name in MODES if not name.startswith("gain")]


def by_hand(adapter, text, rows, *, retain=False):
    """Return the perplexity with rows written to zero by plain assignment."""
    windows = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=SIZES["tokens"])
    expert = None if adapter.num_experts is None else adapter_expert(adapter)
    views = [adapter.weight(LAYER, role, expert).read() for role in ("up", "gate") if adapter.has(role)]
    bias = adapter.bias(LAYER, "up", expert)
    views += [bias.read()] if bias is not None else []
    old = [view.clone() for view in views]
    chosen = torch.zeros(adapter.intermediate_size, dtype=torch.bool)
    chosen[rows] = True
    with torch.no_grad():
        for view in views:
            view[~chosen if retain else chosen] = 0
        found = perplexity(adapter, windows)
        for view, value in zip(views, old, strict=True):
            view.copy_(value)
    return found


def adapter_expert(adapter):
    from monadnock.models.start import start_states

    return start_states(adapter, TOKENIZER.bos_token_id).experts[LAYER]


def test_planted_rows_are_attacked_with_the_numbers_that_plain_code_gives(patient, text, run_attack):
    before = states(patient)
    run = run_attack(patient, ks=[1, 2])
    assert_unchanged(patient, before)
    effects = run.table("effects").filter(metric="perplexity")
    assert effects["layer"].drop_nulls().unique().to_list() == [LAYER]
    targets = {(mode, k): targets for mode, k, targets in effects.select("mode", "k", "targets").rows()}
    expert = "" if patient.num_experts is None else f" expert {adapter_expert(patient)}"
    assert targets["zero", 2] == targets["retain", 2] == f"layer {LAYER}{expert}: 9 40"
    values = {(mode, k): value for mode, k, value in effects.select("mode", "k", "value").rows()}
    assert values["zero", 1] == pytest.approx(by_hand(patient, text, ROWS[:1]), rel=1e-5)
    assert values["zero", 2] == pytest.approx(by_hand(patient, text, ROWS), rel=1e-5)
    assert values["retain", 2] == pytest.approx(by_hand(patient, text, ROWS, retain=True), rel=1e-5)
    drawn = [int(row) for row in targets["random", 2].partition(": ")[2].split()]
    assert len(set(drawn) - set(ROWS)) == 2
    assert values["random", 2] == pytest.approx(by_hand(patient, text, drawn), rel=1e-5)
    clean = by_hand(patient, text, [])
    assert effects["baseline"].to_list() == pytest.approx([clean] * effects.height)
    assert values["none", 0] == pytest.approx(clean)
    kl = run.table("effects").filter(metric="kl", mode="none")
    assert kl["value"].to_list() == [0.0]


def test_every_mode_runs_with_every_metric_and_gives_the_model_back(llama, run_attack):
    before = states(llama)
    run = run_attack(llama, modes=EVERYWHERE, ks=[1], metrics=["perplexity", "kl", "chain", "generation"])
    assert_unchanged(llama, before)
    effects = run.table("effects")
    names = {"perplexity", "kl", "top1_agreement", "top1_h", "sink_share", "implicit_scaling"}
    for mode in ["none", *EVERYWHERE]:
        assert set(effects.filter(mode=mode)["metric"]) == names
        assert run.table("generations").filter(mode=mode).height == 3
    top = dict(effects.filter(metric="top1_h").select("mode", "value").rows())
    assert top["zero"] < 0.6 * top["none"]
    assert top["activation-zero"] < 0.1 * top["none"]
    assert top["activation-mean"] == pytest.approx(top["none"], rel=1e-4)
    assert top["random"] == pytest.approx(top["none"], rel=0.05)


def test_the_gains_of_a_family_that_has_them(text, tmp_path):
    from monadnock.models import Adapter, Source
    from tests.tiny import tiny_model

    adapter = Adapter(tiny_model("gemma3_text"), TOKENIZER, Source("gemma", "object"))
    before = states(adapter)
    run = attack(
        adapter, modes=["gain", "gain-random"], ks=[2], seeds=2, metrics=["kl"], text=text, out=tmp_path / "r", **SIZES
    )
    assert_unchanged(adapter, before)
    effects = run.table("effects").filter(metric="kl")
    assert effects.select("mode", "seed").rows() == [
        ("gain", None),
        ("gain-random", 0),
        ("gain-random", 1),
        ("none", None),
    ]
    assert effects["layer"].null_count() == 4
    assert effects["targets"][0].startswith("all layers, attn_output and mlp_output: ")


def test_several_layers_are_attacked_together(llama, run_attack):
    run = run_attack(llama, layers=[0, LAYER], modes=["zero"], ks=[2])
    row = run.table("effects").filter(mode="zero", metric="perplexity").row(0, named=True)
    assert row["layer"] is None
    first, second = row["targets"].split("; ")
    assert first.startswith("layer 0: ")
    assert second == f"layer {LAYER}: 9 40"


def test_rows_by_hand(llama, text, run_attack):
    run = run_attack(llama, rows=[3, 4, 5], modes=["zero"], ks=[2])
    row = run.table("effects").filter(mode="zero", metric="perplexity").row(0, named=True)
    assert row["targets"] == f"layer {LAYER}: 3 4"
    assert row["value"] == pytest.approx(by_hand(llama, text, [3, 4]), rel=1e-5)


def test_a_stopped_attack_goes_on_and_ends_with_the_same_numbers(llama, run_attack, tmp_path, monkeypatch):
    options = {"ks": [1, 2], "seeds": 2, "metrics": ["perplexity", "kl", "chain", "generation"]}
    whole = run_attack(llama, out=tmp_path / "whole", **options)
    before, calls, add = states(llama), [], Run.add

    def stops(self, *args):
        if len(calls) == 9:
            raise KeyboardInterrupt
        calls.append(args[1])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        run_attack(llama, **options)
    assert_unchanged(llama, before)
    monkeypatch.setattr(Run, "add", lambda self, *args: calls.append(args[1]) or add(self, *args))
    again = run_attack(llama, **options)
    assert len(calls) == len(set(calls)) == len(list((again.path / "tables").glob("[eg]*/*.parquet")))
    for name in ("effects", "generations"):
        assert again.table(name).equals(whole.table(name))


def test_nothing_is_measured_twice_and_more_can_be_asked(llama, run_attack, monkeypatch):
    run = run_attack(llama, ks=[1], modes=["zero"])
    height = run.table("effects").height
    measured, predict, chain = [], Predictions.run, TheChain.run
    monkeypatch.setattr(
        Predictions, "run", lambda self, c, parts, s: measured.append(list(parts)) or predict(self, c, parts, s)
    )
    monkeypatch.setattr(
        TheChain, "run", lambda self, c, parts, s: measured.append(list(parts)) or chain(self, c, parts, s)
    )
    assert run_attack(llama, ks=[1], modes=["zero"]).table("effects").height == height
    assert measured == []
    more = run_attack(llama, ks=[1, 2], modes=["zero"], metrics=["perplexity", "kl", "chain"])
    assert sorted(measured) == [["chain"]] * 3 + [["perplexity", "kl"]]
    assert set(more.table("effects").filter(pl.col("k") == 2)["metric"]) >= {"perplexity", "kl", "top1_h"}
    assert len(more.manifest.attacks) == 2  # other metrics, noted as they were asked


def test_the_text_is_part_of_what_was_measured(llama, run_attack):
    run_attack(llama, ks=[1], modes=["zero"], metrics=["perplexity"])
    both = run_attack(llama, ks=[1], modes=["zero"], metrics=["perplexity"], seed=1)
    assert both.table("effects")["data"].n_unique() == 2
    assert both.table("effects").height == 4


def test_an_attack_adds_to_a_scan(llama, text, run_attack, tmp_path):
    from monadnock.scanning import scan

    scanned = scan(llama, text=text, out=tmp_path / "run", length=LENGTH, tokens=LENGTH, progress=False)
    run = run_attack(llama, ks=[1])
    assert set(scanned.manifest.tables) < set(run.heights())
    assert run.table("layers").height == scanned.table("layers").height
    assert Run.open(run.path).heights() == run.heights()


def test_unchanged_layers_are_not_run_again(llama, run_attack):
    ran = []
    handle = llama.module(0, "self_attn").register_forward_hook(lambda *_: ran.append(1))
    try:
        run_attack(llama, ks=[1], modes=["zero"], metrics=["perplexity"])
        few = len(ran)
        run_attack(llama, ks=[1, 2, 3, 4], modes=["zero", "retain"], metrics=["perplexity"])
    finally:
        handle.remove()
    assert few > 0
    assert len(ran) - few == 2 + 1  # the clean pass over two windows, and the start token to know the model again


def test_an_attack_on_layer_0_says_so(llama, run_attack):
    run = run_attack(llama, layers=[0], ks=[1], modes=["zero", "activation-zero"], metrics=["perplexity"])
    attacked = run.table("effects").filter(pl.col("mode") != "none")
    assert attacked["layer"].to_list() == [0, 0]


def test_keeping_no_row_is_zeroing_all(llama, text, run_attack):
    run = run_attack(llama, ks=[0, 64], modes=["zero", "retain"], layers=[LAYER], metrics=["perplexity"])
    values = {(mode, k): value for mode, k, value in run.table("effects").select("mode", "k", "value").rows()}
    assert set(values) == {("none", 0), ("zero", 64), ("retain", 0), ("retain", 64)}
    assert values["retain", 0] == pytest.approx(values["zero", 64])
    assert values["retain", 64] == pytest.approx(values["none", 0])


def test_a_mean_over_another_text_is_another_attack(llama, run_attack):
    options = {"modes": ["activation-mean"], "ks": [1], "metrics": ["generation"]}
    run_attack(llama, **options)
    both = run_attack(llama, seed=1, **options)
    assert both.table("generations").filter(mode="activation-mean")["targets"].n_unique() == 2


def test_a_run_of_the_first_schema_version_is_told_apart_once_it_has_attacks(llama, text, run_attack, tmp_path):
    import json

    from monadnock.findings.manifest import SCHEMA_VERSION
    from monadnock.scanning import scan

    run = scan(llama, text=text, out=tmp_path / "run", length=LENGTH, tokens=LENGTH, progress=False)
    manifest = json.loads((run.path / "manifest.json").read_text())
    del manifest["attacks"]
    (run.path / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 1}))
    assert Run.open(run.path).manifest.attacks == []
    run_attack(llama, ks=[1], modes=["zero"], metrics=["perplexity"])
    assert json.loads((run.path / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION


def test_two_writers_keep_each_others_notes(llama, run_attack):
    run = run_attack(llama, ks=[1], modes=["zero"], metrics=["perplexity"])
    one, other = Run.open(run.path), Run.open(run.path)
    facts = run.manifest.attacks[0]
    one.note(facts.model_copy(update={"device": "one"}))
    other.note(facts.model_copy(update={"device": "other"}))
    assert [each.device for each in Run.open(run.path).manifest.attacks] == [facts.device, "one", "other"]
    other.note(facts)
    assert len(Run.open(run.path).manifest.attacks) == 3


def test_tasks_are_measured_again_when_their_file_or_data_change(llama, run_attack, tmp_path):
    import json

    def write(labels, text="{{q}}"):
        lines = [json.dumps({"q": f"w{i} w{i + 1}", "label": label}) for i, label in enumerate(labels)]
        (tmp_path / "mine.jsonl").write_text("\n".join(lines))
        (tmp_path / "mine.yaml").write_text(
            f"task: mine\ndataset_path: json\ndataset_kwargs:\n  data_files: {{test: {tmp_path / 'mine.jsonl'}}}\n"
            f'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "{text}"\ndoc_to_target: label\n'
            'doc_to_choice: ["w5", "w6"]\n'
        )
        run = run_attack(llama, ks=[1], modes=["zero"], metrics=[f"tasks:{tmp_path / 'mine.yaml'}"], limit=6)
        return run.table("effects").filter(metric="acc", mode="none")["value"].to_list()

    (first,) = write([0, 1, 0, 1, 0, 1, 0])
    assert write([0, 1, 0, 1, 0, 1, 0]) == [pytest.approx(first)]
    assert sorted(write([1, 0, 1, 0, 1, 0, 0])) == pytest.approx(sorted([first, 1 - first]))
    assert len(write([1, 0, 1, 0, 1, 0, 0], text="w9 {{q}}")) == 3
