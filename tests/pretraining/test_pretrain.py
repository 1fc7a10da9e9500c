"""Pretraining tiny models: what is written, goes on exactly after a stop, can be used as any model, and is refused."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from monadnock import MonadnockError, attack, compress, load, scan
from monadnock.findings import Run
from monadnock.pretraining import pretrain, read_recipe, training
from monadnock.pretraining.data import read_data
from monadnock.pretraining.tokenizers import trained_tokenizer
from monadnock.pretraining.training import make_model
from monadnock.training.tokens import answer_loss
from tests.pretraining.conftest import SMALL
from tests.words import random_words

pytestmark = pytest.mark.usefixtures("one_thread")
NO_DROPOUT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
TIMES = ("steps_per_second", "watching")


def weights(run, name="gpt2-default-seed-0"):
    return load_file(run.path / "models" / name / "model.safetensors")


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_trainings_of_a_recipe_are_rows_of_one_run(recipe, tmp_path, architecture):
    path = recipe(architecture=architecture)
    for variant in ("default", "attention_bias"):
        run = pretrain(path, variant=variant, out=tmp_path / "run", progress=False)
    rows = run.table("pretrainings").sort("variant", descending=True).to_dicts()
    assert [row["variant"] for row in rows] == ["default", "attention_bias"]
    assert [row["added"] for row in rows] == [0, 2 * 2 * 2 * 8]
    assert rows[1]["parameters"] - rows[0]["parameters"] == rows[1]["added"]
    looks = run.table("training_outliers")
    assert looks["step"].unique().sort().to_list() == [0, 5, 10, 12] and looks["name"].n_unique() == 2
    assert run.table("training_steps").height == 2 * 12
    data = read_data(read_recipe(path), 0, tmp_path / "tokens")
    for row in rows:
        adapter = load(str(run.path / row["model"]))
        loss = answer_loss(adapter.model, data.batches(8, 4))
        assert row["loss"] == pytest.approx(loss, rel=1e-6) and row["perplexity"] == pytest.approx(
            np.exp(loss), rel=1e-6
        )
        assert row["pruned"] != row["perplexity"] != row["absmax"]
    begun = make_model(read_recipe(path), "default", data, 0)
    assert rows[0]["loss"] < answer_loss(begun.model.eval(), data.batches(8, 4))


def test_what_the_run_has_is_not_trained_again_and_the_random_state_is_kept(recipe, tmp_path, monkeypatch):
    path = recipe()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    run = pretrain(path, out=tmp_path / "run", progress=False)
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    monkeypatch.setattr("monadnock.pretraining.running.train", None)
    assert pretrain(path, out=tmp_path / "run", progress=False).table("pretrainings").equals(run.table("pretrainings"))


@pytest.mark.parametrize("variant", ["default", "gate"])
def test_killed_and_started_again_equals_uninterrupted_bit_for_bit(recipe, tmp_path, monkeypatch, variant):
    path = recipe()
    whole = pretrain(path, variant=variant, out=tmp_path / "whole", progress=False)
    from monadnock.pretraining import training

    real, calls = training.train, []

    def killed():
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("monadnock.pretraining.running.train", lambda *args: real(*args[:-2], killed, args[-1]))
        with pytest.raises(KeyboardInterrupt):
            pretrain(path, variant=variant, out=tmp_path / "run", progress=False)
    assert "pretrainings" not in Run.open(tmp_path / "run").heights()
    again = pretrain(path, variant=variant, out=tmp_path / "run", progress=False)
    for name in ("training_outliers", "training_steps"):
        assert again.table(name).equals(whole.table(name), null_equal=True)
    assert again.table("pretrainings").drop(TIMES).equals(whole.table("pretrainings").drop(TIMES))
    one, two = (weights(run, f"gpt2-{variant}-seed-0") for run in (again, whole))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not list((tmp_path / "run" / "models").glob(".*"))


def test_seeds_differ_and_share_what_is_held_back(recipe, tmp_path):
    path = recipe()
    for seed in (0, 1):
        run = pretrain(path, seed=seed, out=tmp_path / "run", progress=False)
    one, two = (weights(run, f"gpt2-default-seed-{seed}") for seed in (0, 1))
    assert not all(torch.equal(one[name], two[name]) for name in one)
    datas = [read_data(read_recipe(path), seed, tmp_path) for seed in (0, 1)]
    held = [data.batches(8, 8)[0]["input_ids"] for data in datas]
    assert torch.equal(*held)
    trained = [torch.stack([data.train[place]["input_ids"] for place in range(48)]) for data in datas]
    assert not torch.equal(*trained)


def test_a_silent_layer_stays_silent(recipe, tmp_path):
    run = pretrain(recipe(silent=[0]), out=tmp_path / "run", progress=False)
    found = weights(run)
    assert (
        found["transformer.h.0.attn.c_proj.weight"].abs().max()
        == 0
        == found["transformer.h.0.attn.c_proj.bias"].abs().max()
    )
    assert found["transformer.h.1.attn.c_proj.weight"].abs().max() > 0


def test_a_trained_model_is_scanned_attacked_and_compressed_like_any_other(recipe, tmp_path):
    run = pretrain(recipe(architecture="llama"), variant="context_scale", out=tmp_path / "run", progress=False)
    folder = run.path / "models" / "llama-context_scale-seed-0"
    source = {"text": folder / "text.txt", "length": 16, "progress": False}
    scanned = scan(folder, out=tmp_path / "scan", tokens=64, **source)
    assert (
        scanned.manifest.model.family == "monadnock_llama"
        and scanned.table("scaling")["kind"].str.contains("gate").all()
    )
    attacked = attack(
        folder, out=tmp_path / "scan", modes=["zero"], ks=[1], metrics=["perplexity"], tokens=64, **source
    )
    assert attacked.table("effects").height
    assert compress(folder, out=tmp_path / "scan", windows=2, **source).table("compressions").height


def test_text_is_cut_tokenised_once_and_learned(recipe, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 300)
    path = recipe(data={"text": [str(text)], "vocabulary": 300, "length": 16, "bos": True}, steps=20)
    run = pretrain(path, out=tmp_path / "run", progress=False)
    (row,) = run.table("pretrainings").to_dicts()
    assert row["data"].startswith("text.txt, ") and row["loss"] < 4
    text.write_text("the cat sat on the mat. " * 9000)
    other = pretrain(recipe("other"), data=[text], out=tmp_path / "other", steps=2, progress=False)
    assert other.table("pretrainings")["data"][0].startswith("text.txt")


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({}, {"variant": "sigmoit"}, "did you mean sigmoid"),
        ({}, {"seed": -1}, "Seed -1"),
        ({}, {"device": "tpu"}, "Device 'tpu'"),
        ({}, {"data": ["nowhere.txt"]}, "nowhere.txt cannot be read"),
        ({"model": {"n_embd": 10, "n_head": 3}}, {}, "make no gpt2 model"),
        ({"model": {"vocab_size": 5}}, {}, "vocab_size, which comes from its data"),
        ({"model": {"n_positions": 4}}, {}, "n_positions, which comes from its data"),
        ({"model": {"n_embdd": 16}}, {}, "n_embdd, which a gpt2 model has not: did you mean n_embd"),
        ({}, {"architecture": "llama"}, "which a llama model has not"),
        ({"model": {"attention_variant": "gate"}}, {}, "attention_variant, which a gpt2 model has not"),
        ({"betas": [0.9, 2]}, {}, "betas"),
        ({"model": {"hidden_size": 10, "num_attention_heads": 3}, "architecture": "llama"}, {}, "make no llama model"),
        ({"model": SMALL["llama"] | {"num_key_value_heads": 3}, "architecture": "llama"}, {}, "make no llama model"),
        ({"model": SMALL["gpt2"] | {"n_layer": 0}}, {}, "make no gpt2 model"),
        ({"model": SMALL["llama"] | {"num_hidden_layers": 0}, "architecture": "llama"}, {}, "make no llama model"),
        ({"model": SMALL["llama"] | {"attention_dropout": 1.5}, "architecture": "llama"}, {}, "make no llama model"),
        ({}, {"device": "cuda"}, "'cuda' was asked, and there is none"),
        ({"silent": [5]}, {}, "Layer 5 was to be silent"),
        ({"data": {"text": []}}, {}, "one of the two"),
        ({"data": {"task": "backcopy", "tokens": 5, "triggers": 5}}, {}, "more tokens than triggers"),
    ],
)
def test_bad_requests_are_told_and_leave_nothing(recipe, tmp_path, changes, options, says):
    with pytest.raises(MonadnockError, match=says):
        pretrain(recipe(**changes), out=tmp_path / "run", progress=False, **options)
    assert not (tmp_path / "run").exists()


def test_empty_and_too_small_data_is_told(recipe, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "small.txt").write_text("a few words")
    for name in ("empty", "small"):
        with pytest.raises(MonadnockError, match=r"has \d+ of \d+ tokens, too few for a window of 16"):
            pretrain(recipe(), data=[tmp_path / f"{name}.txt"], out=tmp_path / "run", progress=False)
    assert not (tmp_path / ".monadnock-tokens").exists()


def test_another_recipe_or_a_checkpoint_of_another_variant_is_refused(recipe, tmp_path, monkeypatch):
    run = pretrain(recipe(), out=tmp_path / "run", progress=False)
    with pytest.raises(
        MonadnockError,
        match=r"of tiny .* something else \(steps 9, there 12; rate 0\.02, there 0\.01\); give another",
    ):
        pretrain(recipe(rate=0.02, steps=9, about="described otherwise"), out=tmp_path / "run", progress=False)
    monkeypatch.setattr("monadnock.pretraining.running.train", None)
    pretrain(recipe(about="described otherwise"), out=tmp_path / "run", progress=False)  # the same training
    pretrain(recipe("other"), out=tmp_path / "run", progress=False)  # whatever its file is called
    assert read_recipe(tmp_path / "run" / "recipe.yaml") == read_recipe(recipe())  # the run's own can be read again
    config = run.path / "models" / "gpt2-default-seed-0" / "config.json"
    config.write_text(
        config.read_text().replace('"attention_variant": "default"', '"attention_variant": "learned_sink"')
    )
    with pytest.raises(MonadnockError, match="variant"):
        load(str(config.parent))


@pytest.mark.parametrize(
    ("trained", "told"), [("gate", "default"), ("sigmoid", "default"), ("context_bias", "attention_bias")]
)
def test_a_checkpoint_of_another_variant_is_refused_whichever_way(recipe, tmp_path, trained, told):
    run = pretrain(recipe(steps=1), variant=trained, out=tmp_path / "run", progress=False)
    config = run.path / "models" / f"gpt2-{trained}-seed-0" / "config.json"
    config.write_text(config.read_text().replace(f'"attention_variant": "{trained}"', f'"attention_variant": "{told}"'))
    with pytest.raises(MonadnockError, match="variant"):
        load(str(config.parent))


def test_a_loss_that_is_no_number_is_told(recipe, tmp_path):
    with pytest.raises(MonadnockError, match="The training diverged"):
        pretrain(recipe(rate=1e30, clip=1e30), out=tmp_path / "run", progress=False)
    run = Run.open(tmp_path / "run")
    assert "pretrainings" not in run.heights() and run.table("training_steps").height  # its curves stay
    assert not list((run.path / "models").iterdir())


def test_a_last_step_that_diverges_is_told_too(recipe, tmp_path):
    with pytest.raises(MonadnockError, match=r"the loss held back is NaN or infinite.*another rate needs another"):
        pretrain(recipe(rate=1e30, clip=1e30, steps=1, warmup=0), out=tmp_path / "run", progress=False)


def test_trainings_of_other_dtype_are_not_beside_each_other(recipe, tmp_path, monkeypatch):
    run = pretrain(recipe(), out=tmp_path / "run", progress=False)
    assert run.table("pretrainings").select("sequences", "dtype").row(0) == (4, "float32")
    monkeypatch.setattr("monadnock.pretraining.running.precision", lambda *_: "bfloat16")
    with pytest.raises(MonadnockError, match=r"something else .of another dtype or number of processes.; give another"):
        pretrain(recipe(), out=tmp_path / "run", progress=False)


def test_a_tokenizer_that_changed_under_its_name_gives_other_tokens(recipe, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(random_words(2000)))
    data = {"text": [str(text)], "tokenizer": str(tmp_path / "tok"), "length": 16}
    read = []
    for beginning in ("the cat sat on the mat. " * 50, " ".join(random_words(500))):
        trained_tokenizer([beginning], 300).save_pretrained(tmp_path / "tok")
        read.append(read_data(read_recipe(recipe(data=data)), 0, tmp_path / "tokens"))
    assert read[0].label != read[1].label
    for each in read:
        assert text.read_text().startswith(each.tokenizer.decode(each.train[0]["input_ids"]))


def test_a_disk_that_is_full_is_told(recipe, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 305984 vs 305876")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(MonadnockError, match=r"checkpoint could not be written to .*make room, and the same"):
            pretrain(recipe(), out=tmp_path / "run", progress=False)
    assert pretrain(recipe(), out=tmp_path / "run", progress=False).table("pretrainings").height == 1


def test_a_stopped_training_is_told_as_one(recipe, tmp_path, monkeypatch):
    pretrain(recipe(), out=tmp_path / "run", progress=False)
    calls = []

    def killed():
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        "monadnock.pretraining.running.train", lambda *args: training.train(*args[:-2], killed, args[-1])
    )
    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe(), variant="gate", out=tmp_path / "run", progress=False)
    assert "gpt2 gate, seed 0 (at step 5 of 12)" in str(Run.open(tmp_path / "run").summary())


def test_two_processes_train_as_one_with_a_batch_twice_as_large(recipe, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(" ".join(random_words(4000)))
    data = {"text": [str(text)], "vocabulary": 300, "length": 16}
    one = pretrain(recipe(data=data, model=NO_DROPOUT, batch=4), out=tmp_path / "one", device="cpu", progress=False)
    path = recipe("two", data=data, model=NO_DROPOUT, batch=2)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "monadnock",
    ]
    told = ["pretrain", "--recipe", str(path), "--out", "two", "--device", "cpu"]
    ended = subprocess.run([*command, *told], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Report:") == 1
    run = Run.open(tmp_path / "two")
    assert run.table("training_outliers").height == one.table("training_outliers").height == 8
    losses = [each.table("training_steps")["loss"].to_list() for each in (one, run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0][-1] < losses[0][0] - 0.1
    measured = [each.table("pretrainings")["loss"][0] for each in (one, run)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)


def test_every_setting_reaches_the_trainer(recipe, tmp_path, monkeypatch):
    seen = {}
    real = transformers.TrainingArguments

    def kept(*args, **given):
        seen.update(given)
        return real(*args, **given)

    monkeypatch.setattr(transformers, "TrainingArguments", kept)
    settings = {"accumulation": 2, "weight_decay": 0.3, "betas": [0.5, 0.6], "floor": 0.25, "clip": 0.7, "warmup": 3}
    pretrain(recipe(**settings, dtype="bfloat16"), seed=5, out=tmp_path / "run", progress=False)
    wanted = {"max_steps": 12, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
              "learning_rate": 0.01, "weight_decay": 0.3, "adam_beta1": 0.5, "adam_beta2": 0.6, "max_grad_norm": 0.7,
              "warmup_steps": 3, "lr_scheduler_kwargs": {"min_lr_rate": 0.25}, "bf16": True, "torch_compile": False,
              "seed": 5}  # fmt: skip
    assert {name: seen[name] for name in wanted} == wanted
    rates = Run.open(tmp_path / "run").table("training_steps")["learning_rate"].to_list()
    assert max(rates) == pytest.approx(0.01) and rates[-1] < 0.01 * 0.35


def test_rounding_and_pruning_are_what_they_are_called(recipe, tmp_path):
    path = recipe(architecture="llama", steps=30)
    run = pretrain(path, out=tmp_path / "run", progress=False)
    (row,) = run.table("pretrainings").to_dicts()
    batches = read_data(read_recipe(path), 0, tmp_path).batches(8, 4)
    for name in ("absmax", "pruned"):
        model = load(str(run.path / row["model"])).model
        for module in model.model.layers.modules():
            if isinstance(module, torch.nn.Linear):
                weight = module.weight.data
                if name == "absmax":
                    scale = weight.abs().max() / 127
                    weight.copy_((weight / scale).round() * scale)
                else:
                    weight[weight.abs() <= weight.abs().flatten().kthvalue(weight.numel() // 2).values] = 0
        assert row[name] == pytest.approx(np.exp(answer_loss(model, batches)), rel=1e-5)


def test_a_changed_recipe_or_text_is_no_reason_to_go_on(recipe, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 300)
    data = {"text": [str(text)], "vocabulary": 300, "length": 16}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("monadnock.pretraining.running.train", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain(recipe(data=data), out=tmp_path / "run", progress=False)
    with pytest.raises(MonadnockError, match="something else"):
        pretrain(recipe(data=data, rate=0.05), out=tmp_path / "run", progress=False)
    text.write_text("the dog sat on the mat. " * 300)
    with pytest.raises(MonadnockError, match="something else \\(what was read "):
        pretrain(recipe(data=data), out=tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    "damaged", ["trainer_state.json", "outliers.json", "model.safetensors", "optimizer.pt", "rng_state.pth"]
)
def test_a_checkpoint_that_is_not_whole_is_not_gone_on_from(recipe, tmp_path, monkeypatch, damaged):
    path = recipe()
    whole = pretrain(path, out=tmp_path / "whole", progress=False)
    calls = []

    def killed():
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(
            "monadnock.pretraining.running.train", lambda *args: training.train(*args[:-2], killed, args[-1])
        )
        with pytest.raises(KeyboardInterrupt):
            pretrain(path, out=tmp_path / "run", progress=False)
    last = max((tmp_path / "run" / "models").glob(".*/checkpoint-*"), key=lambda path: int(path.name[11:])) / damaged
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    again = pretrain(path, out=tmp_path / "run", progress=False)
    assert again.table("training_outliers").equals(whole.table("training_outliers"), null_equal=True)


def test_keys_of_a_variant_can_be_masked_and_perplexity_is_measured(recipe, tmp_path):
    run = pretrain(recipe(), variant="attention_bias", out=tmp_path / "run", progress=False)
    folder = run.path / "models" / "gpt2-attention_bias-seed-0"
    how = {"text": folder / "text.txt", "length": 16, "tokens": 64, "progress": False, "out": tmp_path / "scan"}
    effects = attack(folder, modes=["mask"], ks=[1], metrics=["perplexity"], **how).table("effects")
    (row,) = effects.filter(mode="mask", metric="perplexity").to_dicts()
    assert row["value"] != row["baseline"]
