"""A scan of a tiny model without outliers, and one of the same model after outliers were planted into it."""

from types import SimpleNamespace

import pytest

from monadnock import scan
from monadnock.data import token_windows
from monadnock.sites import Stream
from tests.planting import Patient, Reserved
from tests.words import BOS_ID, random_words, word_tokenizer, write_words

LENGTH, WINDOWS = 44, 2
TOKENIZER = word_tokenizer()


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """Return runs `base` and `tuned`, and what was planted in between: layer, row, feature, sink layer and head."""
    folder = tmp_path_factory.mktemp("planted")
    text = write_words(folder, random_words(WINDOWS * (LENGTH - 1)))
    sizes = {"text": text, "length": LENGTH, "tokens": WINDOWS * LENGTH}
    patient = Patient("llama", token_windows(TOKENIZER, **sizes).ids, Reserved(0, 1, 2))
    run = lambda name: scan(patient.adapter.model, TOKENIZER, out=folder / name, progress=False, **sizes)  # noqa: E731
    base = run("base")
    large = 4 * max(100.0, 1000 * patient.median(Stream.DOWN_PROJ_INPUT))
    total = 4 * max(100.0, 1000 * patient.median(Stream.RESIDUAL))
    patient.plant_rows(1, [40], [large], 9, total)
    patient.plant_sink(2, 3, BOS_ID, 9)
    what = {"layer": 1, "row": 40, "feature": 9, "sink_layer": 2, "head": 3, "size": large, "total": total}
    return SimpleNamespace(base=base, tuned=run("tuned"), **what)


@pytest.fixture(scope="session")
def scanned(planted):
    return planted.base
