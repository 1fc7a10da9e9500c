"""Verify a model against the catalogue: its massive weights, found in as few layers as that takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from monadnock.catalogue import Entry, entry_named
from monadnock.data.text import built_in_text
from monadnock.errors import MonadnockError
from monadnock.findings.words import listed, number
from monadnock.models import Adapter, States
from monadnock.models.layerwise import embed, holding, run_layer, walking
from monadnock.models.start import StartKeeper, StartStates
from monadnock.preparing import evaluating, open_model
from monadnock.sites import Site, Stream
from monadnock.stats import is_massive, massive_layer

TEXT_TOKENS = 64  # over which the medians are taken, BOS included
TEXT_CHARS = 4096  # of the built-in text; no tokenizer makes fewer than TEXT_TOKENS of them

Outcome = Literal["match", "partial", "mismatch"]


@dataclass(frozen=True)
class Verdict:
    """What `verify` found; as a string it is the sentence.

    Attributes:
        outcome: match, partial or mismatch.
        sentence: the finding for people.
        model: the model that was looked at.
        entry: the catalogue's entry.
        layer: the massive layer that was found, from 0.
        expert: the expert in a mixture, from 0; None in dense models.
        features: indices with the largest |x_down| there, the largest first, as many as the entry has.
        magnitudes: their |x_down|.
        massive: whether a massive activation stood in h after the last layer that ran.
        start_token_id: the token that was fed alone (BOS).
        layers_run: how many layers ran.
        num_layers: how many the model has.
    """

    outcome: Outcome
    sentence: str
    model: str
    entry: Entry
    layer: int
    expert: int | None
    features: tuple[int, ...]
    magnitudes: tuple[float, ...]
    massive: bool
    start_token_id: int
    layers_run: int
    num_layers: int

    def __str__(self) -> str:
        return self.sentence


def verify(
    model: Any,
    tokenizer: Any = None,
    *,
    entry: str | None = None,
    progress: bool = True,
    **options: Any,
) -> Verdict:
    """Compare a model's massive weights with those that the catalogue has for it.

    The rule. BOS is fed alone (oh2024) through the layers up to the catalogue's, and on until a massive activation
    (sun2024: |h| > 100 and > 1000 times the median |h| of that layer over a short text) stands in its h, at worst to
    the last layer. Of the layers that ran, the massive layer is the one with the largest top-1 |x_down| up to the
    peak of top-1 |h|. With the expert that the router prefers and the indices of the largest |x_down| there,

    - *match* means: the same layer and expert, and the same indices in the same order;
    - *partial*: the same layer and expert, and some of the indices, or all of them in another order;
    - *mismatch*: another layer or expert, or no index in common.

    Where to stop is found with the text, 64 tokens of the built-in one with BOS in front, which goes through each layer
    beside the token alone; in front of a text, the start token has the states that it has alone. Of a model that is
    kept on disk (`device="disk"`), the layers that need not run are not read, and each of the others once.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        entry: name of the entry to compare with; by default the one with the model's name.
        progress: say on a terminal that the model is loading.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The `Verdict`.

    Raises:
        MonadnockError: if the catalogue has no such entry, the model cannot be loaded, or its tokenizer has no BOS
            token: the catalogue's numbers are BOS's, and another token's would be no contradiction.

    Example:
        >>> verify("smollm2").outcome  # doctest: +SKIP
        'match'
    """
    if entry is not None or isinstance(model, (str, Path)):
        entry_named(str(model) if entry is None else entry)  # before anything slow
    adapter = open_model(model, tokenizer, progress=progress, **options)
    name = adapter.source.id
    known = entry_named(name if entry is None else entry)
    start = getattr(adapter.tokenizer, "bos_token_id", None)
    if start is None:
        raise MonadnockError(
            f"The tokenizer of {name} has no BOS token, with which the catalogue's massive weights were found; "
            "`monadnock scan` shows what the first token of a text does instead."
        )
    with evaluating(adapter.model):
        states, massive = _search(adapter, start, known.layer)
    layers_run = len(states.residual)
    layer = massive_layer(states.residual, states.inner)
    top = states.inner[layer].abs().topk(min(len(known.features), states.inner.shape[1]))
    features, magnitudes = tuple(top.indices.tolist()), tuple(top.values.tolist())
    outcome, comparison = _compare(known, layer, states.experts[layer], features)
    if outcome == "mismatch" and not massive:
        comparison = (
            f"Mismatch with the catalogue's {known.model} ({known.source}): no massive weights were found, there they "
            f"are in {_place(known.layer, known.expert)}."
        )
    sizes = ", ".join(f"{index} ({number(size)})" for index, size in zip(features, magnitudes, strict=True))
    stood = "" if massive else ", and no massive activation stood in h after them"
    sentence = (
        f"{comparison} Largest |x_down| in {_place(layer, states.experts[layer])}: {sizes}. "
        f"BOS ({adapter.tokenizer.decode([start])!r}, id {start}) was fed alone; {layers_run} of {adapter.num_layers} "
        f"layers ran{stood}. Layers count from 0."
    )
    return Verdict(
        outcome=outcome,
        sentence=sentence,
        model=name,
        entry=known,
        layer=layer,
        expert=states.experts[layer],
        features=features,
        magnitudes=magnitudes,
        massive=massive,
        start_token_id=start,
        layers_run=layers_run,
        num_layers=adapter.num_layers,
    )


def _search(adapter: Adapter, start: int, least: int) -> tuple[StartStates, bool]:
    """Take the start token and the text through layers up to `least`, and on until h is massive behind one of them.

    Returns:
        The start token's states in the layers that ran, and whether h is massive behind the last of them.
    """
    length = min(TEXT_TOKENS, adapter.context_length or TEXT_TOKENS)
    text = adapter.tokenizer(built_in_text()[:TEXT_CHARS], add_special_tokens=False, verbose=False)["input_ids"]
    windows = torch.tensor([start]), torch.tensor([start, *text[: length - 1]])
    keeper, massive = StartKeeper(adapter), False

    def look(batch: States) -> None:
        nonlocal massive
        values = batch.values.float()
        massive = bool(is_massive(values[0], values.abs().median()).any())

    layer = 0
    with walking(adapter):
        with holding(adapter, -1):
            states: list[Any] = [embed(adapter, ids) for ids in windows]
        for layer in range(adapter.num_layers):
            watchers = keeper.at(layer), {Site(Stream.RESIDUAL, layer): look}
            with holding(adapter, layer):
                states = [
                    run_layer(adapter, *each) for each in zip(windows, (layer, layer), states, watchers, strict=True)
                ]
            if massive and layer >= least:
                break
    return keeper.states(layer + 1), massive


def _compare(entry: Entry, layer: int, expert: int | None, found: tuple[int, ...]) -> tuple[Outcome, str]:
    """Return the outcome, and a sentence on what agrees with the entry and what does not."""
    named = f"the catalogue's {entry.model} ({entry.source})"
    place = _place(entry.layer, entry.expert)
    if (layer, expert) != (entry.layer, entry.expert):
        return "mismatch", f"Mismatch with {named}: {_place(layer, expert)}, not {place}."
    common = [index for index in found if index in entry.features]
    if not common:
        return "mismatch", f"Mismatch with {named}: {place}, but none of its indices {_list(entry.features)}."
    total = len(entry.features)
    if found == entry.features:
        return "match", f"Match with {named}: {place}, and its {total} indices in the same order."
    expected = [index for index in entry.features if index in common]
    order = "the same order" if common == expected else f"another order (there {_list(entry.features)})"
    if len(common) == total:
        return "partial", f"Partial match with {named}: {place}, and its {total} indices in {order}."
    missing = [index for index in entry.features if index not in found]
    instead = [index for index in found if index not in entry.features]
    came = f" and {_list(instead)} in {'its' if len(missing) == 1 else 'their'} place" if instead else ""
    return "partial", (
        f"Partial match with {named}: {place}, and {len(common)} of its {total} indices in {order}, "
        f"without {_list(missing)}{came}."
    )


def _place(layer: int, expert: int | None) -> str:
    return f"layer {layer}" if expert is None else f"layer {layer}, expert {expert}"


def _list(indices: Sequence[int]) -> str:
    return listed([str(index) for index in indices], len(indices))
