"""OutlierMonitor in a Trainer of somebody else's: what it writes, logs, keeps in checkpoints, and refuses."""

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from monadnock import MonadnockError
from monadnock.findings import Run
from monadnock.pretraining import OutlierMonitor, watch
from tests.tiny import tiny_model

ROWS = [
    {"input_ids": ids, "labels": ids}
    for ids in torch.randint(3, 100, (24, 16), generator=torch.Generator().manual_seed(4))
]
pytestmark = pytest.mark.usefixtures("one_thread")


class Tracker(TrainerCallback):
    """Keeps what a tracker would be sent."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs or {}))


def trainer(folder, monitor, steps=6, seed=0, **settings):
    torch.manual_seed(1)
    model = tiny_model("llama", num_hidden_layers=2)
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
