"""Read a model's weights and states in words and numbers, and write each part into a run as soon as it is known."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch.nn import functional as F

from monadnock.data import Windows
from monadnock.data.text import check_text
from monadnock.errors import MonadnockError, nearest
from monadnock.findings import Run
from monadnock.interventions.changed import check_layer
from monadnock.models import Adapter
from monadnock.models.components import tied
from monadnock.observing import observe_text
from monadnock.preparing import bar, evaluating, known_run, open_model, start_token, text_windows
from monadnock.probes.attention import Attention
from monadnock.reading import heads, layers, outliers, sentences, tokens
from monadnock.reading.dictionary import Dictionary, input_dictionary, one_token, output_dictionary
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan

WHAT = ("tokens", "heads", "layers", "outliers")
PROBES = ("start_token", "attention", "activations", "weights")  # what outliers and heads need, and what depth shows
WORDS = ("girl", "boy", "woman", "man", "red", "yellow", "long", "short", "round", "sharp", "ball", "play")

OUTLIERS = ("massive_weights", "lifecycles")  # tables

Found = dict[str, list[dict[str, Any]]]  # rows by table
Job = tuple[str, str, Callable[[], Found]]  # part, the table that says that it is done, what makes the rows


def read(
    model: Any,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    what: Sequence[str] = WHAT,
    words: Sequence[str] = WORDS,
    row_layers: Sequence[int] = (0,),
    text: str | Path | None = None,
    dataset: str | None = None,
    tokens: int | None = None,
    length: int | None = None,
    bos: bool | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Read what can be decoded from a model's weights and states, with its own token vectors as dictionaries.

    Each part is on disk as soon as it is known: the same call goes on where another one stopped, and other words,
    layers or texts add to what is there.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model, from which massive weights and kinds of heads are read; or a new folder, which is then
            scanned first for these. By default a new one under `monadnock-runs/`.
        what: tokens, heads, layers, outliers.
        words: single tokens whose similarities and nearest tokens are told.
        row_layers: layers of which every row of W_q and W_k is read, not only the strongest pairs.
        text, dataset, tokens, length, bos, seed: the text for layers and continuations, see `scan`.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with the tables dictionaries, singular_values, word_similarity, nearest_words, continuations, circuits,
        readings, state_similarity and first_sentence.

    Raises:
        MonadnockError: on bad input, a word of several tokens, or a run of another model.

    Example:
        >>> run = read("smollm2", what=["tokens"], words=["red", "blue"])  # doctest: +SKIP
        >>> run.table("dictionaries").select("dictionary", "positive_share")  # doctest: +SKIP
    """
    for name in what:
        if name not in WHAT:
            raise MonadnockError(f"There is nothing to read named {name!r}: {nearest(name, WHAT)}")
    if not what:
        raise MonadnockError(f"Nothing was asked to be read; there are {', '.join(WHAT)}.")
    if isinstance(words, str) or not all(map(str.strip, words)) or not words:
        raise MonadnockError(f"{words!r} was given as words; give a list of one word or more, as red, blue.")
    check_text(text, dataset)
    path, known = known_run(model, out)
    if known is not None and "outliers" in what and not set(OUTLIERS) <= set(known.heights()):
        raise MonadnockError(
            f"{path} has no tables {' and '.join(OUTLIERS)}, from which outliers are read; scan with the probe "
            "start_token, or read tokens, heads and layers alone."
        )
    adapter = open_model(model, tokenizer, progress=progress, **options)
    for layer in row_layers:
        check_layer(adapter, layer)
    chosen = one_token(adapter.tokenizer, words) if words is not WORDS else _possible(adapter.tokenizer, words)
    source: dict[str, Any] = {"text": text, "dataset": dataset, "tokens": tokens, "length": length, "bos": bos}
    windows = text_windows(adapter, seed=seed, **source)
    run = known or scan(adapter, out=path, probes=PROBES, seed=seed, progress=progress, **source)
    with evaluating(adapter.model):
        check_same(run, adapter, weight_sums(adapter) if run.manifest.attacks else [])
        jobs = _jobs(adapter, run, what, chosen, row_layers, windows)
        todo = [job for job in jobs if not run.has(job[1], job[0])]
        with bar("readings", len(todo), progress) as step:
            for part, last, make in todo:
                for table, rows in sorted(make().items(), key=lambda item: item[0] == last):
                    run.add(table, part, rows)  # the table that says that the job is done comes last
                step()
    return run


def _possible(tokenizer: Any, words: Sequence[str]) -> dict[str, int]:
    """Return the tokens of those of our own words that are single tokens in this vocabulary."""
    found: dict[str, int] = {}
    for word in words:
        try:
            found |= one_token(tokenizer, [word])
        except MonadnockError:
            continue
    return found


def _jobs(
    adapter: Adapter,
    run: Run,
    what: Sequence[str],
    words: dict[str, int],
    row_layers: Sequence[int],
    windows: Windows,
) -> list[Job]:
    """Return what was asked for, part by part, in the order in which it is made."""
    own, output = input_dictionary(adapter), output_dictionary(adapter)
    jobs: list[Job] = []
    if "tokens" in what:
        jobs += [(each.name, "dictionaries", partial(_dictionary, adapter, each, own)) for each in (own, output)]
        jobs.append((_hash(words), "nearest_words", partial(_words, adapter, own, output, words)))
        jobs.append((_hash(windows.token_hash), "continuations", partial(_continuations, own, output, windows)))
    if "outliers" in what:
        jobs.append(("outliers", "readings", lambda: {"readings": outliers.read_outliers(adapter, run, own, output)}))
    if "layers" in what:
        jobs.append((_hash(windows.token_hash), "state_similarity", partial(_layers, adapter, windows)))
        jobs.append((_hash(windows.token_hash), "first_sentence", partial(_sentences, adapter, windows)))
    if "heads" in what:
        offsets = cache(lambda: _offsets(adapter, run, windows))
        for layer in range(adapter.num_layers):
            jobs.append((f"layer-{layer:03d}", "circuits", partial(_heads, adapter, layer, offsets, (own, output))))
            if layer in row_layers:
                jobs.append((f"rows-{layer:03d}", "readings", partial(_head_rows, adapter, layer, offsets, own)))
    return jobs


def _hash(asked: Any) -> str:
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:12]


def _dictionary(adapter: Adapter, each: Dictionary, own: Dictionary) -> Found:
    values = tokens.singular_values(each.rows)
    facts = tokens.dictionary_facts(each, own, values) | {"tied": tied(adapter)}
    ranked = enumerate(values.tolist(), start=1)
    spectrum = [{"dictionary": each.name, "rank": rank, "value": value} for rank, value in ranked]
    return {"singular_values": spectrum, "dictionaries": [facts]}


def _words(adapter: Adapter, own: Dictionary, output: Dictionary, words: dict[str, int]) -> Found:
    ids, decode = list(words.values()), adapter.tokenizer.decode
    raw = {each.name: each.rows[ids].detach().float() for each in (own, output)}
    near = [
        row
        for each in (own, output)
        for row in tokens.nearest(each.name, each, words, F.normalize(raw[each.name], dim=1), decode)
    ]
    near += tokens.nearest("continuation", output, words, output.states(raw["input"]), decode)
    pairs = [row for each in (own, output) for row in tokens.similarities(each, words)]
    return {"word_similarity": pairs, "nearest_words": near}


def _continuations(own: Dictionary, output: Dictionary, windows: Windows) -> Found:
    row = tokens.continuation_test(own, output, windows.ids)
    return {"continuations": [] if row is None else [{"data": windows.label} | row]}


def _layers(adapter: Adapter, windows: Windows) -> Found:
    rows = layers.state_similarity(adapter, windows.ids)
    return {"state_similarity": [{"data": windows.label} | row for row in rows]}


def _sentences(adapter: Adapter, windows: Windows) -> Found:
    rows = sentences.sentence_effect(adapter, windows.ids, windows.bos)
    return {"first_sentence": [{"data": windows.label} | row for row in rows]}


def _offsets(adapter: Adapter, run: Run, windows: Windows) -> dict[tuple[int, int], tuple[int | None, float]]:
    """Return, by layer and head, the fixed place that gets most of its attention, and how much."""
    if "heads" in run.heights():
        rows, length = run.table("heads").to_dicts(), run.manifest.text.length
    else:  # a run of few probes
        start, probe = start_token(adapter, windows), Attention()
        evidence, _ = observe_text(adapter, windows, start, [probe], check=False)
        rows, length = probe.findings(evidence)["heads"], windows.ids.shape[1]
    return {(row["layer"], row["head"]): heads.offset(row, length) for row in rows}


def _heads(
    adapter: Adapter,
    layer: int,
    offsets: Callable[[], dict[tuple[int, int], tuple[int | None, float]]],
    dictionaries: tuple[Dictionary, Dictionary],
) -> Found:
    here = {head: found for (place, head), found in offsets().items() if place == layer}
    circuits, readings = heads.read_layer(adapter, layer, here, dictionaries)
    return {"readings": readings, "circuits": circuits}


def _head_rows(
    adapter: Adapter,
    layer: int,
    offsets: Callable[[], dict[tuple[int, int], tuple[int | None, float]]],
    own: Dictionary,
) -> Found:
    here = {head: found for (place, head), found in offsets().items() if place == layer}
    return {"readings": [row for role in ("q", "k") for row in heads.read_rows(adapter, layer, role, here, own)]}
