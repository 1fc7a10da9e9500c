"""A language model as judge: it is shown a question and an answer, and gives a score from 1 to 5."""

import json
import os
import re
import time
import urllib.request
from http.client import HTTPException
from typing import Any, Protocol, runtime_checkable
from urllib.error import HTTPError
from urllib.parse import urlsplit

from monadnock.data.chat import chat_ids
from monadnock.errors import MonadnockError
from monadnock.evaluation.generation import go_on
from monadnock.models import Adapter

KEY = "MONADNOCK_JUDGE_KEY"  # environment variable with the key of the server, where it asks for one
TOKENS = 512  # of a judgement
TIMEOUT = 600  # seconds
PAUSES = (1, 5, 20)  # seconds before a busy server is asked again
_BUSY = (429, 502, 503, 504)  # status
_SCORE = re.compile(r"\[RESULT\]\s*\(?\s*([1-5])(?!\d|\.\d)")
_SCALE = """\
1: it does not answer what was asked, or is wrong throughout.
2: it touches on what was asked, and is mostly wrong or of little use.
3: it answers part of it, or all of it with clear mistakes.
4: it answers all of it, with small slips.
5: it answers all of it, right and clear, and could hardly be better."""


@runtime_checkable
class Judge(Protocol):
    """Whoever reads a prompt and writes a judgement; `name` says who it is."""

    name: str

    def __call__(self, prompt: str) -> str:
        """Return what the judge writes."""
        ...


class _Stays(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: a key is meant for the address that was given."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Refuse, so that the answer is an error."""


class ServerJudge:
    """A model behind an address that is compatible with OpenAI's, such as vLLM's or `transformers serve`'s.

    The environment variable MONADNOCK_JUDGE_KEY holds the key, where the server asks for one; no other is sent.

    Args:
        address: the base, as http://127.0.0.1:8000/v1.
        model: the model's name there.

    Raises:
        MonadnockError: when asked, if the server cannot be reached, refuses, or answers something else.
    """

    def __init__(self, address: str, model: str):
        parts = urlsplit(address)
        self.address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without password and query
        self.model, self.name = model, f"{model} at {self.address}"
        self._url = parts._replace(path=parts.path.rstrip("/") + "/chat/completions").geturl()
        if "@" in parts.netloc:
            raise MonadnockError(f"The address {self.address} was given with a password; set {KEY} instead.")

    def __call__(self, prompt: str) -> str:
        """Return what the model behind the address writes, at temperature 0."""
        asked = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "temperature": 0.0,
            "seed": 0,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        try:
            request = urllib.request.Request(self._url, json.dumps(asked).encode(), headers)
            return str(_asked(request)["choices"][0]["message"]["content"] or "")
        except (OSError, ValueError, LookupError, TypeError, HTTPException) as error:
            reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            raise MonadnockError(
                f"The judge at {self.address} did not answer ({reason}); see that it runs, serves {self.model}, and "
                f"that {KEY} is set if it asks for a key. What was judged is kept, and the same command goes on."
            ) from error


def _asked(request: urllib.request.Request) -> Any:
    """Return what a server answers; one that is busy is asked again, with longer and longer pauses."""
    for pause in (*PAUSES, None):
        try:
            with urllib.request.build_opener(_Stays).open(request, timeout=TIMEOUT) as answer:
                return json.load(answer)
        except HTTPError as error:
            if pause is None or error.code not in _BUSY:
                raise
            time.sleep(pause)


class ModelJudge:
    """A model in this process as judge.

    Args:
        adapter: the model, with its tokenizer.
    """

    def __init__(self, adapter: Adapter):
        self.name, self._adapter = adapter.source.id, adapter

    def __call__(self, prompt: str) -> str:
        """Return what the model writes, always the most probable token."""
        tokenizer: Any = self._adapter.tokenizer
        ids = chat_ids(tokenizer, [{"role": "user", "content": prompt}], opened=True)
        return str(tokenizer.decode(go_on(self._adapter, ids, TOKENS), skip_special_tokens=True))


def judging_prompt(question: str, answer: str, reference: str | None = None) -> str:
    """Return what a judge is asked: feedback and a score, behind [RESULT], of one answer by one scale.

    The parts and the last line are those that Prometheus-2 (Kim et al., 2024) was trained on; the words are our own.

    Args:
        question: what was asked, with the turns before it.
        answer: what is judged.
        reference: an answer that deserves 5, where there is one.
    """
    parts = [
        "###Task Description:\n"
        "Below are an instruction, an answer to it, and a scale of scores. Write feedback that judges the answer "
        "strictly by the scale, and then a score that is a whole number from 1 to 5. Write nothing else. The form is:\n"
        "Feedback: (your feedback) [RESULT] (a whole number from 1 to 5)",
        f"###The instruction to evaluate:\n{question}",
        f"###Response to evaluate:\n{answer}",
    ]
    if reference:
        parts.append(f"###Reference Answer (Score 5):\n{reference}")
    return "\n\n".join([*parts, f"###Score Rubrics:\n{_SCALE}", "###Feedback:"])


def score_of(judgement: str) -> int | None:
    """Return the score that a judgement ends with; None where it has none.

    Example:
        >>> score_of("Feedback: right, and clear. [RESULT] 5")
        5
    """
    found = _SCORE.findall(judgement)
    return int(found[-1]) if found else None
