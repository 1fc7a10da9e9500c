"""Tiny models of every family to change and to find unchanged again."""

import pytest
import torch

from monadnock.models import Adapter, Source
from tests.models.conftest import CASES, one_thread, without_gradients  # noqa: F401 (fixtures)
from tests.tiny import tiny_model

IDS = torch.randint(3, 100, (20,), generator=torch.Generator().manual_seed(3))


def make(case, dtype=torch.float32):
    model_type, changes = CASES[case]
    return Adapter(tiny_model(model_type, **changes).to(dtype), None, Source(case, "object"))


@pytest.fixture(scope="module", params=list(CASES))
def adapter(request):
    return make(request.param)


@pytest.fixture(scope="module")
def llama():
    return make("llama")


def expert_of(adapter):
    return None if adapter.num_experts is None else 1


def bits(adapter):
    """Return every parameter as raw bytes, so that -0, 0 and NaN are told apart."""
    return {
        name: p.detach().contiguous().view(torch.uint8).clone()
        for name, p in adapter.model.named_parameters()
        if p.numel()
    }


def assert_same_bits(adapter, before):
    after = bits(adapter)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    modules = list(adapter.model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert not any("forward" in vars(module) for module in modules)
