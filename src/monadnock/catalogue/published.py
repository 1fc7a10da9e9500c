"""Readers of the catalogue's csv files, which keep the numbers as printed; what is read counts from 0.

Why the layers and experts of oh2024 count from 1 and its indices from 0:

- Layers: the paper defines l in [1, L]. Independently, yu2024 (The Super Weight in Large Language Models, table 2) has
  super weights in column 7890 of `layers[1]` of Llama-2-7B and in column 7310 of `layers[1]` of Mistral-7B: these are
  the first indices of oh2024's layer 2.
- Indices: the same columns have the same numbers there, as `torch.sort` gives them (oh2024, algorithm 1).
- Experts: the paper does not say. su2025 (Unveiling Super Experts, arXiv:2507.23279, table 2) has "Layer 1 Expert 3"
  for both Mixtral models where oh2024 has layer 2 and expert 4: one counts both from 0, the other both from 1.
"""

import difflib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import polars as pl

from monadnock.errors import MonadnockError


@dataclass(frozen=True)
class Entry:
    """Where the massive weights of one model are.

    Attributes:
        model: the model's name, without an owner.
        layer: the massive layer, from 0.
        expert: which expert in a mixture, from 0; None in dense models.
        features: indices into x_down, that is rows of W_up and W_gate, the largest first.
        source: who published it: `oh2024 table 7`, or `monadnock` for our own measurements.
    """

    model: str
    layer: int
    expert: int | None
    features: tuple[int, ...]
    source: str


def published_weights() -> dict[str, Entry]:
    """Return the massive weights of 22 models (oh2024, table 7), by model; layers and experts from 0.

    Example:
        >>> published_weights()["Mixtral-8x7B-v0.1"]
        Entry(model='Mixtral-8x7B-v0.1', layer=1, expert=3, features=(7310, ...), source='oh2024 table 7')
    """
    return _entries("massive_weights.csv", counted_from=1)


def published_consistency() -> dict[tuple[str, str], float]:
    """Return the consistency of Llama-2-7B's outliers in percent (an2025, table 1), by the two kinds.

    Example:
        >>> published_consistency()["activation outliers in h", "attention outliers in A"]
        95.0
    """
    table = pl.read_csv((files("monadnock.catalogue") / "consistency.csv").read_bytes(), comment_prefix="#")
    return {(first, second): float(share) for first, second, _, share in table.rows()}


def measured_weights() -> dict[str, Entry]:
    """Return the massive weights of the packaged models as we measured them, by model; layers from 0.

    Example:
        >>> measured_weights()["smollm2"].layer
        11
    """
    return _entries("measured.csv", counted_from=0)


def entries() -> dict[str, Entry]:
    """Return all entries, by model: the published ones, then our own."""
    return published_weights() | measured_weights()


def find_entry(name: str) -> Entry | None:
    """Return the entry of a model, or None.

    Args:
        name: an entry's name, a hub id or a folder; the last path component counts, in upper or lower case, without
            an `@revision`.

    Example:
        >>> find_entry("meta-llama/llama-2-7b-hf@main").layer
        1
    """
    known = {model.lower(): entry for model, entry in entries().items()}
    return next((known[key] for key in _keys(name) if key in known), None)


def entry_named(name: str) -> Entry:
    """Return the entry of a model as `find_entry` does.

    Raises:
        MonadnockError: if there is none, with the nearest names.
    """
    entry = find_entry(name)
    if entry is None:
        known = {model.lower(): model for model in entries()}
        close = [known[key] for key in difflib.get_close_matches(_keys(name)[0], known, n=3, cutoff=0.6)]
        near = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise MonadnockError(
            f"The catalogue has no massive weights of {name!r}{near}; "
            "name an entry with --entry, `monadnock ls catalogue` lists them."
        )
    return entry


def published_attacks(model: str) -> pl.DataFrame:
    """Return what the attacks did to a model in oh2024, table 1: Llama-3-8B, Llama-3-70B and Llama-3.1-405B.

    Args:
        model: a name as for `find_entry`, or as in the paper's table.

    Returns:
        Columns model (as printed), attack (none, zero or retain), k, perplexities wikitext_ppl, c4_ppl and pg19_ppl,
        and zero-shot accuracies in percent arc_easy, arc_challenge, boolq, piqa and winogrande; no rows for a model
        that is not there.

    Example:
        >>> published_attacks("Meta-Llama-3-8B").select("attack", "k", "wikitext_ppl").rows()
        [('none', 0, 5.75), ('zero', 5, 104.57), ('retain', 5, 10.15)]
    """
    table = _read("attacks.csv")
    keys = _keys(name=model)
    named = pl.col("entry").str.to_lowercase().is_in(keys) | pl.col("model").str.to_lowercase().is_in(keys)
    return table.filter(named).drop("entry", "source")


def _keys(name: str) -> list[str]:
    """Return what a name may mean: its last component without a revision, and that of all before the revision."""
    name = str(name)
    return [Path(name).name.partition("@")[0].lower(), Path(name.partition("@")[0]).name.lower()]


def _entries(file: str, *, counted_from: int) -> dict[str, Entry]:
    return {
        row["model"]: Entry(
            model=row["model"],
            layer=row["layer"] - counted_from,
            expert=None if row["expert"] is None else row["expert"] - counted_from,
            features=tuple(map(int, row["indices"].split())),
            source=row["source"],
        )
        for row in _read(file).iter_rows(named=True)
    }


def _read(file: str) -> pl.DataFrame:
    text = (files("monadnock.catalogue") / file).read_bytes()
    return pl.read_csv(text, comment_prefix="#", schema_overrides={"expert": pl.Int64})
