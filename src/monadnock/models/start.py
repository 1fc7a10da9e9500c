"""The start token fed alone, layer by layer, through as many layers as it takes."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from monadnock.errors import MonadnockError
from monadnock.models.adapter import Adapter
from monadnock.models.observe import States, Watcher, observe
from monadnock.sites import Site, Stream
from monadnock.stats import RouterMean, Snapshot, preferred


class Enough(Exception):  # noqa: N818 - it ends a pass early and is no error
    """Ends a pass of `run_layers`; a watcher raises it when it has seen what it wants."""


@dataclass(frozen=True)
class StartStates:
    """What the start token alone gives in the layers that ran; NaN is 0.

    Attributes:
        residual: h, [layer, d_model] (float32, CPU).
        inner: x_down, in a mixture that of the expert which the router prefers, [layer, d_mlp] (float32, CPU).
        experts: that expert, by layer; None in dense models.
    """

    residual: Tensor
    inner: Tensor
    experts: list[int | None]


def start_states(
    adapter: Adapter, token_id: int, *, enough: Callable[[StartStates], bool] | None = None
) -> StartStates:
    """Feed one token alone at position 0 and keep its states; these are what the table `start_states` is made of.

    Args:
        adapter: the model.
        token_id: the token, as a rule BOS (oh2024).
        enough: called after each layer but the last with the states so far; the layers after the one at which it says
            True do not run, so that those of their weights which accelerate keeps on disk are not read.

    Returns:
        The states of the layers that ran.

    Raises:
        MonadnockError: if the model has no such token, or does not show its states.

    Example:
        >>> states = start_states(adapter, adapter.tokenizer.bos_token_id)  # doctest: +SKIP
        >>> states.inner[11].abs().topk(2).indices.tolist()  # doctest: +SKIP
        [1229, 1487]
    """
    layers = range(adapter.num_layers)
    residual, inner = [Snapshot(1) for _ in layers], [Snapshot(1) for _ in layers]
    router = [RouterMean(1) for _ in layers] if adapter.family.router else None
    kept = {Stream.RESIDUAL: residual, Stream.DOWN_PROJ_INPUT: inner} | (
        {Stream.ROUTER_LOGITS: router} if router else {}
    )

    def so_far(count: int) -> StartStates:
        for stream, statistics in kept.items():
            if unseen := [layer for layer in range(count) if not statistics[layer].seen[0]]:
                raise MonadnockError(
                    f"Nothing was seen at {Site(stream, unseen[0])}: family {adapter.family.model_type} does not let "
                    "it be observed."
                )
        states = [preferred(inner[layer], router[layer] if router else None) for layer in range(count)]
        return StartStates(
            torch.stack([state.values[0] for state in residual[:count]]).nan_to_num(),
            torch.stack([state.values for state in states]),
            [state.expert for state in states],
        )

    watchers = {Site(stream, layer): _keeper(kept[stream][layer]) for stream in kept for layer in layers}
    decide = (lambda layer: enough(so_far(layer + 1))) if enough else None
    return so_far(run_layers(adapter, torch.tensor([token_id]), watchers, decide))


def _keeper(statistic: Snapshot | RouterMean) -> Watcher:
    return lambda batch: statistic.update(batch, 0)


def run_layers(
    adapter: Adapter, ids: Tensor, watchers: Mapping[Site, Watcher], enough: Callable[[int], bool] | None = None
) -> int:
    """Run one window through the layers, and stop after the one at which `enough` says True, or after the last.

    Hooks and functions are put back as `observe` does. The final norm and the logits never run.

    Args:
        adapter: the model.
        ids: token ids of one window, [seq], or of several, [window, seq]; these are shown as one after another.
        watchers: what is shown the states at each site, as for `observe`; one that raises `Enough` ends the pass there.
        enough: called with each layer (0-based) but the last, after its watchers.

    Returns:
        How many layers ran.

    Raises:
        MonadnockError: if a token id is beyond the model's embeddings.
    """
    rows, largest = adapter.model.get_input_embeddings().weight.shape[0], int(ids.max())
    if largest >= rows:
        raise MonadnockError(
            f"The tokenizer gives id {largest}, but the model has {rows} embeddings; "
            "give the tokenizer that belongs to the model."
        )
    ran = 0

    def after(layer: int) -> Watcher:
        watch = watchers.get(Site(Stream.RESIDUAL, layer))

        def step(batch: States) -> None:
            nonlocal ran
            ran = layer + 1
            if watch is not None:
                watch(batch)
            if ran == adapter.num_layers or (enough is not None and enough(layer)):
                raise Enough  # from a hook: the layer, and what accelerate does around it, is done by now

        return step

    ends = {Site(Stream.RESIDUAL, layer): after(layer) for layer in range(adapter.num_layers)}
    with suppress(Enough), observe(adapter, {**watchers, **ends}):
        adapter.forward(ids)
    return ran
