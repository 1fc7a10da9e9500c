"""The callback in the Trainer of transformers: what each step reads, what is saved, and how a training goes on."""

import gc
import math
import socket
from itertools import pairwise

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import multiprocessing
from transformers import TrainerCallback

from monadnock import scan
from monadnock.attacking.targets import Aim
from monadnock.errors import MonadnockError
from monadnock.training import SCHEDULES, MacDropCallback, Schedule
from monadnock.training.macdrop import bare_adapter
from tests.studying.conftest import TOKENIZER, planted
from tests.tiny import tiny_model
from tests.training.training_data import (
    LAYER,
    ROWS,
    Killed,
    Killer,
    Watcher,
    adapter_weights,
    assert_equal,
    assert_same,
    bits,
    frozen,
    frozen_bits,
    hooks,
    logits_of,
    matrices,
    rank,
    trainer,
    with_adapter,
)
from tests.words import random_words, word_tokenizer, write_words

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
AIMS = [Aim(LAYER, None, ROWS)]


def peft_model(method="lora", dropout=0.0):
    return with_adapter(tiny_model("llama"), method, dropout)


@pytest.fixture(scope="module", autouse=True)
def little_garbage():
    """Every Trainer collects garbage, and need not look through all that was imported before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def model():
    """A LoRA on a tiny Llama, whose own weights have to be as they were afterwards."""
    model = peft_model()
    before = frozen_bits(model)
    yield model
    assert_same(model, before)


@pytest.mark.parametrize("name", SCHEDULES)
def test_history_has_every_step_with_the_probability_of_the_schedule(model, name, tmp_path):
    callback = MacDropCallback(AIMS, schedule=name, p0=0.6, alpha=0.1)
    trainer(tmp_path, model, [callback], num_train_epochs=3, gradient_accumulation_steps=2).train()
    schedule = Schedule(name, 0.6, 0.1)
    expected = [(t, schedule.probability(t, 6, (t - 1) // 2 + 1, 3)) for t in range(1, 7)]
    assert [(t, pytest.approx(p)) for t, p, _ in callback.history] == expected
    count = len(ROWS) * 32
    assert all(abs(share - p) <= 5 * math.sqrt(p * (1 - p) / count) + 1 / count for _, p, share in callback.history)
    assert callback.aims == AIMS
    assert hooks(model) == 0


def test_the_epoch_is_that_of_the_step_where_accumulation_does_not_divide_it(model, tmp_path):
    """16 examples in batches of 3 and steps of 4: each epoch has a step of four batches and one of two."""
    callback = MacDropCallback(AIMS, schedule="epoch-after", p0=0.6)
    options = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4, "num_train_epochs": 3}
    trainer(tmp_path, model, [callback], **options).train()
    assert [p for _, p, _ in callback.history] == pytest.approx([0.4, 0.4, 0.2, 0.2, 0, 0])


def test_epochs_that_end_early_still_count(model, tmp_path):
    class Stopper(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_epoch_stop = state.global_step % 2 == 0

    callback = MacDropCallback(AIMS, schedule="epoch-before", p0=0.6)
    trainer(tmp_path, model, [callback, Stopper()], num_train_epochs=3).train()
    assert [p for _, p, _ in callback.history] == pytest.approx([0.6, 0.6, 0.4, 0.4, 0.2, 0.2])


def test_a_mask_holds_for_all_micro_batches_of_a_step_and_evaluation_sees_none(model, tmp_path):
    callback, watcher = MacDropCallback(AIMS, schedule="constant", p0=0.5), Watcher()
    own = {role: part.clone() for role, part in matrices(bare_adapter(model, None)).items()}
    options = {"num_train_epochs": 2, "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 1}
    trainer(tmp_path, model, [callback, watcher], **options).train()
    training = [seen for seen in watcher.seen if seen[1]]
    evaluation = [seen for seen in watcher.seen if not seen[1]]
    assert [step for step, *_ in training] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert {step for step, *_ in evaluation} == {1, 2, 3, 4}
    assert all(torch.equal(up, own["up"]) and torch.equal(gate, own["gate"]) for *_, up, gate in evaluation)
    for (_, _, up, gate), (_, _, again, _) in zip(training[::2], training[1::2], strict=True):
        assert torch.equal(up, again)
        assert torch.equal(up == 0, gate == 0)
        assert int((up == 0).sum()) == int((up[list(ROWS)] == 0).sum())
    shares = [float((up[list(ROWS)] == 0).float().mean()) for _, _, up, _ in training[::2]]
    assert shares == pytest.approx([share for *_, share in callback.history])
    masks = [up == 0 for _, _, up, _ in training[::2]]
    assert all(not torch.equal(*pair) for pair in pairwise(masks))


class Algorithm1(TrainerCallback):
    """Writes masks into the weights at the beginning of a step and takes them back at its end, as oh2024 does."""

    def __init__(self, masks):
        self.masks = masks

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        weights = matrices(bare_adapter(model, None)).values()
        self.before = [(weight, weight.clone()) for weight in weights]
        for weight, _ in self.before:
            weight.masked_fill_(self.masks[state.global_step], 0)

    def on_step_end(self, args, state, control, **kwargs):
        for weight, own in self.before:
            weight.copy_(own)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_training_is_algorithm_1_of_the_paper_bit_for_bit(method, tmp_path):
    options = {"num_train_epochs": 2, "gradient_accumulation_steps": 2}
    first, second, third = (peft_model(method, dropout=0.1) for _ in range(3))
    watcher = Watcher()
    trainer(tmp_path, first, [MacDropCallback(AIMS), watcher], **options).train()
    masks = [up == 0 for _, _, up, _ in watcher.seen[::2]]
    trainer(tmp_path, second, [Algorithm1(masks)], **options).train()
    assert_equal(adapter_weights(first), adapter_weights(second))
    trainer(tmp_path, third, [], **options).train()
    assert any(
        not torch.equal(*pair)
        for pair in zip(adapter_weights(first).values(), adapter_weights(third).values(), strict=True)
    )


def test_training_with_p0_of_0_is_training_without(tmp_path):
    first, second = peft_model(dropout=0.1), peft_model(dropout=0.1)
    trainer(tmp_path, first, [MacDropCallback(AIMS, p0=0)]).train()
    trainer(tmp_path, second, []).train()
    assert_equal(adapter_weights(first), adapter_weights(second))


def test_the_seed_decides_the_masks(tmp_path):
    found = []
    for seed in (0, 1, 0):
        watcher = Watcher()
        callback = MacDropCallback(AIMS, schedule="constant", seed=seed)
        trainer(tmp_path, peft_model(), [callback, watcher], max_steps=2).train()
        found.append([up == 0 for _, _, up, _ in watcher.seen])
    assert all(map(torch.equal, found[0], found[2]))
    assert not any(map(torch.equal, found[0], found[1]))


@pytest.mark.parametrize("seed", [-1, 2**40])
def test_any_seed_will_do(model, seed, tmp_path):
    callback = MacDropCallback(AIMS, seed=seed)
    trainer(tmp_path, model, [callback], max_steps=2).train()
    assert len(callback.history) == 2


# saving and resuming


def test_a_checkpoint_holds_the_adapter_only_and_reloads_equal(model, tmp_path):
    trainer(tmp_path, model, [MacDropCallback(AIMS)], save_strategy="steps", save_steps=4).train()
    folder = tmp_path / "checkpoint-4"
    assert [file.name for file in folder.glob("*.safetensors")] == ["adapter_model.safetensors"]
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    reloaded = PeftModel.from_pretrained(frozen("llama").model, folder)
    assert torch.equal(logits_of(reloaded.eval()), logits_of(model.eval()))


@pytest.mark.parametrize("schedule", ["step", "epoch-before"])
def test_killed_and_resumed_is_what_uninterrupted_would_have_been(schedule, tmp_path):
    options = {
        "num_train_epochs": 3,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 3,
        "per_device_train_batch_size": 2,
    }

    def start(folder, *others):
        callback, model = MacDropCallback(AIMS, schedule=schedule, seed=7), peft_model(dropout=0.1)
        return callback, model, trainer(tmp_path / folder, model, [callback, *others], **options)

    whole, expected, uninterrupted = start("whole")
    uninterrupted.train()
    _, killed, first = start("killed", Killer(6))
    before = frozen_bits(killed)
    with pytest.raises(Killed):
        first.train()
    assert_same(killed, before)
    callback, model, second = start("killed")
    second.train(resume_from_checkpoint=True)
    assert len(whole.history) == 12
    assert callback.history == whole.history[3:]
    assert_equal(adapter_weights(model), adapter_weights(expected))


def test_the_same_trainer_goes_on_after_an_exception(model, tmp_path):
    """The callback forgets the steps after the checkpoint, and has no hook twice."""
    callback, killer = MacDropCallback(AIMS), Killer(4)
    both = trainer(tmp_path, model, [callback, killer], save_strategy="steps", save_steps=2)
    with pytest.raises(Killed):
        both.train()
    killer.step = 0
    both.train(resume_from_checkpoint=True)
    assert [step for step, *_ in callback.history] == [1, 2, 3, 4]
    assert hooks(model) == 0


def test_an_exception_inside_a_step_leaves_the_weights_and_remove_takes_the_hooks(model, tmp_path):
    class Breaker(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            down = bare_adapter(model, None).layers[LAYER].mlp.down_proj
            self.handle = down.register_forward_pre_hook(self.fail)

        def fail(self, *_):
            self.handle.remove()
            raise Killed

    before, callback = bits(model), MacDropCallback(AIMS, schedule="constant")
    with pytest.raises(Killed):
        trainer(tmp_path, model, [callback, Breaker()]).train()
    assert_same(model, before)
    assert hooks(model) > 0
    expected = logits_of(peft_model().train())
    assert not torch.equal(logits_of(model.train()), expected)
    callback.remove()
    callback.remove()
    assert hooks(model) == 0
    assert torch.equal(logits_of(model), expected)


def test_a_callback_may_serve_a_second_training(model, tmp_path):
    callback = MacDropCallback(AIMS)
    for _ in range(2):
        trainer(tmp_path, model, [callback], max_steps=2).train()
        assert [step for step, *_ in callback.history] == [1, 2]


# what is masked


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mixtral"])
def test_auto_finds_planted_rows_and_a_run_of_scan_names_the_same(model_type, tmp_path):
    adapter = planted(model_type)
    text = write_words(tmp_path, random_words(300))
    run = scan(adapter, text=text, out=tmp_path / "run", length=24, tokens=72)
    aims = []
    for targets in ("auto", run, run.path, str(run.path)):
        callback = MacDropCallback(targets, k=2)
        model = with_adapter(adapter.model)
        before = frozen_bits(model)
        trainer(tmp_path, model, [callback], tokenizer=TOKENIZER, max_steps=1).train()
        assert_same(model, before)
        adapter.model = model.unload()
        aims.append(callback.aims)
    assert aims == [aims[0]] * 4
    assert [(aim.layer, aim.rows) for aim in aims[0]] == [(1, (9, 40))]
    assert (aims[0][0].expert is None) == (model_type != "mixtral")


def test_auto_and_a_run_name_the_same_rows_for_every_k(tmp_path):
    adapter = planted("llama")
    text = write_words(tmp_path, random_words(300))
    run = scan(adapter, text=text, out=tmp_path / "run", length=24, tokens=72)
    model = with_adapter(adapter.model)
    for k in (1, 5):
        auto = MacDropCallback("auto", k=k)
        trainer(tmp_path, model, [auto], tokenizer=TOKENIZER, max_steps=1).train()
        assert auto.aims == MacDropCallback(run, k=k).aims
        assert len(auto.aims[0].rows) == k


def test_auto_leaves_the_mode_of_every_module_and_the_adapter_as_they_were(tmp_path):
    model = with_adapter(planted("llama").model)
    modes, before = [module.training for module in model.train().modules()], bits(model)
    callback = MacDropCallback("auto")
    built = trainer(tmp_path, model, [], tokenizer=TOKENIZER)
    callback.on_train_begin(built.args, built.state, built.control, model=model, processing_class=TOKENIZER)
    assert [module.training for module in model.modules()] == modes
    callback.remove()
    assert_same(model, before)
    assert hooks(model) == 0
    assert model.active_adapters == ["default"]


def test_auto_is_asked_anew_for_another_model(tmp_path):
    callback = MacDropCallback("auto", k=2)
    trainer(tmp_path, with_adapter(tiny_model("llama")), [callback], tokenizer=TOKENIZER, max_steps=1).train()
    trainer(tmp_path, with_adapter(planted("llama").model), [callback], tokenizer=TOKENIZER, max_steps=1).train()
    assert callback.aims == [Aim(1, None, (9, 40))]


def test_the_config_names_the_start_token_where_no_tokenizer_does(tmp_path):
    callback = MacDropCallback("auto", k=2)
    trainer(tmp_path, with_adapter(planted("llama").model), [callback], max_steps=1).train()
    assert callback.aims == [Aim(1, None, (9, 40))]


def test_no_start_token_is_told(model, tmp_path):
    bare_adapter(model, None).config.bos_token_id = None
    with pytest.raises(MonadnockError, match=r"No start token is known.*give rows, or a run of `monadnock scan`"):
        trainer(tmp_path, model, [MacDropCallback("auto")], tokenizer=word_tokenizer(bos=False)).train()
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ([Aim(3, None, (0,))], "Layer 3 was asked"),
        ([Aim(0, None, (48,))], "Row 48 was asked"),
        ([Aim(0, None, ())], "[Nn]o row"),
        ([Aim(0, None, (1,)), Aim(0, None, (2,))], "asked twice"),
    ],
)
def test_targets_that_the_model_does_not_have_are_told_when_training_begins(model, targets, told, tmp_path):
    with pytest.raises(MonadnockError, match=told):
        trainer(tmp_path, model, [MacDropCallback(targets)]).train()
    assert hooks(model) == 0


def test_a_folder_that_is_no_run_is_told_at_once(tmp_path):
    for path in (tmp_path, str(tmp_path), tmp_path / "none"):
        with pytest.raises(MonadnockError, match="is not a run"):
            MacDropCallback(path)


def test_full_fine_tuning_is_refused(tmp_path):
    model = tiny_model("llama")
    with pytest.raises(MonadnockError, match=r"trained itself.*train adapters \(LoRA, DoRA\), or freeze it"):
        trainer(tmp_path, model, [MacDropCallback(AIMS)]).train()
    assert hooks(model) == 0


def test_a_frozen_layer_may_be_masked_while_others_are_trained(tmp_path):
    """Adapters are not the only way to leave the massive weights alone."""
    model = tiny_model("llama")
    for name in ("up_proj", "gate_proj"):
        getattr(model.model.layers[LAYER].mlp, name).requires_grad_(False)
    callback = MacDropCallback(AIMS)
    trainer(tmp_path, model, [callback], max_steps=2, learning_rate=1e-4).train()
    assert len(callback.history) == 2


def test_several_gpus_in_one_process_are_refused(model, tmp_path):
    built = trainer(tmp_path, model, [])
    built.args._n_gpu = 2
    with pytest.raises(MonadnockError, match="2 GPUs in one process"):
        MacDropCallback(AIMS).on_train_begin(built.args, built.state, built.control, model=model)


# other ways to train


def test_bf16_autocast(model, tmp_path):
    callback, watcher, before = MacDropCallback(AIMS, schedule="constant", p0=0.5), Watcher(), adapter_weights(model)
    trainer(tmp_path, model, [callback, watcher], bf16=True, max_steps=2).train()
    masks = [up == 0 for _, _, up, _ in watcher.seen]
    assert [bool(mask[list(ROWS)].any()) for mask in masks] == [True, True]
    assert not torch.equal(*masks)
    after = adapter_weights(model)
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(after[name], before[name]) for name in before)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_in_the_trainer_trains_the_same(reentrant, tmp_path):
    found = []
    checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    for options in ({}, checkpointing):
        model = peft_model()
        if options:
            model.enable_input_require_grads()
        trainer(tmp_path, model, [MacDropCallback(AIMS)], **options).train()
        found.append(adapter_weights(model))
    assert_equal(*found)


def test_both_processes_of_ddp_draw_the_same_masks(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(rank, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{index}.pt") for index in (0, 1))
    assert first["history"] == second["history"]
    assert [step for step, *_ in first["history"]] == [1, 2]
    assert len(first["masks"]) == len(second["masks"]) == 2
    assert all(map(torch.equal, first["masks"], second["masks"]))
    assert first["masks"][0].any()
    assert_equal(first["weights"], second["weights"])
