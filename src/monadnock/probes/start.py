"""What several probes read off the start token fed alone, and the medians of the text to hold it against."""

import torch
from torch import Tensor

from monadnock.probes.base import Ask, Evidence
from monadnock.sites import Stream
from monadnock.stats import Magnitude, Preferred, RouterMean, Snapshot, preferred


def start_asks(*streams: Stream, router: bool) -> list[Ask]:
    """Ask for the start token's states, for its router where there is one, and for the text's medians of h and x_down.

    Args:
        *streams: beyond h and x_down.
        router: whether the model has one.
    """
    wanted = (Stream.RESIDUAL, Stream.DOWN_PROJ_INPUT, *streams)
    asks = [Ask(stream, Snapshot, "start") for stream in wanted]
    asks += [Ask(stream, Magnitude) for stream in (Stream.RESIDUAL, Stream.DOWN_PROJ_INPUT)]
    return asks + ([Ask(Stream.ROUTER_LOGITS, RouterMean, "start")] if router else [])


def start_state(evidence: Evidence, stream: Stream, layer: int) -> Tensor:
    """Return a state of the start token, [width]; NaN is 0."""
    return evidence.get(Snapshot, stream, layer, "start").values[0].nan_to_num()


def start_residual(evidence: Evidence) -> Tensor:
    """Return h of the start token behind every layer, [layer, d_model]."""
    return torch.stack([start_state(evidence, Stream.RESIDUAL, i) for i in range(evidence.adapter.num_layers)])


def start_intermediate(evidence: Evidence, layer: int) -> Preferred:
    """Return x_down of the start token; of the router's favourite expert in a mixture."""
    state = evidence.get(Snapshot, Stream.DOWN_PROJ_INPUT, layer, "start")
    router = evidence.adapter.family.router
    return preferred(state, evidence.get(RouterMean, Stream.ROUTER_LOGITS, layer, "start") if router else None)


def text_median(evidence: Evidence, stream: Stream, layer: int) -> Tensor:
    """Median |value| over the text at one layer; a single row would inflate its own."""
    return evidence.get(Magnitude, stream, layer).medians().mean().float()


def text_medians(evidence: Evidence, stream: Stream) -> Tensor:
    """Return the same of every layer, [layer]."""
    return torch.stack([text_median(evidence, stream, layer) for layer in range(evidence.adapter.num_layers)])
