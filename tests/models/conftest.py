"""The models that the tests of this folder run over: every registered family, and kinds within a family."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from monadnock.models.adapter import Adapter, Source
from monadnock.models.attention import AttentionBlock
from monadnock.models.family import families
from monadnock.models.heads import HeadStates
from monadnock.models.observe import observe
from monadnock.sites import Site, Stream
from tests.tiny import tiny_model

LENGTH = 44  # three blocks of queries when a block has 16

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in families()} | {
    "cohere-normed": ("cohere", {"use_qk_norm": True}),
    "falcon-40b": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-11b": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    "falcon-rw": ("falcon", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
    "gpt2-by-layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_inner": 48}),
    "gpt_neox-serial": ("gpt_neox", {"use_parallel_residual": False}),
    "mpt-clipped": ("mpt", {"attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.2}}),
    "opt-350m": ("opt", {"do_layer_norm_before": False}),
    "phi-normed": ("phi", {"qk_layernorm": True, "partial_rotary_factor": 0.25}),
    "llama-biased": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def adapter(case: str) -> Adapter:
    model_type, changes = CASES[case]
    return Adapter(tiny_model(model_type, **changes), None, Source(case, "object"))


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(3, 128, (LENGTH,), generator=torch.Generator().manual_seed(7))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monadnock.models.attention.block_rows", lambda *args, **kwargs: 16)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def sites(adapter: Adapter) -> list[Site]:
    """All sites of a model."""
    return [Site(stream, layer) for stream in sorted(adapter.streams()) for layer in range(adapter.num_layers)]


def record(adapter: Adapter, ids: Tensor, *streams: Stream) -> tuple[dict[Site, list[Any]], Tensor]:
    """Run once; return copies of what the watchers saw at the sites of the streams, and the logits."""
    seen: dict[Site, list[Any]] = {site: [] for site in sites(adapter) if not streams or site.stream in streams}

    def keep(site: Site) -> Any:
        def watch(batch: Any) -> None:
            if isinstance(batch, AttentionBlock):
                probs, counts = batch.probs.clone(), batch.num_queries.clone()
                seen[site].append(dataclasses.replace(batch, probs=probs, num_queries=counts))
            elif isinstance(batch, HeadStates):
                seen[site].append(batch)
            else:
                seen[site].append(type(batch)(batch.values.clone(), batch.position, batch.expert))

        return watch

    with observe(adapter, {site: keep(site) for site in seen}):
        logits = adapter.forward(ids, len(ids))
    return seen, logits


def values(adapter: Adapter, ids: Tensor, *streams: Stream) -> dict[Site, Tensor]:
    """Return the states [rows, width] at dense sites."""
    seen, _ = record(adapter, ids, *streams)
    assert all(len(parts) == 1 for parts in seen.values())
    return {site: parts[0].values for site, parts in seen.items()}


def probabilities(adapter: Adapter, ids: Tensor) -> list[Tensor]:
    """Return the observed probabilities of every layer, put together from blocks, [head, query, key]."""
    seen, _ = record(adapter, ids, Stream.ATTN_PROBS)
    whole = []
    for layer in range(adapter.num_layers):
        probs = torch.zeros(adapter.num_heads, len(ids), len(ids))
        for block in seen[Site(Stream.ATTN_PROBS, layer)]:
            queries, keys = block.probs.shape[1:]
            first, left = block.first_query, block.first_key
            assert (probs[:, first : first + queries] == 0).all(), "blocks overlap"
            probs[:, first : first + queries, left : left + keys] = block.probs
        whole.append(probs)
    return whole


@contextmanager
def eager(adapter: Adapter) -> Iterator[None]:
    """Run a model with transformers' own eager attention."""
    before = adapter.config._attn_implementation
    adapter.config._attn_implementation_internal = "eager"
    try:
        yield
    finally:
        adapter.config._attn_implementation_internal = before


def heads(states: Tensor, adapter: Adapter) -> Tensor:
    """Split [row, head * d_head] into [query head, row, d_head], repeating the heads of keys and values."""
    split = states.unflatten(1, (-1, adapter.d_head)).transpose(0, 1)
    return split.repeat_interleave(adapter.num_heads // split.shape[0], dim=0)
