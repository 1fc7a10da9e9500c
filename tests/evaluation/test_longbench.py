"""LongBench's 16 English tasks, as lm-eval has them, on small data of the same form: planted answers get full marks."""

import json
from pathlib import Path

import lm_eval.tasks
import pytest
import yaml
from lm_eval.models.huggingface import HFLM

from monadnock import MonadnockError
from monadnock.evaluation.tasks import Tasks
from monadnock.models import Adapter, Source
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Path(__file__).parents[2] / "recipes" / "macdrop_longbench.yaml"
NAMES = yaml.safe_load(RECIPE.read_text())["settings"]["tasks"]
HOME = Path(lm_eval.tasks.__file__).parent / "longbench"
CONTEXT, WRITTEN = 96, 8


class _Include(yaml.SafeLoader):
    pass


_Include.add_multi_constructor("!", lambda loader, suffix, node: suffix)


def adapter():
    return Adapter(tiny_model("llama"), word_tokenizer(), Source("llama", "object"))


def local(folder, name, answers):
    """Write the task of that name with data of ours, a document for each list of answers, and short texts to write."""
    theirs = HOME / f"{name.removeprefix('longbench_')}.yaml"
    theirs_settings = yaml.load(theirs.read_text(encoding="utf-8"), _Include)
    documents = [
        {"context": " ".join(random_words(40, number)), "question": "why", "input": "why", "answers": each,
         "all_classes": each, "length": 40, "language": "en", "dataset": name, "_id": str(number)}
        for number, each in enumerate(answers)
    ]  # fmt: skip
    data = folder / f"{name}.jsonl"
    data.write_text("\n".join(map(json.dumps, documents)))
    settings = {
        "include": str(theirs),
        "task": theirs_settings["task"],
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "generation_kwargs": theirs_settings["generation_kwargs"] | {"max_gen_toks": WRITTEN},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def scores(path, model, context=CONTEXT):
    return {score.metric: score.value for score in Tasks([path], context=context).run(model)}


def test_the_recipe_has_the_sixteen_english_tasks_of_lm_eval():
    assert len(NAMES) == len(set(NAMES)) == 16
    every = {path.stem for path in HOME.glob("[!_]*.yaml") if not path.stem.endswith(("_e", "_zh"))}
    chinese = {"dureader", "lsht", "vcsum"}
    assert {name.removeprefix("longbench_") for name in NAMES} == every - chinese


@pytest.mark.parametrize("name", NAMES)
def test_every_task_runs_on_data_of_its_form(name, tmp_path):
    found = scores(local(tmp_path, name, [["Paragraph 3"], ["Paragraph 5, never written"]]), adapter())
    assert 0 <= found["score"] <= 1


def test_an_answer_that_the_model_writes_gets_full_marks(tmp_path, monkeypatch):
    model, written = adapter(), []
    path = local(tmp_path, "longbench_narrativeqa", [["nothing of it"]] * 2)
    plain = HFLM.generate_until

    def kept(*args):
        written.extend(plain(*args))
        return written

    monkeypatch.setattr(HFLM, "generate_until", kept)
    assert scores(path, model)["qa_f1_score"] == 0
    monkeypatch.undo()
    assert written[0].strip()
    path = local(tmp_path, "longbench_narrativeqa", [[written[0]], ["nothing of it"]])
    assert scores(path, model)["score"] == pytest.approx(0.5)


def test_a_prompt_and_its_answer_have_as_many_tokens_as_the_context(tmp_path):
    model, lengths = adapter(), []
    hook = model.model.register_forward_pre_hook(
        lambda _module, _args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    path = local(tmp_path, "longbench_narrativeqa", [["x"]])
    for context in (32, 48):
        lengths.clear()
        scores(path, model, context)
        assert lengths[0] == context - WRITTEN
    hook.remove()


@pytest.mark.parametrize(("context", "says"), [(1, "at least 2"), (10_000, "sees at most")])
def test_a_context_that_cannot_be_is_refused(tmp_path, context, says):
    with pytest.raises(MonadnockError, match=says):
        scores(local(tmp_path, NAMES[0], [["x"]]), adapter(), context)
