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
    keeper = StartKeeper(adapter)
    decide = (lambda layer: enough(keeper.states(layer + 1))) if enough else None
    return keeper.states(run_layers(adapter, torch.tensor([token_id]), keeper.watchers, decide))


class StartKeeper:
    """Keeps what `StartStates` is made of while the start token goes through the layers.

    Attributes:
        watchers: what has to be shown the states at each site.
    """

    def __init__(self, adapter: Adapter):
        layers = range(adapter.num_layers)
        self._family = adapter.family.model_type
        self._residual, self._inner = [Snapshot(1) for _ in layers], [Snapshot(1) for _ in layers]
        self._router = [RouterMean(1) for _ in layers] if adapter.family.router else None
        self._kept = {Stream.RESIDUAL: self._residual, Stream.DOWN_PROJ_INPUT: self._inner} | (
            {Stream.ROUTER_LOGITS: self._router} if self._router else {}
        )
        places = [(stream, layer) for stream in self._kept for layer in layers]
        self.watchers = {Site(*place): _keeper(self._kept[place[0]][place[1]]) for place in places}

    def at(self, layer: int) -> dict[Site, Watcher]:
        """Return the watchers of one layer."""
        return {site: watch for site, watch in self.watchers.items() if site.layer == layer}

    def states(self, count: int) -> StartStates:
        """Return the states of the first `count` layers.

        Raises:
            MonadnockError: if nothing was seen at one of them.
        """
        for stream, statistics in self._kept.items():
            if unseen := [layer for layer in range(count) if not statistics[layer].seen[0]]:
                raise MonadnockError(
                    f"Nothing was seen at {Site(stream, unseen[0])}: family {self._family} does not let it be observed."
                )
        router = self._router or [None] * count
        states = [preferred(*each) for each in zip(self._inner[:count], router[:count], strict=True)]
        return StartStates(
            torch.stack([state.values[0] for state in self._residual[:count]]).nan_to_num(),
            torch.stack([state.values for state in states]),
            [state.expert for state in states],
        )


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
