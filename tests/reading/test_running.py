"""Reading whole tiny models: what is written, how it goes on, what is added, what is refused; outliers in words."""

import polars as pl
import pytest
import torch

from monadnock import MonadnockError
from monadnock.findings import Run
from monadnock.models import Adapter, Source
from monadnock.reading import read
from monadnock.reading import running as module
from monadnock.reading.dictionary import input_dictionary, output_dictionary
from monadnock.reading.outliers import ROWS, read_outliers
from monadnock.scanning import scan
from tests.reading.conftest import make
from tests.scans import assert_untouched, state
from tests.studying.conftest import planted
from tests.tiny import tiny_model
from tests.words import BOS_ID, random_words, word_tokenizer, write_words

LENGTH = 24
SIZES = {"length": LENGTH, "tokens": 3 * LENGTH, "progress": False}
WORDS = ["w1", "w2", "w3"]
TABLES = {
    "dictionaries",
    "singular_values",
    "word_similarity",
    "nearest_words",
    "continuations",
    "circuits",
    "readings",
    "state_similarity",
    "first_sentence",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(400))


@pytest.fixture(scope="module")
def llama():
    return make("llama")


@pytest.fixture
def run_read(text, tmp_path):
    """Return a function that reads into `tmp_path/run`."""

    def run(adapter, **options):
        return read(adapter, **{"text": text, "out": tmp_path / "run", "words": WORDS, **SIZES, **options})

    return run


@pytest.fixture
def added(monkeypatch):
    """The parts that are written, as (table, part)."""
    parts, add = [], Run.add
    monkeypatch.setattr(Run, "add", lambda self, *args: parts.append(args[:2]) or add(self, *args))
    return parts


@pytest.mark.parametrize("case", ["llama", "gpt2", "mixtral", "gemma3_text", "olmo2", "opt-350m", "phi", "falcon"])
def test_every_table_is_written_and_the_model_stays_as_it_was(case, run_read):
    adapter = make(case)
    before = state(adapter.model)
    run = run_read(adapter)
    assert_untouched(adapter.model, before)
    heights = run.heights()
    assert set(heights) >= TABLES
    assert heights["circuits"] == 3 * 4 * 2 and heights["dictionaries"] == 2
    assert heights["singular_values"] == 2 * 32 and heights["word_similarity"] == 2 * 9
    assert heights["nearest_words"] == 3 * 3 * 10 and heights["continuations"] == 1
    assert heights["first_sentence"] == 0  # the words know no sentences
    readings = run.table("readings")
    flagged = run.table("circuits").filter(circuit="qk").select("layer", "head", "position_driven")
    read_heads = set(readings.filter(kind="qk").select("layer", "head").unique().rows())
    assert read_heads == {(layer, head) for layer, head, driven in flagged.rows() if not driven}
    assert set(readings.filter(kind="ov").select("layer", "head").unique().rows()) == {
        (layer, head) for layer in range(3) for head in range(4)
    }
    assert set(readings.filter(pl.col("kind").is_in(["q_row", "k_row"]))["layer"]) <= {0}
    for name in TABLES - {"first_sentence"}:
        numbers = run.table(name).select(pl.selectors.float())
        assert all(numbers[column].is_finite().all() for column in numbers.columns if column != "offset_mass"), name


def test_a_second_call_measures_nothing(llama, run_read, added, monkeypatch):
    first = run_read(llama).tables()
    assert len(added) == len(set(added))
    added.clear()
    for name in ("state_similarity", "sentence_effect"):
        monkeypatch.setattr(getattr(module, {"state_similarity": "layers"}.get(name, "sentences")), name, None)
    again = run_read(llama).tables()
    assert added == []
    assert all(frame.equals(again[name]) for name, frame in first.items())


def test_other_words_layers_and_texts_add_to_what_is_there(llama, run_read, added, tmp_path):
    run_read(llama)
    parts = {each: each.stat().st_mtime_ns for each in (tmp_path / "run" / "tables").rglob("*.parquet")}
    run_read(llama, row_layers=[1])
    assert {table for table, _ in added[-1:]} == {"readings"} and len([p for t, p in added if t == "circuits"]) == 3
    run = run_read(llama, row_layers=[])
    circuits = run.table("circuits")
    assert circuits.height == 3 * 4 * 2
    place = ["kind", "layer", "head", "index", "side", "dictionary", "sign", "rank"]
    assert not run.table("readings").select(place).is_duplicated().any()
    assert set(run.table("readings").filter(kind="q_row")["layer"]) == {0, 1}
    run = run_read(llama, words=["w7", "w8"])
    assert set(run.table("word_similarity")["word_a"]) == {*WORDS, "w7", "w8"}
    other = write_words(tmp_path, random_words(300, seed=5), "other.txt")
    run = run_read(llama, text=other)
    for name in ("state_similarity", "continuations"):
        assert run.table(name)["data"].n_unique() == 2
    assert all(each.stat().st_mtime_ns == stamp for each, stamp in parts.items())


@pytest.mark.parametrize("stop", [0, 1, 4, 8, 12])
def test_a_stopped_reading_goes_on_and_ends_with_the_same_rows(llama, run_read, tmp_path, monkeypatch, stop):
    whole = run_read(llama, out=tmp_path / "whole")
    before, calls, add = state(llama.model), [], Run.add

    def stops(self, *args):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(args[:2])
        add(self, *args)

    monkeypatch.setattr(Run, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        run_read(llama)
    assert_untouched(llama.model, before)
    kept = list((tmp_path / "run" / "tables").glob("*/*.parquet"))
    assert len(kept) == stop
    monkeypatch.setattr(Run, "add", lambda self, *args: calls.append(args[:2]) or add(self, *args))
    again = run_read(llama)
    for name in TABLES:
        assert again.table(name).equals(whole.table(name)), name


def test_what_was_asked_alone_is_read(llama, run_read):
    assert set(run_read(llama, what=["layers"]).heights()) & TABLES == {"state_similarity", "first_sentence"}
    assert "dictionaries" in run_read(llama, what=["tokens"]).heights()
    assert "circuits" not in Run.open(run_read(llama, what=["outliers"]).path).heights()


def test_a_run_with_all_probes_gives_its_own_kinds_of_heads(llama, run_read, text, tmp_path, monkeypatch):
    scanned = scan(llama, text=text, out=tmp_path / "run", **SIZES)
    monkeypatch.setattr(module, "observe_text", None)
    expected = {
        (row["layer"], row["head"]): max((row["self_mass"], 0), (row["previous_mass"], 1))
        for row in scanned.table("heads").to_dicts()
    }
    middle = sorted(expected.values())[6][0]
    monkeypatch.setattr("monadnock.reading.heads.OFFSET_MASS", middle)
    run = run_read(llama, what=["heads"])
    for row in run.table("circuits").to_dicts():
        mass, offset = expected[row["layer"], row["head"]]
        assert row["offset_mass"] == pytest.approx(mass) and row["offset"] == offset
        assert row["position_driven"] == (mass > middle)
    assert run.table("circuits")["position_driven"].n_unique() == 2


def test_a_run_of_few_probes_has_its_heads_observed(llama, run_read, text, tmp_path):
    scan(llama, text=text, out=tmp_path / "few", probes=["start_token"], **SIZES)
    few = run_read(llama, out=tmp_path / "few", what=["heads"]).table("circuits")
    scan(llama, text=text, out=tmp_path / "all", **SIZES)
    every = run_read(llama, out=tmp_path / "all", what=["heads"]).table("circuits")
    assert (few["offset_mass"] - every["offset_mass"]).abs().max() < 1e-6


def test_a_vocabulary_without_our_words(llama, run_read):
    run = run_read(llama, what=["tokens"], words=module.WORDS)
    assert run.table("word_similarity").height == run.table("nearest_words").height == 0
    assert run.table("dictionaries").height == 2


def test_tied_and_untied_dictionaries_are_told(run_read, tmp_path):
    for case, tied in (("gpt2", True), ("llama", False)):
        run = run_read(make(case), what=["tokens"], out=tmp_path / case)
        assert run.table("dictionaries")["tied"].to_list() == [tied, tied]


# outliers


@pytest.fixture(scope="module")
def massive():
    """A model with a massive feature 3 and two massive rows, and a scan of it."""
    return planted("llama")


def test_what_a_massive_feature_pushes_up_and_down_comes_out(massive, run_read):
    run = run_read(massive, what=["outliers"])
    readings = run.table("readings").filter(kind="feature", index=3)
    assert set(readings["layer"]) <= {1, 2, 3} and readings.height == 2 * 2 * 8
    peak = run.table("lifecycles").filter(feature=3)["peak_value"][0]
    assert readings["strength"].unique().to_list() == [abs(peak)]
    assert peak > 0
    for side, words in (("writes", output_dictionary(massive)), ("reads", input_dictionary(massive))):
        cosines = torch.nn.functional.normalize(words.rows, dim=1)[:, 3] * (
            1 if side == "reads" else gain_sign(massive)
        )
        for sign in (1, -1):
            found = readings.filter(side=side, sign=sign).sort("rank")
            best = cosines.topk(8, largest=sign > 0)
            assert found["word_id"].to_list() == best.indices.tolist()
            assert found["amplitude"].to_list() == pytest.approx(best.values.tolist(), abs=1e-5)


def gain_sign(adapter):
    return float(adapter.gains(None, "final")[3].sign())


def test_massive_rows_are_read_as_the_weights_say(massive, run_read):
    run = run_read(massive, what=["outliers"])
    own, output = input_dictionary(massive), output_dictionary(massive)
    gains = massive.gains(1, "mlp_input")
    for neuron in (9, 40):
        for role in ("up", "gate"):
            row = massive.weight(1, role).read()[neuron] * gains
            (found,) = first(run, f"{role}_row", neuron)
            cosines = torch.nn.functional.normalize(own.rows, dim=1) @ torch.nn.functional.normalize(row, dim=0)
            assert found["word_id"] == int(cosines.argmax()) and found["side"] == "reads"
            assert found["amplitude"] == pytest.approx(float(cosines.max()), abs=1e-5)
            assert found["strength"] == pytest.approx(float(row.norm()), rel=1e-5)
        column = massive.weight(1, "down").read()[:, neuron]
        (found,) = first(run, "down_column", neuron)
        pushed = torch.nn.functional.normalize(column * massive.gains(None, "final"), dim=0)
        cosines = torch.nn.functional.normalize(output.rows, dim=1) @ pushed
        assert found["word_id"] == int(cosines.argmax()) and found["side"] == "writes"
    assert first(run, "gate_row", 9)[0]["word_id"] == BOS_ID  # rows that answer to BOS alone


def first(run, kind, index):
    return run.table("readings").filter(kind=kind, index=index, sign=1, rank=1).to_dicts()


@pytest.mark.parametrize("case", ["cohere", "phi", "falcon", "gpt_neox", "olmo2", "opt-350m", "gpt2", "mixtral"])
def test_rows_of_up_are_read_through_the_norm_that_feeds_them(case):
    """Where one norm feeds attention and MLP, too: directions of h, as the MLP's own input tells."""
    adapter = make(case)
    state_in = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    norm = adapter.norm(1, "mlp_input")
    norm = adapter.norm(1, "attn_input") if norm is None else norm
    expert = 2 if adapter.num_experts else None
    up = adapter.weight(1, "up", expert).read()[7]
    with torch.no_grad():
        fed = state_in if norm is None else norm(state_in) - norm(torch.zeros_like(state_in))
        products = fed @ up  # what the neuron gets of each state, but for the bias
    own, output = input_dictionary(adapter), output_dictionary(adapter)
    rows = read_outliers(adapter, FakeRun(expert), own, output)
    found = next(row for row in rows if row["kind"] == "up_row")
    size = state_in - (0 if norm is None or "RMS" in type(norm).__name__ else state_in.mean(1, keepdim=True))
    scale = torch.ones(40) if norm is None else size.square().mean(1).sqrt()
    direction = torch.linalg.lstsq(state_in, (products * scale)[:, None]).solution[:, 0]  # of which it is the product
    torch.testing.assert_close(state_in @ direction, products * scale, rtol=1e-3, atol=1e-3)
    direction = torch.nn.functional.normalize(direction, dim=0)
    cosines = torch.nn.functional.normalize(own.rows, dim=1) @ direction
    assert found["word_id"] == int(cosines.argmax())
    assert found["amplitude"] == pytest.approx(float(cosines.max()), abs=1e-3)
    assert {row["kind"] for row in rows} == {"up_row", "down_column"} | ({"gate_row"} if adapter.has("gate") else set())


class FakeRun:
    """A run in which neuron 7 of layer 1 is massive, and no feature is."""

    def __init__(self, expert):
        massive = {"layer": [1, 1], "expert": [expert] * 2, "feature": [7, 8], "rank": [1, 2], "massive": [True, False]}
        lives = {"feature": [], "peak_layer": [], "peak_value": []}
        schema = {"feature": pl.Int64, "peak_layer": pl.Int64, "peak_value": pl.Float64}
        self.tables = {"massive_weights": pl.DataFrame(massive), "lifecycles": pl.DataFrame(lives, schema=schema)}

    def table(self, name):
        return self.tables[name]


def test_no_more_than_a_few_rows_are_read(massive, run_read):
    run = run_read(massive, what=["outliers"])
    flagged = run.table("massive_weights").filter(massive=True).height
    assert flagged >= 2
    assert run.table("readings").filter(kind="down_column")["index"].n_unique() == min(flagged, ROWS)


# refusals


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"what": ["head"]}, "There is nothing to read named 'head': did you mean heads?"),
        ({"what": []}, "Nothing was asked to be read; there are tokens, heads, layers, outliers"),
        ({"words": ["w1", "w2 w3"]}, r"'w2 w3' \(2 tokens\)"),
        ({"words": ["girl"]}, "'girl'"),
        ({"row_layers": [3]}, "Layer 3 was asked, but llama has the layers 0 to 2"),
        ({"row_layers": [-1]}, "Layer -1 was asked"),
        ({"text": "nowhere.txt"}, "nowhere.txt cannot be read"),
        ({"length": 500}, "Windows of 500 tokens were asked, but llama sees at most 256"),
        ({"dataset": "a/b:c:d"}, "text"),
    ],
)
def test_refused_requests_leave_nothing(llama, run_read, tmp_path, options, told):
    with pytest.raises(MonadnockError, match=told) as error:
        run_read(llama, **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"what": ["head"]}, {"what": []}, {"text": "nowhere.txt"}])
def test_what_needs_no_model_is_refused_before_it_is_loaded(options, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_model", None)
    with pytest.raises(MonadnockError):
        read("nowhere", out=tmp_path / "run", **options)


def test_a_run_of_another_model_is_refused(llama, run_read, text, tmp_path):
    other = Adapter(tiny_model("llama", seed=1), word_tokenizer(), Source("another", "object"))
    scan(other, text=text, out=tmp_path / "run", probes=["start_token"], **SIZES)
    with pytest.raises(MonadnockError, match="is a run of another, the model is llama"):
        run_read(llama)
    assert not TABLES & set(Run.open(tmp_path / "run").heights())


def test_a_folder_with_other_files_is_left_alone(llama, run_read, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(MonadnockError, match="holds files that are not a run"):
        run_read(llama)
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["thesis.txt"]
