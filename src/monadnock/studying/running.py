"""Study a model over chosen inputs: observe each once, write it at once, and go on where a stopped start left off."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from monadnock.data.text import check_text
from monadnock.errors import MonadnockError, nearest
from monadnock.findings import Run
from monadnock.findings.summary_studies import shown_layer
from monadnock.interventions.changed import check_layer
from monadnock.models import Adapter
from monadnock.preparing import bar, evaluating, known_run, open_model
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan
from monadnock.studying.inputs import KINDS, Input, check_prompt, find_mark, make_inputs
from monadnock.studying.observing import map_rows, observe_input

PROBES = ("activations", "start_token")  # medians of h, and the massive layer
DEFAULT_TOKENS = 2048
FIRST_LAYERS = 2  # of which every study keeps the map

Place = tuple[int, int | None]  # layer, head; None is the mean over heads


def study(
    model: Any,
    kind: str,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    prompt: str | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    bos: bool | None = None,
    text: str | Path | None = None,
    dataset: str | None = None,
    tokens: int | None = None,
    length: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Show a model chosen inputs, and write down which of their tokens are massive and where attention goes.

    Every input is on disk as soon as it was seen, and is not seen again: the same call goes on where another one
    stopped; another prompt, layer or head adds to what is there.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        kind: bos (BOS nowhere, at the start, in the middle, at the end), length (from one sentence to 32), or
            attention (one text).
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model, from which medians and the massive layer are read and to which inputs are added; or a
            new folder, which is then scanned first for these. By default a new one under `monadnock-runs/`.
        prompt: a text for bos or attention in place of the published one.
        layers: layers of which maps are kept, besides those that every study keeps: the first two, the one behind the
            massive layer, and the one behind the layer that is shown.
        heads: heads of which maps are kept besides the mean over heads: in `layers`, or in all of these.
        bos: whether BOS stands in front, for length (by default both) and attention (by default if there is one).
        text, dataset, tokens, length: the text of the scan where one is made, see `scan`; 2,048 tokens by default.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with the tables `inputs` and `maps`.

    Raises:
        MonadnockError: on bad input, inputs of more than 256 tokens, a run of another model or without medians.

    Example:
        >>> run = study("smollm2", "bos")  # doctest: +SKIP
        >>> run.table("inputs").filter(pl.col("massive"))["token"].unique().to_list()  # doctest: +SKIP
        ['<|im_start|>', 'Summer']
    """
    if kind not in KINDS:
        raise MonadnockError(f"There is no study {kind!r}: {nearest(kind, KINDS)}")
    check_prompt(prompt)
    check_text(text, dataset)
    path, known = known_run(model, out)
    if known is not None:
        _check_tables(known)
    adapter = open_model(model, tokenizer, progress=progress, **options)
    _check_places(adapter, layers, heads)
    _inputs(adapter, kind, prompt, bos, known)  # what cannot be fed is refused before a scan
    if known is None:
        source = {"text": text, "dataset": dataset, "length": length}
        tokens = max(DEFAULT_TOKENS, length or 0) if tokens is None else tokens
        run = scan(adapter, out=path, probes=PROBES, tokens=tokens, progress=progress, **source)
    else:
        run = known
    with evaluating(adapter.model):
        check_same(run, adapter, weight_sums(adapter) if run.manifest.attacks else [])  # else there are none to compare
        places = _places(adapter, run, layers, heads)
        _fill(run, adapter, _inputs(adapter, kind, prompt, bos, run), places, progress=progress)
    return run


def _inputs(adapter: Adapter, kind: str, prompt: str | None, bos: bool | None, run: Run | None) -> list[Input]:
    mark = find_mark(adapter.tokenizer, None if run is None else run.manifest.text.start_token_id)
    return make_inputs(kind, adapter.tokenizer, prompt, bos, mark, adapter.context_length)


def _fill(run: Run, adapter: Adapter, inputs: list[Input], places: list[Place], *, progress: bool) -> None:
    """Observe what is not on disk yet, and write each part as soon as it is known."""
    medians = _medians(run)
    todo = []
    for each in inputs:
        maps = [place for place in places if not run.has("maps", _map_name(each, place))]
        if maps or not run.has("inputs", _name(each)):
            todo.append((each, maps))
    with bar("inputs", len(todo), progress) as step:
        for each, maps in todo:
            seen = observe_input(adapter, torch.tensor(each.ids), medians, maps)
            told = {"study": each.study, "input": each.name, "prompt": each.prompt}
            if not run.has("inputs", _name(each)):
                rows = [told | row | {"inserted": row["position"] == each.inserted} for row in seen.rows]
                run.add("inputs", _name(each), rows)
            for layer, head in maps:
                here = told | {"layer": layer, "head": head}
                rows = [here | row for row in map_rows(seen.maps[layer, head])]
                run.add("maps", _map_name(each, (layer, head)), rows)
            step()


def _name(each: Input) -> str:
    """Return the name of an input's part: the same for the same tokens, in whatever start."""
    digest = hashlib.sha256(repr((each.name, each.prompt, each.ids)).encode()).hexdigest()[:12]
    return f"{each.study}-{each.number:02d}-{re.sub(r'[^a-z0-9]+', '-', each.name.lower())}-{digest}"


def _map_name(each: Input, place: Place) -> str:
    layer, head = place
    return f"{_name(each)}-layer{layer:03d}-{'mean' if head is None else f'head{head:03d}'}"


def _places(adapter: Adapter, run: Run, layers: Sequence[int] | None, heads: Sequence[int] | None) -> list[Place]:
    """Return of which layers and heads maps are kept: means over heads, and the heads that were asked for."""
    weights = run.table("massive_weights")
    shown = shown_layer(run.manifest, {"massive_weights": weights})
    usual = [*range(FIRST_LAYERS), weights.sort("rank")["layer"][0] + 1, shown + 1]
    kept = sorted({layer for layer in [*usual, *(layers or ())] if layer < adapter.num_layers})
    single = sorted(set(layers)) if layers else kept
    return [(layer, None) for layer in kept] + [(layer, head) for layer in single for head in sorted(set(heads or ()))]


def _medians(run: Run) -> Tensor:
    """Return the median |h| behind each layer over the scanned text, [layer]."""
    return run.table("layers").filter(stream="residual").sort("layer")["median"].to_torch()


def _check_tables(run: Run) -> None:
    for name, what in (("layers", "medians of h are"), ("massive_weights", "the massive layer is")):
        rows = run.table(name) if run.heights().get(name) else pl.DataFrame()
        if rows.is_empty() or (name == "layers" and rows.filter(stream="residual").is_empty()):
            raise MonadnockError(
                f"{run.path} has no table {name} from which {what} read; scan with the probes {' and '.join(PROBES)}, "
                "or give a new folder."
            )


def _check_places(adapter: Adapter, layers: Sequence[int] | None, heads: Sequence[int] | None) -> None:
    for layer in layers or ():
        check_layer(adapter, layer)
    for head in heads or ():
        if not 0 <= head < adapter.num_heads:
            raise MonadnockError(
                f"Head {head} was asked, but {adapter.source.id} has the heads 0 to {adapter.num_heads - 1}."
            )
