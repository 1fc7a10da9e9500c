"""Read every state of a prompt by the dictionaries, layer by layer, and write what stands out into a run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from monadnock.data import ends_sentence
from monadnock.errors import MonadnockError, nearest
from monadnock.findings import Run
from monadnock.models import Adapter
from monadnock.preparing import bar, evaluating, known_run, open_model
from monadnock.reading.dictionary import NAMES, Dictionary, input_dictionary, num_words, output_dictionary
from monadnock.reading.middle import LAYERS, check_middle, middle_dictionary, steps
from monadnock.reading.states import Seen, prompt_ids, see_prompt, texts_of
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan

PROMPT = (  # wray2023, figures 4 to 8
    "I like the red ball, but my girlfriend likes the larger ball. We like to go to the basketball court to play ball "
    "together. It is a lot of fun."
)
TOP = 8
MOST = 100  # words of a position
_RANDOM = 64  # states that show how large the amplitudes of noise are


def lens(
    model: Any,
    prompt: str = PROMPT,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    dictionaries: Sequence[str] = NAMES,
    k: int = TOP,
    rows: str = "normalised",
    words: str = "all",
    bos: bool | None = None,
    middle_layers: int = LAYERS,
    position: int | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Read all states of a prompt by token dictionaries: which words stand out, behind which layer, how much.

    A state is L2-normalised (for the output dictionary behind the model's final norm, applied to that very state) and
    multiplied with every row of the dictionary. The reading by each dictionary is on disk as soon as it is done.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        prompt: what is read; by default a published text.
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model to add to, or a new folder. By default a new one under `monadnock-runs/`.
        dictionaries: input, output, middle.
        k: how many words of each state.
        rows: normalised, so that amplitudes are cosines, or raw.
        words: all, or prompt: read only words that the prompt has.
        bos: put BOS in front; by default if the tokenizer has one.
        middle_layers: how many layers make the middle dictionary.
        position: one that will be looked at, from the end if negative; if there is none, nothing is read.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with the tables `lens` and `first_token`.

    Raises:
        MonadnockError: on bad input, a prompt of more than 256 tokens, or a run of another model.

    Example:
        >>> run = lens("smollm2", "The capital of France is")  # doctest: +SKIP
        >>> run.table("lens").filter(dictionary="output", layer=29, position=5, rank=1)["word"][0]  # doctest: +SKIP
        ' Paris'
    """
    _check(dictionaries, k, rows, words)
    if not prompt.strip():
        raise MonadnockError("The prompt is empty; give a text of one word at least.")
    path, known = known_run(model, out)
    adapter = open_model(model, tokenizer, progress=progress, **options)
    ids, front = prompt_ids(adapter, prompt, bos)
    if position is not None and not -len(ids) <= position < len(ids):
        raise MonadnockError(f"Position {position} was asked, but the prompt has the positions 0 to {len(ids) - 1}.")
    if "middle" in dictionaries:
        check_middle(adapter, middle_layers)
    run = known or scan(adapter, out=path, probes=["start_token"], tokens=1024, progress=progress)
    with evaluating(adapter.model):
        check_same(run, adapter, weight_sums(adapter) if run.manifest.attacks else [])
        told = {"prompt": prompt, "bos": front}
        parts = {
            name: _part(name, prompt, ids.tolist(), rows, words, middle_layers if name == "middle" else None)
            for name in dictionaries
        }
        only = ids.unique() if words == "prompt" else None
        most = num_words(adapter) if only is None else len(only)
        todo = [name for name, part in parts.items() if _words_there(run, part) < min(k, most)]
        first = _part("first", prompt, ids.tolist())
        attended = run.has("first_token", first)
        if not todo and attended:
            return run
        seen = see_prompt(adapter, ids)
        with bar("dictionaries", sum(steps(adapter) if name == "middle" else 1 for name in todo), progress) as step:
            for name in todo:
                if name == "middle":
                    made = middle_dictionary(adapter, run.manifest.text.start_token_id, layers=middle_layers, step=step)
                else:
                    made = {"input": input_dictionary, "output": output_dictionary}[name](adapter)
                    step()
                said = told | {"rows": rows, "words": words}
                found = [said | row for row in _rows(adapter, seen, made, k, rows, only)]
                run.add("lens", parts[name], found)
        if not attended:
            run.add("first_token", first, [told | row for row in _first_rows(adapter, seen)])
    return run


def _check(dictionaries: Sequence[str], k: int, rows: str, words: str) -> None:
    for name in dictionaries:
        if name not in NAMES:
            raise MonadnockError(f"There is no dictionary {name!r}: {nearest(name, NAMES)}")
    if not dictionaries:
        raise MonadnockError(f"No dictionary was asked for; there are {', '.join(NAMES)}.")
    if not 1 <= k <= MOST:
        raise MonadnockError(f"{k} words of each state were asked; give 1 to {MOST}.")
    for what, given, known in (("rows", rows, ("normalised", "raw")), ("words", words, ("all", "prompt"))):
        if given not in known:
            raise MonadnockError(f"{what} was {given!r}; give {' or '.join(known)}.")


def _part(name: str, *setting: Any) -> str:
    """Return the name of a part: the same for the same prompt, tokens and settings, in whatever start."""
    return f"{name}-{hashlib.sha256(repr(setting).encode()).hexdigest()[:12]}"


def _words_there(run: Run, part: str) -> int:
    """Return how many words of each state a run has already."""
    return run.part("lens", part)["rank"].n_unique() if run.has("lens", part) else 0


def _rows(
    adapter: Adapter, seen: Seen, dictionary: Dictionary, k: int, rows: Any, only: torch.Tensor | None
) -> list[dict[str, Any]]:
    """Return what every state says, layer by layer."""
    decode = adapter.tokenizer.decode
    tokens = [
        {"position": place, "token_id": each, "token": decode([each])} for place, each in enumerate(seen.ids.tolist())
    ]
    places = [(layer, token) for layer in range(-1, len(seen.states) - 1) for token in tokens]
    top = dictionary.top(dictionary.states(seen.states.flatten(0, 1)), k, rows=rows, only=only)
    texts = {word: decode([word]) for word in top.ids.unique().tolist()}
    random = torch.randn(_RANDOM, seen.states.shape[-1], generator=torch.Generator().manual_seed(0))
    noise = float(dictionary.top(dictionary.states(random), 1, rows=rows, only=only).amplitudes.mean())
    found = []
    for (layer, token), words, amplitudes in zip(places, top.ids.tolist(), top.amplitudes.tolist(), strict=True):
        for rank, (word, amplitude) in enumerate(zip(words, amplitudes, strict=True), start=1):
            place = {"dictionary": dictionary.name, "layer": layer, "rank": rank}
            said = {"word_id": word, "word": texts[word], "amplitude": amplitude, "noise": noise}
            found.append(token | place | said)
    return found


def _first_rows(adapter: Adapter, seen: Seen) -> list[dict[str, Any]]:
    """Return how much attention the first token gets, from every head and position."""
    ids = seen.ids.tolist()
    texts = [adapter.tokenizer.decode([each]) for each in ids]
    ends = ends_sentence(texts_of(adapter.tokenizer, ids))
    return [
        {
            "layer": layer,
            "head": head,
            "position": place,
            "token_id": ids[place],
            "token": texts[place],
            "mass": mass,
            "ends_sentence": ends[place],
        }
        for layer, heads in enumerate(seen.first.tolist())
        for head, masses in enumerate(heads)
        for place, mass in enumerate(masses)
    ]
