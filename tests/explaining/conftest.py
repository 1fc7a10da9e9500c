"""Tiny models in which every link of the chain is planted, and others in which one is broken by construction."""

from typing import Any

import pytest
import torch

from monadnock.data import token_windows
from monadnock.explaining import explain
from monadnock.findings.chain_links import LINKS
from monadnock.findings.summary_chain import find_cuts
from monadnock.models import Adapter
from monadnock.sites import Stream
from tests.models.conftest import one_thread  # noqa: F401 (a fixture)
from tests.planting import Patient, Reserved, read_out
from tests.words import BOS_ID, random_words, word_tokenizer, write_words

TOKENIZER = word_tokenizer()
LENGTH, WINDOWS, LAYER, ROWS, FEATURE = 24, 2, 1, [9, 40], 3
SINK_LAYER, NOISE, OTHER = 2, 28, 5
RESERVED = Reserved(every=30, start=31, marker=29)
SIZES: dict[str, Any] = {"length": LENGTH, "tokens": LENGTH * WINDOWS, "progress": False}


def planted(model_type: str, text, *, broken: str = "", predicts: bool = False) -> Adapter:
    """Return a tiny model with massive rows in layer 1, and heads in layer 2 with a sink where these made a feature.

    Args:
        model_type: llama, mixtral or gpt2.
        text: its text.
        broken: the link that is broken: `rows` (the embedding has a massive activation too), `sinks` (the sink's keys
            read what no layer makes), or none.
        predicts: whether what the heads read of other tokens than the sink goes to the logits, and nothing else does.
    """
    ids = token_windows(TOKENIZER, text=text, length=LENGTH, tokens=LENGTH * WINDOWS).ids
    patient = Patient(model_type, ids, RESERVED)
    silence(patient.adapter)
    if broken == "rows":
        with torch.no_grad():
            patient.adapter.model.get_input_embeddings().weight[BOS_ID, OTHER] = 8900.0
    patient.plant_rows(LAYER, ROWS, [4000.0, 2500.0], feature=FEATURE, total=9000.0)
    for head in range(4):
        patient.plant_sink(SINK_LAYER, head, BOS_ID, RESERVED.start if broken == "sinks" else FEATURE)
    if predicts:
        plant_noise(patient)
    patient.adapter.tokenizer = TOKENIZER
    return patient.adapter


@torch.no_grad()
def silence(adapter: Adapter) -> None:
    """Let nothing write into the features that are planted."""
    features = [FEATURE, NOISE]
    adapter.model.get_input_embeddings().weight[:, features] = 0
    if adapter.family.positions:
        adapter.decoder.get_submodule(adapter.family.positions).weight[:, features] = 0
    for layer in range(adapter.num_layers):
        for role, expert, view in adapter.matrices(layer):
            for part in (view, adapter.bias(layer, role, expert) if role != "router" else None):
                if part is not None and role in ("o", "down"):
                    part.set_rows(torch.tensor(features), 0.0)


@torch.no_grad()
def plant_noise(patient: Patient) -> None:
    """Let the heads with a sink write what they read of other tokens into a feature that alone makes the logits."""
    adapter = patient.adapter
    states = patient.states(Stream.ATTN_INPUT, SINK_LAYER)
    out = adapter.weight(SINK_LAYER, "o").read()
    out[:] = 0
    other = read_out(states, patient.ids != BOS_ID)
    for head in range(adapter.num_kv_heads):
        adapter.weight(SINK_LAYER, "v").set_rows(torch.tensor([head * adapter.d_head]), other)
    out[NOISE, :: adapter.d_head] = 30.0
    unembedding = adapter.model.lm_head.weight
    drawn = torch.randn(len(unembedding), generator=torch.Generator().manual_seed(0))
    unembedding[:] = 0
    unembedding[:, NOISE] = drawn


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(300))


@pytest.fixture(scope="module")
def llama(text):
    return planted("llama", text, predicts=True)


@pytest.fixture
def run_explain(text, tmp_path):
    """Return a function that explains into `tmp_path/run`."""

    def run(adapter, **options):
        return explain(adapter, **{"text": text, "out": tmp_path / "run", **SIZES, **options})

    return run


def verdicts(table) -> dict[tuple[str, str | None], str]:
    """Return what is said of every link that was tested, by link and mode."""
    cuts = [(link.name, cut) for link in LINKS for cut in find_cuts(table, link)]
    return {(name, cut.mode): cut.verdict.word for name, cut in cuts if cut.verdict}
