"""Observation where something is amiss: families that promise too much, modules without probabilities."""

from dataclasses import replace

import pytest
import torch

from monadnock.errors import MonadnockError
from monadnock.models import attention
from monadnock.models.adapter import Adapter, Source
from monadnock.models.observe import observe
from monadnock.sites import Site, Stream
from tests.tiny import tiny_model

IDS = torch.arange(3, 13)
PROBS = {Site(Stream.ATTN_PROBS, 0): lambda block: None}


def adapter_of(model_type: str) -> Adapter:
    return Adapter(tiny_model(model_type), None, Source("mine", "object"))


def test_an_interface_that_does_not_exist_is_refused():
    adapter = adapter_of("falcon")
    adapter.family = replace(adapter.family, attention="interface")
    with pytest.raises(MonadnockError, match="Attention is not observed for falcon"), observe(adapter, PROBS):
        pass
    assert adapter.config._attn_implementation == "sdpa"
    assert not attention.watchers


def test_a_module_that_returns_no_probabilities_is_refused():
    adapter = adapter_of("llama")
    adapter.family = replace(adapter.family, attention="returned")
    silent = adapter.layers[0].self_attn
    plain = silent.forward
    silent.forward = lambda *args, **kwargs: (plain(*args, **kwargs)[0], None)
    with pytest.raises(MonadnockError, match="LlamaAttention returned no probabilities"), observe(adapter, PROBS):
        adapter.forward(IDS)
    assert adapter.config._attn_implementation == "sdpa"


def test_an_attention_without_eager_function_is_refused():
    class Lonely(torch.nn.Module):
        pass

    with pytest.raises(MonadnockError, match="Attention is not observed for Lonely"):
        attention.eager_function(Lonely())


def test_observations_can_be_nested_and_repeated():
    adapter = adapter_of("gpt_oss")
    seen: list[str] = []
    with observe(adapter, {Site(Stream.ATTN_PROBS, 0): lambda block: seen.append("probs")}):
        with observe(adapter, {Site(Stream.DOWN_PROJ_INPUT, 1): lambda states: seen.append("down")}):
            adapter.forward(IDS)
        assert {"probs", "down"} == set(seen)
        seen.clear()
        adapter.forward(IDS)
        assert seen and set(seen) == {"probs"}
    seen.clear()
    adapter.forward(IDS)
    assert not seen


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("setting", ["eager", "batched_mm", "grouped_mm"])
def test_experts_setting_is_given_back(model_type, setting):
    adapter = adapter_of(model_type)
    adapter.model.set_experts_implementation(setting)
    plain = adapter.forward(IDS, 10)
    with observe(adapter, {Site(Stream.DOWN_PROJ_INPUT, 0): lambda states: None}):
        torch.testing.assert_close(adapter.forward(IDS, 10), plain, rtol=1e-5, atol=1e-5)
    assert adapter.config._experts_implementation == setting
    assert torch.equal(adapter.forward(IDS, 10), plain)


def test_eager_falcon_with_alibi_would_add_it_twice():
    """Why `alibi_in_mask` exists; when this fails, transformers has mended it and the field can go."""
    adapter = Adapter(tiny_model("falcon", alibi=True, parallel_attn=False), None, Source("mine", "object"))
    plain = adapter.forward(IDS, 10)
    adapter.config._attn_implementation_internal = "eager"
    assert (adapter.forward(IDS, 10) - plain).abs().max() > 1e-3
