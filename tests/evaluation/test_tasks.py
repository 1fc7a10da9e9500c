"""Tasks: scores against sums done by hand, what ids the model gets, and that nothing is left changed."""

import json
import logging
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monadnock.errors import MonadnockError
from monadnock.evaluation import tasks as module
from monadnock.evaluation.tasks import DEFAULT_TASKS, Tasks
from monadnock.models.adapter import Adapter, Source
from tests.tiny import tiny_model
from tests.words import BOS_ID, random_words, word_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

EOS_ID = 2
METRICS = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]


def _documents(count: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    documents = []
    for index in range(count):
        lengths = [draw.randrange(4, 12), *(draw.randrange(1, 4) for _ in range(3))]
        question, *choices = (" ".join(random_words(length, draw.randrange(9999))) for length in lengths)
        documents.append({"question": question, "choices": choices, "gold": draw.randrange(3), "index": index})
    return documents


DOCUMENTS = _documents()


def _config(folder: Path, name: str = "words", documents: list[dict[str, Any]] = DOCUMENTS, **changes: Any) -> dict:
    data = folder / f"{name}.jsonl"
    data.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": METRICS,
    }
    return {key: value for key, value in (config | changes).items() if value is not None}


def _write(folder: Path, config: dict[str, Any] | str, name: str = "task.yaml") -> str:
    path = folder / name
    path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")  # JSON is YAML
    return str(path)


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("task")
    return _write(folder, _config(folder))


@pytest.fixture(scope="module")
def words(task_file: str) -> Tasks:
    return Tasks([task_file])


def _adapter(model_type: str = "llama", tokenizer: Any = None, **changes: Any) -> Adapter:
    return Adapter(tiny_model(model_type, **changes), tokenizer or word_tokenizer(), Source("tiny", "object"))


def _ids(text: str) -> list[int]:
    return word_tokenizer()(text, add_special_tokens=False)["input_ids"]


def _log_likelihood(model: Any, before: list[int], after: list[int]) -> float:
    ids = torch.tensor([before + after])
    with torch.no_grad():
        log_p = torch.log_softmax(model(ids, use_cache=False).logits[0].double(), dim=-1)
    return log_p[len(before) - 1 : -1].gather(1, torch.tensor(after)[:, None]).sum().item()


def _accuracies(model: Any, documents: list[dict[str, Any]], bos: bool) -> dict[str, float]:
    right = {"acc": 0, "acc_norm": 0}
    for document in documents:
        before = [BOS_ID] * bos + _ids(document["question"])
        sums = [_log_likelihood(model, before, _ids(choice)) for choice in document["choices"]]
        per_letter = [total / len(choice) for total, choice in zip(sums, document["choices"], strict=True)]
        right["acc"] += sums.index(max(sums)) == document["gold"]
        right["acc_norm"] += per_letter.index(max(per_letter)) == document["gold"]
    return {name: count / len(documents) for name, count in right.items()}


def _inputs(model: Any) -> tuple[list[list[int]], Any]:
    seen: list[list[int]] = []
    embedding = model.get_input_embeddings()
    return seen, embedding.register_forward_pre_hook(lambda _, args: seen.extend(args[0].tolist()))


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("model_type", ["llama", "opt", "mpt", "gpt_oss"])
def test_accuracy_and_error_are_those_computed_by_hand(words: Tasks, model_type: str, bos: bool) -> None:
    adapter = _adapter(model_type)
    scores = words.run(adapter, bos=bos)
    expected = _accuracies(adapter.model, DOCUMENTS, bos)
    assert [(score.task, score.metric) for score in scores] == [("words", "acc"), ("words", "acc_norm")]
    for score in scores:
        p = expected[score.metric]
        assert score.value == pytest.approx(p, abs=1e-12)
        assert score.error == pytest.approx(math.sqrt(p * (1 - p) / (len(DOCUMENTS) - 1)), abs=1e-12)
    assert words.names == ("words",)


def test_accuracy_over_several_batches_is_that_of_known_answers(tmp_path: Path) -> None:
    adapter = _adapter()
    documents = _documents(60, seed=5)
    for document in documents[:30]:  # right on these by construction
        before = [BOS_ID, *_ids(document["question"])]
        sums = [_log_likelihood(adapter.model, before, _ids(choice)) for choice in document["choices"]]
        document["gold"] = sums.index(max(sums))
    scores = Tasks([_write(tmp_path, _config(tmp_path, documents=documents))]).run(adapter)
    expected = _accuracies(adapter.model, documents, bos=True)
    assert scores[0].value == pytest.approx(expected["acc"]) and scores[0].value > 0.5


def test_changed_weights_change_the_scores_and_the_old_ones_give_the_first_again(words: Tasks) -> None:
    adapter = _adapter()
    first = words.run(adapter)
    weight = adapter.stored(1, "down")
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(-20)
    changed = words.run(adapter)
    assert changed != first
    assert changed[0].value == pytest.approx(_accuracies(adapter.model, DOCUMENTS, bos=True)["acc"])
    with torch.no_grad():
        weight.copy_(kept)
    assert words.run(adapter) == first


def test_the_limit_takes_the_first_documents(task_file: str) -> None:
    adapter = _adapter()
    tasks = Tasks(task_file, limit=7)
    assert tasks.limit == 7
    scores = {score.metric: score.value for score in tasks.run(adapter)}
    assert scores == pytest.approx(_accuracies(adapter.model, DOCUMENTS[:7], bos=True))
    single = Tasks(task_file, limit=1).run(adapter)
    assert single[0].error is None and single[0].value in (0, 1)


@pytest.mark.parametrize(("bos", "in_front"), [(True, True), (None, True), (False, False)])
def test_bos_stands_in_front_of_every_prompt_or_of_none(words: Tasks, bos: bool | None, in_front: bool) -> None:
    adapter = _adapter()
    seen, hook = _inputs(adapter.model)
    words.run(adapter, bos=bos)
    hook.remove()
    questions = {tuple(([BOS_ID] * in_front + _ids(document["question"]))[:4]) for document in DOCUMENTS}
    assert {tuple(row[:4]) for row in seen} == questions
    assert all(row.count(BOS_ID) == in_front for row in seen)


def test_bos_is_not_put_twice_and_by_default_only_if_there_is_one(tmp_path: Path, words: Tasks) -> None:
    adapter = _adapter()
    seen, hook = _inputs(adapter.model)
    written = _config(tmp_path, doc_to_text="<s> {{question}}")
    Tasks([_write(tmp_path, written)]).run(adapter, bos=True)
    assert all(row.count(BOS_ID) == 1 and row[0] == BOS_ID for row in seen)
    hook.remove()
    without = _adapter(tokenizer=word_tokenizer(bos=False))
    seen, _ = _inputs(without.model)
    words.run(without)
    assert seen and not any(BOS_ID in row for row in seen)
    with pytest.raises(MonadnockError, match="has none; use bos=False"):
        words.run(without, bos=True)


@pytest.mark.parametrize(("bos", "first"), [(True, BOS_ID), (False, EOS_ID)])
def test_an_empty_prompt_gets_one_token_in_front(tmp_path: Path, bos: bool, first: int) -> None:
    adapter = _adapter()
    seen, _ = _inputs(adapter.model)
    Tasks([_write(tmp_path, _config(tmp_path, doc_to_text="", target_delimiter=""))]).run(adapter, bos=bos)
    assert all(row[0] == first and row.count(first) == 1 for row in seen)


@pytest.mark.parametrize("bos", [True, False])
def test_perplexity_counts_each_word_once_behind_one_token(tmp_path: Path, bos: bool) -> None:
    changes = {"doc_to_choice": None, "doc_to_text": "", "doc_to_target": "{{question}}"}
    config = _config(
        tmp_path, output_type="loglikelihood_rolling", metric_list=[{"metric": "word_perplexity"}], **changes
    )
    adapter = _adapter()
    (score,) = Tasks([_write(tmp_path, config)]).run(adapter, bos=bos)
    front = [BOS_ID if bos else EOS_ID]
    texts = [_ids(document["question"]) for document in DOCUMENTS]
    total = sum(_log_likelihood(adapter.model, front, text) for text in texts)
    assert score.metric == "word_perplexity" and score.error is None
    assert score.value == pytest.approx(math.exp(-total / sum(map(len, texts))), rel=1e-5)


@pytest.mark.parametrize("bos", [True, False])
def test_generated_answers_are_the_greedy_ones(tmp_path: Path, bos: bool) -> None:
    adapter = _adapter()
    documents = _documents(8)
    for document in documents:
        ids = [BOS_ID] * bos + _ids(document["question"])
        for _ in range(3):
            with torch.no_grad():
                ids.append(int(adapter.model(torch.tensor([ids])).logits[0, -1].argmax()))
        document["answer"] = adapter.tokenizer.decode(ids[-3:], skip_special_tokens=True)
    documents[0]["answer"] = "w0 w0 w0 w0"
    config = _config(
        tmp_path,
        documents=documents,
        output_type="generate_until",
        doc_to_choice=None,
        doc_to_target="answer",
        generation_kwargs={"until": ["never"], "max_gen_toks": 3, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        filter_list=[{"name": "first", "filter": [{"function": "take_first"}]}],
    )
    seen, _ = _inputs(adapter.model)
    (score,) = Tasks([_write(tmp_path, config)]).run(adapter, bos=bos)
    assert (score.metric, score.value) == ("exact_match,first", 7 / 8)
    assert any(BOS_ID in row for row in seen) == bos


def test_examples_in_the_prompt_are_the_same_in_every_run(tmp_path: Path) -> None:
    config = _config(tmp_path, num_fewshot=2, fewshot_split="test")
    tasks, adapter = Tasks([_write(tmp_path, config)], limit=4), _adapter()
    runs = []
    for _ in range(2):
        seen, hook = _inputs(adapter.model)
        tasks.run(adapter)
        hook.remove()
        runs.append(seen)
    assert runs[0] == runs[1] and min(map(len, runs[0])) > 15


def _state(adapter: Adapter) -> dict[str, Any]:
    model, tokenizer = adapter.model, adapter.tokenizer
    return {
        "parameters": [(name, value.data_ptr(), value.dtype, value.device) for name, value in model.named_parameters()],
        "sums": [value.double().sum().item() for value in model.parameters()],
        "modes": [part.training for part in model.modules()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
        "attributes": sorted(vars(model)),
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "tokenizer": (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer), tokenizer.special_tokens_map),
        "backend": tokenizer.backend_tokenizer.to_str(),
        "logging": (logging.root.manager.disable, logging.getLogger("transformers").level, logging.getLogger().level),
        "environment": dict(os.environ),
        "random": (random.getstate(), np.random.get_state(legacy=True)[1].tolist(), torch.get_rng_state().tolist()),
    }


def test_model_tokenizer_and_process_come_back_as_they_were(
    words: Tasks,
    task_file: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISABLE_MULTIPROC", raising=False)
    random.seed(71)
    np.random.seed(72)
    torch.manual_seed(73)
    adapter = _adapter(tie_word_embeddings=True)
    head = adapter.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach() * 2)  # what the config calls tied differs on purpose
    adapter.layers[1].train()
    assert adapter.tokenizer.pad_token is None
    before = _state(adapter)
    Tasks([task_file], limit=3).run(adapter)
    words.run(adapter)
    after = _state(adapter)
    for key in before:
        assert after[key] == before[key], key
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_all_comes_back_when_a_run_fails(words: Tasks) -> None:
    adapter = _adapter()
    before = _state(adapter)

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    hook = adapter.layers[0].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        words.run(adapter)
    hook.remove()
    assert _state(adapter) == before


def test_neighbours_of_a_task_file_are_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name in ("mine", "neighbour"):
        body = (
            f"from pathlib import Path\nPath({str(ran)!r}).open('a').write('{name} ')\ndef text(doc): return 'w1 w2'\n"
        )
        (tmp_path / f"{name}.py").write_text(body, encoding="utf-8")
        config = json.dumps(_config(tmp_path, name=name)).replace('"{{question}}"', f"!function {name}.text")
        _write(tmp_path, config, f"{name}.yaml")
    adapter = _adapter()
    seen, _ = _inputs(adapter.model)
    Tasks([tmp_path / "mine.yaml"]).run(adapter)
    assert set(ran.read_text(encoding="utf-8").split()) == {"mine"}
    assert {tuple(row[:3]) for row in seen} == {(BOS_ID, *_ids("w1 w2"))}


def test_a_group_reports_its_subtasks_and_its_own_aggregate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    for name, count in (("one", 6), ("two", 18)):
        _write(tmp_path, _config(tmp_path, name, _documents(count, seed=count)), f"{name}.yaml")
    aggregate = [{"metric": "acc", "weight_by_size": True}]
    group = {"group": "both", "task": ["one", "two"], "aggregate_metric_list": aggregate}
    path = _write(tmp_path, group, "both.yaml")
    known = TaskManager(include_defaults=False, include_path=tmp_path)
    monkeypatch.setattr(module, "_manager", lambda bare: known)
    tasks = Tasks(["both"])
    scores = {(score.task, score.metric): score for score in tasks.run(_adapter())}
    assert tasks.names == ("both",)
    one, two, both = (scores[name, "acc"].value for name in ("one", "two", "both"))
    assert both == pytest.approx((6 * one + 18 * two) / 24)
    assert scores["both", "acc"].error is not None and ("both", "acc_norm") not in scores
    with pytest.raises(MonadnockError, match="one was asked twice, the second time as one"):
        Tasks(["both", "one"])
    with pytest.raises(MonadnockError, match=r"both\.yaml is a group"):
        Tasks([path])


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    assert set(DEFAULT_TASKS) <= set(module._manager(bare=False).all_tasks)
    with pytest.raises(MonadnockError, match=r"no task arc_eazy: did you mean arc_easy"):
        Tasks(["arc_eazy"])
    with pytest.raises(MonadnockError, match=r"no task qqqqqqqqqqqqqqq: `lm-eval ls tasks`"):
        Tasks(["qqqqqqqqqqqqqqq"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .No such file"),
        ("task: [", "cannot be read .it is not YAML"),
        ("- a\n- b\n", "is no task: it has no `task:` name"),
        ("colour: red\n", "is no task: it has no `task:` name"),
        ("task: x\noutput_type: dance\n", r"Task .*task.yaml and its data could not be loaded .*dance"),
    ],
)
def test_task_files_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "task.yaml" if content is None else _write(tmp_path, content)
    with pytest.raises(MonadnockError, match=message) as caught:
        Tasks([path])
    assert str(tmp_path / "task.yaml") in str(caught.value)
    assert logging.root.manager.disable == logging.NOTSET


def test_data_that_cannot_be_had_is_told_before_any_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = _config(tmp_path)
    (tmp_path / "words.jsonl").unlink()
    with pytest.raises(MonadnockError, match=r"data could not be loaded .Unable to find .*words\.jsonl"):
        Tasks([_write(tmp_path, config)])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(MonadnockError, match=r"data could not be loaded .Couldn't (find|reach) .*nobody/nothing"):
        Tasks([_write(tmp_path, config | {"dataset_path": "nobody/nothing", "dataset_kwargs": {}})])
    assert capfd.readouterr() == ("", "")


def test_what_makes_no_sense_is_refused(tmp_path: Path, task_file: str, words: Tasks) -> None:
    with pytest.raises(MonadnockError, match="No task was asked"):
        Tasks([])
    with pytest.raises(MonadnockError, match="limit of 0 documents"):
        Tasks([task_file], limit=0)
    with pytest.raises(MonadnockError, match="words was asked twice"):
        Tasks([task_file, task_file])
    with pytest.raises(MonadnockError, match="words runs code that the model writes"):
        Tasks([_write(tmp_path, _config(tmp_path, unsafe_code=True))])
    with pytest.raises(MonadnockError, match="tiny was given without its tokenizer"):
        words.run(Adapter(tiny_model("llama"), None, Source("tiny", "object")))


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, task_file: str) -> None:
    monkeypatch.setattr(module, "_manager", module._manager.__wrapped__)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MonadnockError, match=r"pip install -e '\.\[eval\]'"):
        Tasks([task_file])


def test_importing_the_module_does_not_import_lm_eval() -> None:
    code = "import sys, monadnock.evaluation.tasks; sys.exit('lm_eval' in sys.modules or 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
