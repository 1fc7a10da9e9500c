"""Let fine-tuned models answer questions, and a judge score the answers (oh2024, table 9)."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from monadnock.arguments import checked
from monadnock.data.chat import chat_ids
from monadnock.errors import MonadnockError
from monadnock.evaluation.generation import go_on
from monadnock.evaluation.judge import Judge, ModelJudge, ServerJudge, judging_prompt, score_of
from monadnock.evaluation.questions import Question, Questions, digits, read_questions
from monadnock.findings import Run
from monadnock.findings.judged import tuned_names
from monadnock.models import Adapter
from monadnock.models.tuned import with_adapter
from monadnock.preparing import bar, evaluating, known_run, open_model
from monadnock.sameness import check_weights
from monadnock.scanning import scan

TOKENS = 512
_FULL = "not judged: the question fills the model's context, which left no room for an answer"


@checked
def judge(
    model: Any,
    tokenizer: Any = None,
    *,
    questions: str | Path,
    by: str | Judge,
    judge_model: str = "",
    out: str | Path | None = None,
    tokens: int = TOKENS,
    limit: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Let a model and every fine-tuning of it in a run answer questions, and a judge score the answers.

    Answers are greedy, through the tokenizer's chat template; a second turn sees the first answer. What a run has is
    not asked again.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        questions: a file in the form of Spec-Bench, see `read_questions`.
        by: the judge: the address of an OpenAI-compatible server, a model as `load` takes it, or a `Judge`.
        judge_model: the model's name at that address.
        out: a run of this model to add to, or a new folder. By default a new one under `monadnock-runs/`.
        tokens: how long an answer may be.
        limit: take only the first so many questions of each category.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`; they hold for the judge, too.

    Returns:
        The run, with rows in the table `answers`.

    Raises:
        MonadnockError: on bad input, a run of another model, or a judge that does not answer.

    Example:
        >>> run = judge("smollm2", questions="recipes/questions.jsonl", by="gemma3-270m")  # doctest: +SKIP
        >>> run.table("answers").group_by("name").agg(pl.col("score").mean())  # doctest: +SKIP
    """
    if tokens < 1 or (limit is not None and limit < 1):
        raise MonadnockError(f"Answers of {tokens} tokens and {limit} questions were asked; give at least 1 each.")
    asked = read_questions(questions, limit)
    path, known = known_run(model, out)
    judged_by = _judge(by, judge_model, progress, options)
    if isinstance(judged_by, ServerJudge):
        judged_by(judging_prompt("Say yes.", "Yes."))  # one that is down is told before anything is answered
    adapter = open_model(model, tokenizer, progress=progress, **options)
    run = known or scan(adapter, out=path, probes=["start_token"], progress=progress, tokens=1024)
    check_weights(run, adapter)
    tuned = tuned_names(run.table("finetunings")) if "finetunings" in run.heights() else []
    models: list[tuple[str | None, str | None]] = [(None, None), *tuned]
    with bar("judging", len(models) * len(asked.asked), progress) as step:
        for name, folder in models:
            work = _Answers(run, asked, judged_by, tokens, name, folder)
            with evaluating(adapter.model):
                work.write(adapter, step)
    return run


def _judge(by: str | Judge, model: str, progress: bool, options: dict[str, Any]) -> Judge:
    if not isinstance(by, str):
        return by
    if not by:
        raise MonadnockError("No judge was named; give the address of a server (http://...), or a model.")
    if by.startswith(("http://", "https://")):
        if not model:
            raise MonadnockError("A server may have several models; name the one that judges, with --judge-model.")
        return ServerJudge(by, model)
    if ":" in by and not Path(by).exists():
        raise MonadnockError(f"{by} was given as judge; the address of a server begins with http:// or https://.")
    return ModelJudge(open_model(by, progress=progress, **options))


class _Answers:
    """The answers of one model, one part of the table."""

    def __init__(self, run: Run, asked: Questions, judged_by: Judge, tokens: int, name: str | None, folder: str | None):
        self.run, self.asked, self.judge, self.tokens = run, asked, judged_by, tokens
        self.name, self.folder = name, folder

    def write(self, adapter: Adapter, step: Callable[[], None]) -> None:
        """Answer and judge what the run does not have yet; each question that is done is kept at once."""
        part = f"{Path(self.folder or 'base').name}-{digits((self.asked, self.judge.name, self.tokens))}"
        if self.run.has("answers", part):
            for _ in self.asked.asked:
                step()
            return
        draft = self.run.path / "tables" / "answers" / f".{part}.jsonl"  # hidden: no part of the table yet
        rows = _drafted(draft)
        answering = self._model(adapter)
        for question in self.asked.asked:
            if question.id not in {row["question"] for row in rows}:
                new = list(self._rows(answering, question))
                _append(draft, new)
                rows += new
            step()
        self.run.add("answers", part, rows)
        draft.unlink(missing_ok=True)

    def _model(self, adapter: Adapter) -> Adapter:
        if self.folder is None:
            return adapter
        return with_adapter(adapter, self.run.path / "adapters" / Path(self.folder).name)  # its name alone is trusted

    def _rows(self, adapter: Adapter, question: Question) -> Iterator[dict[str, Any]]:
        """Answer the turns of a question one after another, each answer judged."""
        tokenizer: Any = adapter.tokenizer
        messages: list[dict[str, str]] = []
        for turn, (text, reference) in enumerate(zip(question.turns, question.references, strict=True)):
            messages.append({"role": "user", "content": text})
            ids = go_on(adapter, chat_ids(tokenizer, messages, opened=True), self.tokens)
            answer = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
            before = "\n\n".join(f"{each['role']}: {each['content']}" for each in messages) if turn else text
            feedback = self.judge(judging_prompt(before, answer, reference)) if ids else _FULL
            messages.append({"role": "assistant", "content": answer})
            yield {
                "name": self.name,
                "questions": f"{self.asked.label}, answers of up to {self.tokens} tokens",
                "question": question.id,
                "category": question.category,
                "column": question.column(turn),
                "turn": turn + 1,
                "asked": text,
                "answer": answer,
                "tokens": len(ids),
                "judge": self.judge.name,
                "feedback": feedback.strip(),
                "score": score_of(feedback),
            }


def _drafted(path: Path) -> list[dict[str, Any]]:
    """Return the answers that an earlier start kept; a line that was cut short is not one."""
    rows = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(ValueError):
                rows += json.loads(line)
    return rows


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Keep the answers to one question, a line."""
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(rows))
    except OSError as error:
        raise MonadnockError(f"Answers could not be written to {path.parent}: {error.strerror}.") from error
