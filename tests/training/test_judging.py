"""Judged answers of tiny models: who answers what, with which adapter, what is kept, and what is refused."""

import json

import pytest

from monadnock import MonadnockError
from monadnock.data.chat import chat_ids
from monadnock.evaluation.generation import go_on
from monadnock.evaluation.judge import judging_prompt
from monadnock.models import Adapter, Source
from monadnock.models.tuned import with_adapter
from monadnock.training import finetune, judge
from tests.evaluation.judge_server import planted, serving
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = random_words(40, num_words=8)
ASKED = [
    {"question_id": 1, "category": "writing", "turns": [" ".join(WORDS[:4]), " ".join(WORDS[4:9])]},
    {"question_id": 2, "category": "qa", "turns": [" ".join(WORDS[9:15])], "reference": "yes"},
    {"question_id": 3, "category": "qa", "turns": [WORDS[20]]},
]


class Planted:
    """Scores the number of words, and keeps what it was asked."""

    name = "planted"

    def __init__(self, last=None):
        self.asked, self.last = [], last

    def __call__(self, prompt):
        if len(self.asked) == self.last:
            raise KeyboardInterrupt
        self.asked.append(prompt)
        return f"Feedback: planted. [RESULT] {planted(prompt)}"


@pytest.fixture
def adapter():
    return Adapter(tiny_model("llama"), word_tokenizer(), Source("llama", "object"))


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, ASKED)))
    return path


@pytest.fixture
def ask(adapter, questions, tmp_path):
    def run(by, **options):
        how = {"questions": questions, "out": tmp_path / "run", "tokens": 12, "progress": False}
        return judge(adapter, by=by, **how | options)

    return run


@pytest.fixture
def tuned(adapter, tmp_path):
    """Fine-tune strongly enough that answers change."""
    data = tmp_path / "data.jsonl"
    rows = [{"instruction": " ".join(WORDS[n : n + 3]), "output": WORDS[n]} for n in range(30)]
    data.write_text("\n".join(map(json.dumps, rows)))
    how = {"batch": 4, "accumulation": 1, "epochs": 2, "rank": 4, "rate": 0.05, "progress": False}
    return finetune(adapter, data=data, out=tmp_path / "run", **how)


def test_every_answer_is_the_greedy_one_of_its_model_and_every_score_that_of_its_text(adapter, tuned, ask):
    before = state(adapter.model)
    rows = ask(Planted()).table("answers")
    assert_untouched(adapter.model, before)
    assert rows.height == 2 * 4
    (folder,) = tuned.table("finetunings")["adapter"]
    (name,) = tuned.table("finetunings")["name"]
    models = {None: adapter, name: with_adapter(adapter, tuned.path / folder)}
    for row in rows.iter_rows(named=True):
        question = ASKED[int(row["question"]) - 1]
        messages = []
        for turn, text in enumerate(question["turns"][: row["turn"]]):
            messages.append({"role": "user", "content": text})
            ids = go_on(models[row["name"]], chat_ids(adapter.tokenizer, messages, opened=True), 12)
            answer = adapter.tokenizer.decode(ids, skip_special_tokens=True).strip()
            messages.append({"role": "assistant", "content": answer})
            assert turn + 1 < row["turn"] or row["answer"] == answer
        assert row["tokens"] == len(ids) and row["score"] == planted(judging_prompt("", row["answer"]))
    answers = rows.partition_by("name", include_key=False, maintain_order=True)
    assert answers[0]["answer"].to_list() != answers[1]["answer"].to_list()


def test_the_judge_sees_the_turns_before_and_the_reference(ask):
    by = Planted()
    rows = ask(by).table("answers")
    second = next(prompt for prompt in by.asked if ASKED[0]["turns"][1] in prompt)
    assert ASKED[0]["turns"][0] in second and rows.filter(question="1", turn=1)["answer"][0] in second
    assert [("yes" in prompt.partition("###Reference")[2]) for prompt in by.asked].count(True) == 1
    assert rows["column"].sort().to_list() == ["MT-1", "MT-2", "qa", "qa"]


def test_stopped_and_started_again_keeps_what_was_judged(ask):
    with pytest.raises(KeyboardInterrupt):
        ask(Planted(last=3))  # at the last question, behind another one of its category
    by = Planted()
    run = ask(by)
    assert run.table("answers").height == 4 and len(by.asked) == 1
    assert run.table("answers")["question"].to_list() == ["1", "1", "2", "3"]
    again = Planted()
    ask(again)
    assert again.asked == [] and not list((run.path / "tables" / "answers").glob(".*"))


def test_another_limit_or_length_is_asked_anew_and_told_apart(ask):
    ask(Planted(), limit=1)
    ask(Planted())
    rows = ask(Planted(), tokens=3).table("answers")
    assert rows.group_by("questions", maintain_order=True).len()["len"].sort().to_list() == [3, 4, 4]
    assert rows.n_unique(["questions", "question", "turn"]) == rows.height == 11


def test_another_judge_is_asked_anew(ask):
    ask(Planted())
    with serving() as (address, requests):
        run = ask(address, judge_model="m", limit=1)
    assert len(requests) == 1 + 3  # one to see that it is there
    assert sorted(run.table("answers")["judge"].unique()) == [f"m at {address}", "planted"]


def test_a_prompt_that_fills_the_context_gets_no_answer(ask, adapter):
    adapter.model.config.max_position_embeddings = 10
    rows = ask(Planted()).table("answers")
    assert rows.filter(question="1", turn=1)["tokens"][0] < 12
    (full,) = rows.filter(question="1", turn=2).to_dicts()
    assert full["answer"] == "" and full["score"] is None and "fills the model's context" in full["feedback"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"by": "http://127.0.0.1:1/v1"}, "name the one that judges"),
        ({"by": "nowhere/at/all"}, "does not exist"),
        ({"by": Planted(), "limit": 0}, "at least 1 each"),
    ],
)
def test_what_cannot_be_judged_leaves_nothing(ask, tmp_path, options, says):
    with pytest.raises(MonadnockError, match=says):
        ask(**options)
    assert not (tmp_path / "run").exists()


def test_a_judge_that_fails_is_told_and_leaves_the_run(ask):
    with serving(status=500) as (address, _), pytest.raises(MonadnockError, match="did not answer"):
        ask(address, judge_model="m")
    assert ask(Planted()).table("answers").height == 4


def test_a_path_in_the_table_does_not_leave_the_run(ask, tuned, adapter):
    (part,) = (tuned.path / "tables" / "finetunings").glob("*.parquet")
    row = tuned.table("finetunings").to_dicts()[0]
    tuned.add("finetunings", part.stem, [row | {"adapter": "../../../elsewhere"}])
    with pytest.raises(MonadnockError, match=r"run/adapters/elsewhere is no adapter"):
        ask(Planted())
