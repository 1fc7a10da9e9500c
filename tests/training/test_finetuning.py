"""Fine-tuning tiny models: what is written, goes on after a stop, is given back, and what is refused."""

import inspect
import json
from dataclasses import asdict

import polars as pl
import pytest
import torch
from peft import PeftModel

from monadnock import MonadnockError
from monadnock.evaluation import perplexity
from monadnock.findings import Run
from monadnock.findings.judged import tuned_names
from monadnock.interventions import zero_rows
from monadnock.models import Adapter, Source
from monadnock.models.tuned import with_adapter
from monadnock.preparing import text_windows
from monadnock.training import MacDropCallback, finetune, finetuning, fitting
from monadnock.training.fitting import Recipe
from monadnock.training.macdrop import aims_of
from tests.scans import assert_untouched, state
from tests.studying.conftest import planted
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer

SMALL = "epochs 2, rate 0.01, batch 3, accumulation 2, rank 4"  # what differs from the usual settings
pytestmark = pytest.mark.usefixtures("one_thread")


def make(model_type="llama"):
    return Adapter(tiny_model(model_type), word_tokenizer(), Source(model_type, "object"))


@pytest.fixture
def data(tmp_path):
    """Write examples whose answer repeats the question: something to learn."""
    words = random_words(60, num_words=8)
    rows = [{"instruction": " ".join(words[n : n + 3]), "output": words[n]} for n in range(0, 57, 3)]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def tune(data, tmp_path):
    def run(adapter, **options):
        how = {"data": data, "out": tmp_path / "run", "batch": 3, "accumulation": 2, "epochs": 2, "rank": 4}
        return finetune(adapter, **{**how, "rate": 0.01, "progress": False, **options})

    return run


@pytest.mark.parametrize(("method", "macdrop"), [("lora", False), ("lora", True), ("dora", True)])
def test_an_adapter_is_trained_saved_and_the_model_given_back(tune, method, macdrop):
    adapter = make()
    before = state(adapter.model)
    grads = [parameter.requires_grad for parameter in adapter.model.parameters()]
    run = tune(adapter, method=method, macdrop=macdrop)
    assert_untouched(adapter.model, before)
    assert [parameter.requires_grad for parameter in adapter.model.parameters()] == grads
    (row,) = run.table("finetunings").to_dicts()
    steps = run.table("finetuning_steps")
    assert row["steps"] == steps.height == 6 and row["examples"] == 18 and row["after"] < row["before"]
    if macdrop:
        assert steps["p"].to_list() == pytest.approx([0.8 * (1 - t / 6) for t in range(1, 7)])
    assert steps["p"].is_null().all() != macdrop
    folder = run.path / row["adapter"]
    assert (folder / "adapter_model.safetensors").is_file() and not list(folder.parent.glob(".*"))
    merged = with_adapter(adapter, folder)
    ids = torch.arange(3, 20)
    assert not torch.equal(merged.forward(ids), adapter.forward(ids))


def test_a_second_start_does_nothing_again_and_another_setting_adds(tune, monkeypatch):
    adapter = make()
    tune(adapter)
    monkeypatch.setattr(fitting, "peft", lambda: pytest.fail("trained again"))
    tune(adapter)
    monkeypatch.undo()
    run = tune(adapter, seed=1)
    assert run.table("finetunings")["name"].to_list() == [f"lora, {SMALL}, seed {seed}" for seed in (0, 1)]


@pytest.mark.parametrize("macdrop", [False, True])
def test_killed_and_started_again_equals_uninterrupted(tune, tmp_path, monkeypatch, macdrop):
    whole = tune(make(), out=tmp_path / "whole", macdrop=macdrop)
    calls = []

    def kill(*_):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    adapter = make()
    before = state(adapter.model)
    with monkeypatch.context() as patched:
        real = fitting.fit

        def stopping(*args):
            return real(*args[:-1], kill)

        patched.setattr("monadnock.training.finetuning.fit", stopping)
        with pytest.raises(KeyboardInterrupt):
            tune(adapter, macdrop=macdrop)
    assert_untouched(adapter.model, before)
    assert Run.open(tmp_path / "run").heights().get("finetunings", 0) == 0
    again = tune(adapter, macdrop=macdrop)
    for name in ("loss", "learning_rate", "step", "p", "dropped"):
        assert again.table("finetuning_steps")[name].to_list() == whole.table("finetuning_steps")[name].to_list()
    assert again.table("finetunings")["after"].to_list() == whole.table("finetunings")["after"].to_list()


def test_zeroed_rows_are_measured_with_the_adapter_merged(tune):
    adapter = planted("llama")
    run = tune(adapter, evaluate=True, zeroed=[2])
    run = tune(adapter, evaluate=True, zeroed=[2], macdrop=True)
    table = run.table("robustness")
    other = tune(adapter, evaluate=True, zeroed=[2], seed=1).table("robustness").filter(seed=1, metric="answer_loss")
    assert not set(other["base"]) & set(table.filter(metric="answer_loss")["base"])  # other examples are held back
    assert table.height == 2 * 3 * 2 and set(table["zeroed"]) == {0, 2}
    assert set(table.select("zeroed", "order").rows()) == {(0, None), (2, "merged"), (2, "base")}
    assert table.group_by("zeroed", "metric").agg(pl.col("base").n_unique())["base"].to_list() == [1] * 4
    (aim,) = aims_of(run, 2)
    merged = with_adapter(adapter, run.path / run.table("finetunings")["adapter"][0])
    windows = text_windows(adapter, tokens=4096, length=adapter.context_length, bos=None)
    with zero_rows(merged, aim.layer, aim.rows):
        expected = perplexity(merged, windows)
    name = run.table("finetunings")["name"][0]
    found = table.filter(name=name, zeroed=2, order="merged", metric="perplexity")["value"]
    assert found.to_list() == [pytest.approx(expected, rel=1e-5)]
    held = table.filter(name=name, zeroed=0, metric="answer_loss")["value"].to_list()
    assert held == [pytest.approx(run.table("finetunings")["after"][0], rel=1e-4)]


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_zeroed_in_the_base_is_what_a_model_gives_whose_adapter_is_not_merged(tune, method):
    adapter = make()
    run = tune(adapter, evaluate=True, zeroed=[2], method=method)
    (row,) = run.table("robustness").filter(order="base", metric="perplexity").to_dicts()
    (aim,) = aims_of(run, 2)
    folder = run.path / run.table("finetunings")["adapter"][0]
    live = PeftModel.from_pretrained(make().model, folder).eval()
    mlp = live.base_model.model.model.layers[aim.layer].mlp
    with torch.no_grad():
        for linear in (mlp.up_proj, mlp.gate_proj):
            linear.base_layer.weight[list(aim.rows)] = 0
        windows = text_windows(adapter, tokens=4096, length=adapter.context_length, bos=None)
        losses = [live(ids[None], labels=ids[None]).loss for ids in windows.ids]
    assert row["value"] == pytest.approx(float(torch.stack(losses).mean().exp()), rel=1e-4)


def test_tasks_that_there_are_not_are_told_before_training(tune, monkeypatch):
    monkeypatch.setattr(fitting, "peft", lambda: pytest.fail("trained"))
    with pytest.raises(MonadnockError, match="no_such_task"):
        tune(make(), evaluate=True, tasks=["no_such_task"])


def test_without_peft_the_extra_is_named_before_anything_slow(tune, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MonadnockError, match=r"pip install -e '\.\[train\]'"):
        tune(make())
    assert not (tmp_path / "run").exists()


def test_experts_have_adapters_too(tune):
    run = tune(make("mixtral"), macdrop=True, epochs=1)
    config = json.loads((run.path / run.table("finetunings")["adapter"][0] / "adapter_config.json").read_text())
    assert any("gate_up_proj" in name for name in config["target_parameters"])


def test_what_differs_is_in_the_name_and_in_the_part(tune, data, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text() + '\n{"instruction": "w1", "output": "w2"}')
    for change in ({}, {"rank": 2}, {"validation": 0.2}, {"length": 64}, {"macdrop": True, "k": 3}, {"data": other}):
        run = tune(make(), epochs=1, **change)
    names = run.table("finetunings")["name"].to_list()
    assert len(names) == 6 and len(set(names)) == 5  # data has a column of its own
    assert any("k 3" in name for name in names) and any("held back 0.2" in name for name in names)
    assert len(dict(tuned_names(run.table("finetunings")))) == 6


def test_a_whole_number_of_epochs_is_the_same_training_however_it_is_written(tune, monkeypatch):
    tune(make(), epochs=1)
    monkeypatch.setattr(fitting, "peft", lambda: pytest.fail("trained again"))
    tune(make(), epochs=1.0)


def test_the_usual_settings_are_those_of_table_6():
    assert asdict(Recipe()) == {
        "dora": False, "epochs": 3, "rate": 1e-4, "batch": 8, "accumulation": 4, "rank": 16, "seed": 0,
    }  # fmt: skip
    usual = {name: each.default for name, each in inspect.signature(finetune).parameters.items()}
    assert usual["length"] == 512 and usual["validation"] == 0.05 and usual["p0"] == 0.8 and usual["k"] == 5
    assert fitting.WARMUP == 0.05


def test_what_is_held_back_is_not_trained_on_and_every_linear_layer_has_an_adapter(tune, data, monkeypatch):
    seen = []
    real = finetuning.fit

    def kept(adapter, trained, recipe, callback, work, held, step):
        rows = {tuple(each["input_ids"]) for each in trained}
        width = [row[mask.bool()].tolist() for each in held for row, mask in zip(each["input_ids"], each["attention_mask"], strict=True)]  # fmt: skip  # noqa: E501
        seen.append(rows.isdisjoint(map(tuple, width)) and len(width) == 1)
        return real(adapter, trained, recipe, callback, work, held, step)

    monkeypatch.setattr(finetuning, "fit", kept)
    distinct = [{"instruction": f"w{n} w{n + 1}", "output": f"w{n}"} for n in range(3, 22)]
    data.write_text("\n".join(map(json.dumps, distinct)))
    run = tune(make(), epochs=1)
    assert seen == [True]
    config = json.loads((run.path / run.table("finetunings")["adapter"][0] / "adapter_config.json").read_text())
    roles = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert set(config["target_modules"]) == roles and config["lora_alpha"] == config["r"] == 4


def test_a_training_that_diverges_is_told_and_not_kept(tune):
    with pytest.raises(MonadnockError, match=r"diverged: the loss .* lower rate"):
        tune(make(), rate=1e30)
    run = tune(make())
    assert run.table("finetunings").height == 1


def test_dora_on_experts_is_refused_and_leaves_the_model(tune):
    adapter = make("mixtral")
    before = state(adapter.model)
    with pytest.raises(MonadnockError, match="no DoRA for the experts"):
        tune(adapter, method="dora")
    assert_untouched(adapter.model, before)


def test_more_rows_than_there_are_known_are_refused(tune):
    with pytest.raises(MonadnockError, match="60 massive rows were asked"):
        tune(make(), macdrop=True, k=60)


def test_the_same_name_with_other_weights_is_refused(tune):
    tune(make())
    adapter = make()
    with torch.no_grad():
        adapter.model.get_input_embeddings().weight[5:] *= -3
    with pytest.raises(MonadnockError, match="sums of its weights"):
        tune(adapter)


@pytest.mark.parametrize("damaged", ["trainer_state.json", "macdrop.json"])
def test_a_checkpoint_that_is_not_whole_is_not_gone_on_from(tune, tmp_path, monkeypatch, damaged):
    whole = tune(make(), out=tmp_path / "whole", macdrop=True)
    real, calls = MacDropCallback.on_step_begin, []

    def killed(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        real(self, *args, **kwargs)

    monkeypatch.setattr(MacDropCallback, "on_step_begin", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(make(), macdrop=True)
    monkeypatch.undo()
    found = (tmp_path / "run").glob("adapters/.*/checkpoint-*")
    last = max(found, key=lambda path: int(path.name[11:])) / damaged
    last.write_text(last.read_text()[:20])
    again = tune(make(), macdrop=True)
    assert again.table("finetuning_steps").equals(whole.table("finetuning_steps"))


def test_a_row_that_is_dropped_whole_is_told_with_dora_and_the_model_given_back(tune, tmp_path):
    adapter = make()
    before = state(adapter.model)
    with pytest.raises(MonadnockError, match="DoRA divides by its norm"):
        tune(adapter, method="dora", macdrop=True, p0=0.99999, schedule="constant")
    assert_untouched(adapter.model, before)
    assert not (tmp_path / "run" / "adapters").exists()
    tune(adapter, method="lora", macdrop=True, p0=0.99999, schedule="constant")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "loro"}, "no method 'loro'.*lora"),
        ({"epochs": 0}, "0 epochs"),
        ({"rank": 0}, "rank 0"),
        ({"seed": -1}, "Seed -1"),
        ({"seed": 2**32}, "Seed 4294967296"),
        ({"macdrop": True, "p0": 1.5}, "p0 = 1.5"),
        ({"macdrop": True, "schedule": "stepp"}, "no schedule 'stepp'"),
        ({"zeroed": [2, 0]}, "0 zeroed rows"),
        ({"method": "dora", "macdrop": True, "p0": 1, "schedule": "epoch-before"}, "drops whole rows"),
        ({"length": 8}, "have an answer within 8 tokens"),
        ({"data": "nothing.jsonl"}, "cannot be read"),
    ],
)
def test_bad_requests_are_told_and_leave_nothing(tune, tmp_path, options, told):
    with pytest.raises(MonadnockError, match=told):
        tune(make(), **options)
    assert not (tmp_path / "run").exists()


def test_one_step_learns_something_and_what_is_too_long_is_counted(tune, data):
    rows = data.read_text().split("\n")
    long = json.dumps({"instruction": " ".join(random_words(40, num_words=8)), "output": "word"})
    data.write_text("\n".join([*rows, long]))
    run = tune(make(), epochs=1, batch=18, accumulation=1, length=24)
    (row,) = run.table("finetunings").to_dicts()
    assert row["steps"] == 1 and row["too_long"] == 1 and row["after"] != row["before"]
    assert run.table("finetuning_steps")["learning_rate"].to_list() == [0.01]
