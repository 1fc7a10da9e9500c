"""OutlierMonitor in a Trainer of somebody else's: what it writes, logs, keeps in checkpoints, and refuses."""

import os
import socket
from datetime import timedelta

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import multiprocessing
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments, default_data_collator

from monadnock import MonadnockError
from monadnock.findings import Run
from monadnock.pretraining import OutlierMonitor, watch
from tests.tiny import tiny_model

ROWS = [
    {"input_ids": ids, "labels": ids}
    for ids in torch.randint(3, 100, (24, 16), generator=torch.Generator().manual_seed(4))
]
WINDOWS = torch.stack([row["input_ids"] for row in ROWS[:2]])
pytestmark = pytest.mark.usefixtures("one_thread")


class Tracker(TrainerCallback):
    """Keeps what a tracker would be sent."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs or {}))


def trainer(folder, monitor, steps=6, seed=0, **settings):
    torch.manual_seed(1)
    model = tiny_model("llama", num_hidden_layers=2, attention_dropout=0.1)  # a look must not move the random state
    arguments = TrainingArguments(
        str(folder / "work"), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.01, logging_steps=1,
        save_steps=3, report_to=[], disable_tqdm=True, use_cpu=True, seed=seed, remove_unused_columns=False, **settings,
    )  # fmt: skip
    made = Trainer(model=model, args=arguments, train_dataset=ROWS, data_collator=default_data_collator)
    tracker = Tracker()
    made.add_callback(tracker)
    monitor.attach(made)
    return made, tracker


def test_it_writes_what_watch_sees_and_logs_it(tmp_path):
    monitor = OutlierMonitor(every=2, out=tmp_path / "run", name="mine")
    made, tracker = trainer(tmp_path, monitor)
    first = watch(made.model, torch.stack([row["input_ids"] for row in ROWS[:4]]))
    made.train()
    run = Run.open(tmp_path / "run")
    looks = run.table("training_outliers")
    assert looks["step"].unique().sort().to_list() == [0, 2, 4, 6] and looks.height == 8
    assert looks.filter(step=0).select(first[0].keys()).to_dicts() == first
    last = watch(made.model, monitor.windows)
    assert looks.filter(step=6).select(last[0].keys()).to_dicts() == last
    assert run.table("training_steps")["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert run.manifest.text.num_windows == 4 and run.manifest.probes == []
    losses = [log for log in tracker.logs if "loss" in log]
    assert losses[-1]["outliers/max_over_median"] == max(row["top_1"] / row["median"] for row in monitor.rows[-2:])
    assert (run.path / "manifest.json").is_file() and run.report().is_file()
    assert monitor.seconds > 0


def test_it_changes_nothing_in_the_training(tmp_path):
    watched, _ = trainer(tmp_path / "a", OutlierMonitor(every=1))
    watched.train()
    plain, _ = trainer(tmp_path / "b", OutlierMonitor(every=10**6))
    plain.callback_handler.callbacks.pop(0)
    plain.train()
    for one, two in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert [row.get("loss") for row in watched.state.log_history] == [
        row.get("loss") for row in plain.state.log_history
    ]


def test_a_resumed_training_goes_on_with_what_was_seen(tmp_path):
    whole = OutlierMonitor(every=1, out=tmp_path / "whole")
    trainer(tmp_path / "a", whole)[0].train()
    half = OutlierMonitor(every=1, out=tmp_path / "half")
    made, _ = trainer(tmp_path / "b", half)
    made.add_callback(Stop())
    made.train()
    again = OutlierMonitor(every=1, out=tmp_path / "half")
    trainer(tmp_path / "b", again)[0].train(resume_from_checkpoint=True)
    assert again.rows == whole.rows
    for name in ("training_outliers", "training_steps"):
        assert Run.open(tmp_path / "half").table(name).equals(Run.open(tmp_path / "whole").table(name))


class Stop(TrainerCallback):
    """Ends a training after four steps."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= 4


def test_own_windows_and_no_folder(tmp_path):
    windows = torch.randint(3, 100, (2, 8))
    monitor = OutlierMonitor(windows, every=3)
    trainer(tmp_path, monitor, steps=3)[0].train()
    assert [row["step"] for row in monitor.rows] == [0, 0, 3, 3] and not list(tmp_path.glob("**/manifest.json"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"every": 0}, "every 0 steps"),
        ({"windows": torch.zeros(3)}, r"shape \[3\]"),
        ({"windows": [1, 2]}, "windows is"),
        ({"every": "often"}, "every is 'often'"),
    ],
)
def test_what_makes_no_monitor_is_refused(given, says):
    with pytest.raises(MonadnockError, match=says):
        OutlierMonitor(**given)


def test_data_without_token_ids_is_told(tmp_path):
    made, _ = trainer(tmp_path, OutlierMonitor(every=1))
    made.train_dataset = [{"pixels": 1}] * 8
    with pytest.raises(MonadnockError, match="give OutlierMonitor windows"):
        made.train()


def test_trainings_without_a_name_are_beside_each_other_and_a_name_is_one_training(tmp_path):
    run = tmp_path / "run"
    for _ in range(2):
        trainer(tmp_path, OutlierMonitor(every=3, out=run), steps=3)[0].train()
    assert Run.open(run).table("training_outliers")["name"].unique().sort().to_list() == ["training", "training 2"]
    for steps in (6, 3):
        trainer(tmp_path, OutlierMonitor(every=3, out=run, name="mine"), steps=steps)[0].train()
    mine = Run.open(run).table("training_outliers").filter(name="mine")
    assert mine["step"].unique().sort().to_list() == [0, 3]


def test_a_training_without_a_name_that_goes_on_keeps_the_one_it_had(tmp_path):
    run = tmp_path / "run"
    trainer(tmp_path / "first", OutlierMonitor(every=3, out=run), steps=3)[0].train()
    made, _ = trainer(tmp_path / "second", OutlierMonitor(every=3, out=run))
    made.add_callback(Stop())
    made.train()
    trainer(tmp_path / "second", OutlierMonitor(every=3, out=run))[0].train(resume_from_checkpoint=True)
    looks = Run.open(run).table("training_outliers")
    assert looks["name"].unique().sort().to_list() == ["training", "training 2"]
    assert looks.filter(name="training 2")["step"].unique().sort().to_list() == [0, 3, 6]


def test_a_run_of_another_model_is_not_added_to(tmp_path):
    trainer(tmp_path, OutlierMonitor(every=3, out=tmp_path / "run"), steps=3)[0].train()
    torch.manual_seed(1)
    made, _ = trainer(tmp_path, OutlierMonitor(every=3, out=tmp_path / "run"), steps=3)
    made.model = tiny_model("gpt2", num_hidden_layers=2)
    with pytest.raises(MonadnockError, match=r"is about another model .family llama there, gpt2 here"):
        made.train()


def test_weights_that_zero_spreads_are_refused(tmp_path):
    made, _ = trainer(tmp_path, OutlierMonitor(every=1))
    next(made.model.parameters()).ds_id = 0
    with pytest.raises(MonadnockError, match="use FSDP 2"):
        made.train()


def test_all_ranks_look_where_fsdp_spreads_the_weights(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(spread_rank, (port, tmp_path), nprocs=2)
    looks = Run.open(tmp_path / "run").table("training_outliers")
    torch.manual_seed(1)
    expected = watch(tiny_model("llama", num_hidden_layers=2), WINDOWS)
    for step in (0, 2, 3):
        found = looks.filter(step=step).select(expected[0].keys())
        assert_frame_equal(found, pl.DataFrame(expected, schema=found.schema), rel_tol=1e-6)


def spread_rank(rank, port, folder):
    """Look at a model that is spread over two processes, as a Trainer would ask for it."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    os.environ.update(address)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    torch.manual_seed(1)
    model = tiny_model("llama", num_hidden_layers=2)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    for part in (*model.model.layers, model):
        torch.distributed.fsdp.fully_shard(part, mesh=mesh)
    monitor = OutlierMonitor(WINDOWS, every=2, out=folder / "run")
    state = TrainerState(is_world_process_zero=rank == 0)
    given = (TrainingArguments(str(folder / "work"), use_cpu=True), state, None, model)
    monitor.on_train_begin(*given)
    for state.global_step in (1, 2, 3):
        monitor.on_step_end(*given)
    monitor.on_train_end(*given)
    torch.distributed.destroy_process_group()
