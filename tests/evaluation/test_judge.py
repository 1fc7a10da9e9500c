"""Judges: what they are asked, what is read from their answer, and a real server that says what the model says."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from monadnock import MonadnockError, load
from monadnock.evaluation.judge import KEY, TOKENS, ModelJudge, ServerJudge, judging_prompt, score_of
from tests.cli.conftest import save
from tests.evaluation.judge_server import planted, serving

PROMPT = judging_prompt("What is ice?", "Frozen water, my friend.", "Frozen water.")


@given(st.text(), st.integers(1, 5), st.sampled_from(["[RESULT] {}", "[RESULT]({})", "[RESULT] ( {} )", "[RESULT]{}."]))
def test_the_last_score_counts(before, score, form):
    assert score_of(before + form.format(score)) == score
    assert score_of("[RESULT] 1 " + before + form.format(score)) == score


@pytest.mark.parametrize(
    "text", ["", "5", "the score is 5", "[RESULT] 7", "[RESULT] 0", "[RESULT] 45", "[RESULT] five"]
)
def test_without_a_score_there_is_none(text):
    assert score_of(text) is None


def test_a_fraction_is_no_whole_number():
    assert score_of("[RESULT] 4.5") is None


def test_the_prompt_holds_everything_once_and_a_reference_only_if_there_is_one():
    assert all(PROMPT.count(part) == 1 for part in ("What is ice?", "Frozen water, my friend.", "Frozen water.\n"))
    assert "Reference" in PROMPT and "Reference" not in judging_prompt("What is ice?", "Frozen water.")


def test_a_server_is_asked_with_its_own_key_alone(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with serving() as (address, requests):
        assert score_of(ServerJudge(address, "the-model")(PROMPT)) == planted(PROMPT) == 5
        monkeypatch.setenv(KEY, "mine")
        ServerJudge(address, "the-model")(PROMPT)
    (path, headers, asked), (_, later, _) = requests
    assert path == "/v1/chat/completions"
    assert asked["messages"] == [{"role": "user", "content": PROMPT}]
    assert asked["model"] == "the-model" and asked["temperature"] == 0 and asked["max_tokens"] == TOKENS
    assert "secret" not in str(headers) and later["Authorization"] == "Bearer mine"


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses_is_told_in_one_sentence(status):
    with serving(status) as (address, _), pytest.raises(MonadnockError, match=f"did not answer .*{status}"):
        ServerJudge(address, "m")(PROMPT)


def test_an_address_with_a_password_is_refused_and_a_query_is_not_shown():
    with pytest.raises(MonadnockError, match="with a password") as refused:
        ServerJudge("http://me:secret@127.0.0.1:1/v1", "m")
    assert "secret" not in str(refused.value)
    with serving() as (address, requests):
        judge = ServerJudge(f"{address}?key=secret", "m")
        assert score_of(judge(PROMPT)) == 5 and "secret" not in judge.name
    assert requests[0][0] == "/v1/chat/completions?key=secret"


def test_a_server_on_this_machine_is_asked_offline_too(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with serving() as (address, _):
        assert score_of(ServerJudge(address, "m")(PROMPT)) == 5


@pytest.mark.parametrize("told", ["[]", '{"choices": []}', "no JSON"])
def test_a_server_that_answers_something_else_is_told(told):
    with serving(body=told) as (address, _), pytest.raises(MonadnockError, match="did not answer"):
        ServerJudge(address, "m")(PROMPT)


def test_a_server_that_is_not_there_is_told_in_one_sentence():
    with pytest.raises(MonadnockError, match=r"did not answer .*see that it runs"):
        ServerJudge(f"http://127.0.0.1:{free_port()}/v1", "m")(PROMPT)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def transformers_server(tmp_path):
    """Serve a tiny model with transformers' own server, in a process of its own."""
    folder = save(tmp_path / "judge")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)
    port = free_port()
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--device", "cpu", "--dtype", "float32"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                    break
                except OSError:
                    assert process.poll() is None, "the server ended"
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            process.terminate()


def test_transformers_server_says_what_the_model_says(transformers_server, monkeypatch):
    address, folder = transformers_server
    monkeypatch.setattr("monadnock.evaluation.judge.TOKENS", 24)
    told = ServerJudge(address, folder)("one two three")
    assert told and told == ModelJudge(load(folder))("one two three")


@pytest.mark.parametrize(("busy", "asked"), [(2, 3), (9, 4)])
def test_a_busy_server_is_asked_again_a_few_times(monkeypatch, busy, asked):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with serving(busy=busy) as (address, requests):
        judge = ServerJudge(address, "m")
        if asked > busy:
            assert score_of(judge("x")) is not None
        else:
            with pytest.raises(MonadnockError, match="503"):
                judge("x")
    assert len(requests) == asked and pauses == [1, 5, 20][: asked - 1]
