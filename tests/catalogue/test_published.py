"""The catalogue says what was printed, counts from 0, and finds a model by its name."""

import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest

from monadnock.catalogue import (
    entries,
    entry_named,
    find_entry,
    measured_weights,
    published_attacks,
    published_weights,
)
from monadnock.errors import MonadnockError
from monadnock.models.packaged import PACKAGED

PAGE = Path(__file__).parents[2] / "docs" / "verify.md"
# oh2024, table 1: the averages that are printed beside the numbers, perplexity and accuracy
AVERAGES = {
    "Llama-3-8B": {"none": (8.22, 73.0), "zero": (122.74, 39.4), "retain": (20.95, 71.0)},
    "Llama-3-70B": {"none": (5.43, 80.1), "zero": (7707.05, 38.9), "retain": (6.89, 59.4)},
    "Llama-3.1-405B (8bit)": {"none": (3.61, 81.3), "zero": (1134.77, 38.1), "retain": (5.81, 76.4)},
}


def raw(name):
    """Return the rows of a csv file as they stand there."""
    lines = (files("monadnock.catalogue") / name).read_text(encoding="utf-8").splitlines()
    header, *rows = [line.split(",") for line in lines if not line.startswith("#")]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_there_are_22_published_models():
    assert len(published_weights()) == 22
    families = Counter(re.match(r"(Meta-)?[A-Za-z]+", name)[0] for name in published_weights())
    assert families == {"Llama": 4, "Meta-Llama": 6, "Mistral": 2, "Mixtral": 2, "Phi": 2, "gemma": 6}


def test_the_file_keeps_what_was_printed_and_the_reader_counts_from_0():
    for row in raw("massive_weights.csv"):
        entry = published_weights()[row["model"]]
        assert entry.layer == int(row["layer"]) - 1
        assert entry.expert == (int(row["expert"]) - 1 if row["expert"] else None)
        assert " ".join(map(str, entry.features)) == row["indices"]
        assert entry.source == row["source"]
        assert entry.source.startswith("oh2024 table 7")


def test_every_entry_has_five_indices():
    for entry in entries().values():
        assert len(set(entry.features)) == len(entry.features) == 5
        assert min(entry.layer, *entry.features) >= 0


def test_some_entries_by_heart():
    found = published_weights()
    assert (found["Meta-Llama-3-8B"].layer, found["Meta-Llama-3-8B"].features) == (1, (2427, 198, 6412, 12657, 591))
    assert (found["gemma-2-9b"].layer, found["gemma-2-27b-it"].layer) == (0, 9)
    assert {name for name, entry in found.items() if entry.expert is not None} == {
        "Mixtral-8x7B-v0.1",
        "Mixtral-8x7B-Instruct-v0.1",
    }
    assert {name for name, entry in found.items() if "8bit" in entry.source} == {
        "Meta-Llama-3.1-405B",
        "Meta-Llama-3.1-405B-Instruct",
    }


def test_what_others_published_of_the_same_places():
    """Columns of super weights (yu2024) and the super expert of Mixtral (su2025), both from 0."""
    found = published_weights()
    for name, layer, column in [("Llama-2-7b-hf", 1, 7890), ("Mistral-7B-v0.1", 1, 7310)]:
        assert (found[name].layer, found[name].features[0]) == (layer, column)
    assert (found["Mixtral-8x7B-v0.1"].layer, found["Mixtral-8x7B-v0.1"].expert) == (1, 3)


def test_our_own_measurements_are_kept_apart():
    assert set(measured_weights()) == set(PACKAGED)
    assert {entry.source for entry in measured_weights().values()} == {"monadnock"}
    assert not set(measured_weights()) & set(published_weights())
    assert entries() == published_weights() | measured_weights()
    assert measured_weights()["smollm2"].layer == int(raw("measured.csv")[0]["layer"]) == 11


@pytest.mark.parametrize(
    "name",
    [
        "Llama-2-7b-hf",
        "LLAMA-2-7B-HF",
        "meta-llama/Llama-2-7b-hf",
        "someone/else/Llama-2-7b-hf/",
        "/checkpoints@home/Llama-2-7b-hf",
        "meta-llama/Llama-2-7b-hf@main",
        "meta-llama/Llama-2-7b-hf@refs/pr/1",
    ],
)
def test_a_model_is_found_by_its_name(name):
    assert find_entry(name) == entry_named(name) == published_weights()["Llama-2-7b-hf"]


@pytest.mark.parametrize("name", ["", "Llama-2-7b", "Llama-2-7b-hf/weights", "Llama-2-7b-hf.gguf", "@main"])
def test_a_model_that_is_not_there_is_not_found(name):
    assert find_entry(name) is None
    with pytest.raises(MonadnockError, match="--entry"):
        entry_named(name)


def test_the_nearest_names_are_told():
    with pytest.raises(MonadnockError, match=r"of 'meta-llama/Llama-3-8B' \(did you mean Meta-Llama-3-8B or"):
        entry_named("meta-llama/Llama-3-8B")
    with pytest.raises(MonadnockError, match=r"of 'gpt2'; name an entry"):
        entry_named("gpt2")


@pytest.mark.parametrize("model", AVERAGES)
def test_attacks_have_the_averages_that_were_printed(model):
    found = published_attacks(model)
    assert found["model"].unique().to_list() == [model]
    assert found.select("attack", "k").rows() == [("none", 0), ("zero", 5), ("retain", 5)]
    assert found.columns[:3] == ["model", "attack", "k"]
    perplexities, accuracies = found.columns[3:6], found.columns[6:]
    assert perplexities == ["wikitext_ppl", "c4_ppl", "pg19_ppl"]
    assert accuracies == ["arc_easy", "arc_challenge", "boolq", "piqa", "winogrande"]
    for row in found.iter_rows(named=True):
        ppl, accuracy = AVERAGES[model][row["attack"]]
        assert sum(row[name] for name in perplexities) / 3 == pytest.approx(ppl, abs=0.0051)
        assert sum(row[name] for name in accuracies) / 5 == pytest.approx(accuracy, abs=0.051)


def test_attacks_are_found_by_the_entry_too():
    by_entry = published_attacks("meta-llama/Meta-Llama-3-8B@main")
    assert by_entry.equals(published_attacks("Llama-3-8B"))
    nothing = published_attacks("gpt2")
    assert (nothing.height, nothing.schema) == (0, by_entry.schema)
    assert by_entry.schema["k"] == pl.Int64


def test_reading_the_catalogue_needs_no_torch():
    code = (
        "import sys, monadnock.catalogue as c; c.entries(); c.published_attacks('x'); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def tables(text):
    """Return the rows of the page's tables, without the rules under their headings."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if set("".join(row)) - set("-: ")]


def test_the_page_shows_every_entry():
    expected = []
    for row in raw("massive_weights.csv") + raw("measured.csv"):
        entry = entries()[row["model"]]
        printed = row["layer"] + (f" (expert {row['expert']})" if row["expert"] else "")
        if entry.source == "monadnock":
            printed = ""
        expert = "" if entry.expert is None else str(entry.expert)
        indices = " ".join(map(str, entry.features))
        expected.append([f"`{entry.model}`", str(entry.layer), expert, indices, printed, entry.source])
    shown = [row for row in tables(PAGE.read_text(encoding="utf-8")) if len(row) == 6 and row[0].startswith("`")]
    assert shown == expected


def test_the_page_shows_every_attack():
    shown = [row for row in tables(PAGE.read_text(encoding="utf-8")) if len(row) == 11 and row[0] != "model"]
    assert shown == [[row[name] for name in row if name not in ("entry", "source")] for row in raw("attacks.csv")]
