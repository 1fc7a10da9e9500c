"""Rotary position embeddings as the model itself turns them: angles of every layer, pairs of dimensions, context."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monadnock.models.adapter import Adapter


@dataclass(frozen=True)
class Turn:
    """How one layer turned the pairs of a window's queries and keys.

    Pair f of position p is turned by `theta[f] * p`: (a, b) becomes (a cos - b sin, b cos + a sin).

    Attributes:
        cos: [seq, feature], in the model's dtype, with the factor that yarn and longrope put on it.
        sin: [seq, feature], likewise.
        theta: angle per position in radians, from the rotary embedding in float32, [feature] (float64, CPU).
        first: first dimension of each pair, [feature] (CPU).
        second: second dimension of each pair, [feature] (CPU).
    """

    cos: Tensor
    sin: Tensor
    theta: Tensor
    first: Tensor
    second: Tensor

    def pairs(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Split states [..., d_head] into the two dimensions of each pair, [..., feature] twice; no copy."""
        count, step = len(self.theta), int(self.second[0])
        if step == 1:  # interleaved
            return states[..., 0 : 2 * count : 2], states[..., 1 : 2 * count : 2]
        return states[..., :count], states[..., step : step + count]

    def turned(self, states: Tensor) -> Tensor:
        """Turn states [..., seq, d_head] as the model does; dimensions without a pair stay as they are."""
        (a, b), (cos, sin) = self.pairs(states), (self.cos, self.sin)
        turned = states.clone()
        turned[..., self.first], turned[..., self.second] = a * cos - b * sin, b * cos + a * sin
        return turned


def make_turn(shown: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor], *, interleaved: bool) -> Turn | None:
    """Read the turn off what a rotary embedding gave: cos and sin, each [1, seq, width].

    Families repeat every angle for both dimensions of a pair, or give it once (gpt-oss): what is given decides.

    Args:
        shown: what the layer got, in the model's dtype.
        exact: the same in float32, which the angles are taken from.
        interleaved: whether pairs are (2i, 2i + 1) instead of (i, i + width / 2).

    Returns:
        The turn; None for windows of one token, whose angles are all 0.
    """
    cos, sin = (part[0] for part in shown)
    size, width = cos.shape
    if size < 2:
        return None
    half = width // 2
    places = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
    repeated = width % 2 == 0 and all(torch.equal(part[:, places[0]], part[:, places[1]]) for part in (cos, sin))
    once = places[0] if repeated else slice(None)
    theta = torch.atan2(exact[1][0, 1, once].double(), exact[0][0, 1, once].double()).cpu()
    feature = torch.arange(len(theta))
    first, second = (2 * feature, 2 * feature + 1) if interleaved else (feature, feature + len(theta))
    return Turn(cos[:, once], sin[:, once], theta, first, second)


@contextmanager
def watch_turns(adapter: Adapter, take: Callable[[int, Turn | None], None], layers: Iterator[int]) -> Iterator[None]:
    """Show `take` how each layer turns its queries and keys, before its attention runs.

    The rotary embeddings are asked again in float32 where the model runs in another dtype: of angles as small as
    1e-5, bfloat16 keeps nothing.
    """
    made: dict[int, tuple[tuple[Tensor, Tensor], Turn | None]] = {}  # by identity of cos: layers share an embedding
    interleaved = adapter.family.rotary == "interleaved"

    def embed(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        exact = output
        if output[0].dtype != torch.float32:
            args = tuple(part.float() if index == 0 else part for index, part in enumerate(args))
            exact = module.forward(*args, **{k: v.float() if k == "x" else v for k, v in kwargs.items()})
        made[id(output[0])] = (output, make_turn(output, exact, interleaved=interleaved))  # output is kept alive

    def show(layer: int) -> Callable[[nn.Module, tuple, dict], None]:
        def hook(_module: nn.Module, _args: tuple, kwargs: dict) -> None:
            cos = (kwargs.get("position_embeddings") or (None,))[0]
            _, turn = made.get(id(cos), (None, None))
            take(layer, turn)

        return hook

    with ExitStack() as stack:
        if adapter.family.rotary != "none":
            for name, module in adapter.decoder.named_modules():
                if name.rpartition(".")[2].startswith("rotary_emb"):
                    stack.callback(module.register_forward_hook(embed, with_kwargs=True).remove)
        stack.callback(adapter.decoder.register_forward_pre_hook(lambda *_: made.clear()).remove)
        for layer in layers:
            module = adapter.module(layer, adapter.family.attention_module)
            stack.callback(module.register_forward_pre_hook(show(layer), with_kwargs=True).remove)
        yield


def training_context(adapter: Adapter, layer: int) -> int | None:
    """Return the context length in training: what RoPE was scaled from, or the window where the layer slides.

    None where the config names no limit.
    """
    config = adapter.config
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = getattr(config, "layer_types", None)
    if kinds and isinstance(rope.get(kinds[layer]), dict):
        rope = rope[kinds[layer]]
    original = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    limit = original or adapter.context_length
    window = sliding_window(adapter, layer)
    return min(window, limit or window) if window else limit


def sliding_window(adapter: Adapter, layer: int) -> int | None:
    """Return how many keys a query of this layer sees at most, its own included; None if all."""
    module, config = adapter.module(layer, adapter.family.attention_module), adapter.config
    if hasattr(module, "sliding_window"):
        return module.sliding_window
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or kinds[layer] == "sliding_attention"
    return getattr(config, "sliding_window", None) if slides else None
