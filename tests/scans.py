"""What tests of whole scans share: small sizes, a run as plain rows, and a model's state before and after."""

from typing import Any

import torch

from monadnock import Run
from monadnock.models import attention, experts
from tests.words import word_tokenizer

TOKENIZER = word_tokenizer()
SIZES: dict[str, Any] = {"length": 24, "tokens": 72}  # three windows


def tables(run: Run) -> dict[str, list[tuple]]:
    """Return the rows of every table."""
    return {name: frame.rows() for name, frame in run.tables().items()}


def state(model: Any) -> tuple:
    """Return what a scan might change and must give back."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    config = model.config._attn_implementation, getattr(model.config, "_experts_implementation", None)
    return weights, hooks, config, [module.training for module in model.modules()]


def assert_untouched(model: Any, before: tuple) -> None:
    """Assert that a model is as it was when `state` was taken."""
    after = state(model)
    assert after[1:] == before[1:]
    assert all(torch.equal(value, before[0][name]) for name, value in after[0].items())
    assert not attention.watchers and not experts.watchers
