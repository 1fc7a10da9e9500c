"""Compressing whole tiny models: what is written, goes on, is saved and loads again, and what is refused."""

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from monadnock import MonadnockError, load
from monadnock.compression import Method, compress, compressed, load_packed
from monadnock.compression import measuring as module
from monadnock.evaluation import perplexity
from monadnock.findings import Run
from monadnock.models import Adapter, Source
from monadnock.prescribing import Recipe
from monadnock.scanning import scan
from tests.scans import assert_untouched, state
from tests.tiny import tiny_model
from tests.words import random_words, word_tokenizer, write_words

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 24
SIZES = {"length": LENGTH, "windows": 3, "calibration": 4, "progress": False}


def make(model_type="llama", **changes):
    return Adapter(tiny_model(model_type, **changes), word_tokenizer(), Source(model_type, "object"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("text"), random_words(400))


@pytest.fixture
def run_it(text, tmp_path):
    def run(adapter, method="absmax", **options):
        return compress(adapter, method=method, **{"text": text, "out": tmp_path / "run", **SIZES, **options})

    return run


def values(run, metric="perplexity"):
    table = run.table("effects").filter(pl.col("method").is_not_null(), metric=metric)
    return dict(table.select("method", "value").rows())


def test_effects_are_those_of_the_compressed_model(run_it):
    adapter = make()
    before = state(adapter.model)
    run = run_it(adapter)
    assert_untouched(adapter.model, before)
    rows = run.table("effects").to_dicts()
    assert {row["metric"] for row in rows} == {"perplexity", "kl", "top1_agreement", "average_bits"}
    assert {row["mode"] for row in rows} == {"compress"} and {row["method"] for row in rows} == {"absmax 8 bits tensor"}
    measured, _ = module._ends(adapter, _source(run_it), 3, None, False)
    (row,) = [row for row in rows if row["metric"] == "perplexity"]
    assert row["baseline"] == pytest.approx(perplexity(adapter, measured), rel=1e-5)
    with compressed(adapter, Method.of("absmax")):
        assert row["value"] == pytest.approx(perplexity(adapter, measured), rel=1e-5)
    table = run.table("compressions")
    assert table.height == 3 * 7 and table["output_error"].is_null().all()
    assert "perplexity" in str(run.summary()) and "Compression" in str(run.summary())


def _source(run_it):
    text = next(cell.cell_contents for cell in run_it.__closure__ if str(cell.cell_contents).endswith("words.txt"))
    return {"text": text, "dataset": None, "length": LENGTH, "bos": None}


def test_methods_add_up_and_what_is_there_is_not_measured_again(run_it, monkeypatch):
    adapter = make()
    run_it(adapter)
    run = run_it(adapter, "spqr", bits=2)
    assert set(values(run)) == {"absmax 8 bits tensor", "spqr 2 bits group 16 threshold 0.2 calibration 4"}
    assert run.table("compressions").filter(pl.col("method").str.starts_with("spqr"))["output_error"].min() > 0
    monkeypatch.setattr(module.Job, "measure", lambda *_, **__: pytest.fail("measured again"))
    run_it(adapter)
    run_it(adapter, "spqr", bits=2)


def test_attacks_and_compressors_share_a_table_and_do_not_mix(run_it, text, tmp_path):
    from monadnock.attacking import attack

    adapter = make()
    attack(
        adapter,
        out=tmp_path / "run",
        text=text,
        tokens=72,
        length=LENGTH,
        ks=[1],
        metrics=["perplexity"],
        modes=["zero"],
    )
    run = run_it(adapter)
    told = str(run.summary())
    assert "Attacks" in told and "compress with" not in told
    page = run.report().read_text(encoding="utf-8")
    assert "absmax 8 bits tensor" in page


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt2", "mixtral", "gpt_oss", "falcon", "gemma3_text"])
def test_a_saved_checkpoint_loads_again_and_is_the_compressed_model(run_it, model_type):
    adapter = make(model_type)
    run = run_it(adapter, "absmax", granularity="row", bits=4, save=True)
    (folder,) = (run.path / "checkpoints").iterdir()
    again = load(folder)
    ids = torch.arange(3, 20)
    with compressed(adapter, Method.of("absmax", granularity="row", bits=4)):
        torch.testing.assert_close(again.forward(ids, keep=17), adapter.forward(ids, keep=17))
    assert scan(
        str(folder),
        out=run.path.parent / "again",
        probes=["weights"],
        tokens=72,
        length=24,
        text=_source(run_it)["text"],
    )


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt2", "mixtral", "falcon"])
def test_the_packed_form_loads_to_the_same_bits_as_the_checkpoint(run_it, model_type):
    adapter = make(model_type)
    run = run_it(adapter, "spqr", save=True)
    packed, plain = (next((run.path / kind).iterdir()) for kind in ("packed", "checkpoints"))
    one, other = load_packed(packed).model.state_dict(), load(plain).model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    stored, average = values(run, "stored_bits"), values(run, "average_bits")
    (name,) = stored
    assert 3 < average[name] < stored[name]
    assert not list((run.path / "packed").glob(".*")) and not list((run.path / "checkpoints").glob(".*"))


def test_saving_again_replaces_what_was_there(run_it):
    adapter = make()
    run_it(adapter, save=True)
    run = run_it(adapter, save=True)
    assert len(list((run.path / "checkpoints").iterdir())) == 1


def test_massive_rows_that_the_run_names_are_kept(run_it, text, tmp_path):
    from tests.studying.conftest import planted

    adapter = planted("llama")
    run = scan(adapter, out=tmp_path / "run", text=text, tokens=72, length=LENGTH, probes=["start_token"])
    massive = run.table("massive_weights").filter("massive")
    assert sorted(massive["feature"]) == [9, 40]
    run = run_it(adapter, keep_massive=True)
    rows = run.table("compressions").filter(pl.col("kept_rows") > 0)
    assert set(rows["layer"]) == set(massive["layer"]) and set(rows["module"]) <= {"up", "gate"}
    assert "absmax 8 bits tensor, massive rows kept" in values(run)


def test_a_module_that_holds_others_is_skipped_with_all_of_them(run_it):
    table = run_it(make(), skip=["model.layers.1"]).table("compressions")
    assert set(table["layer"]) == {0, 2}


def test_skipped_modules_stay_as_they_are(run_it):
    adapter = make()
    run = run_it(adapter, skip=["model.layers.1.mlp.down_proj", r"re:.*self_attn"])
    table = run.table("compressions")
    assert not set(table["module"]) & {"q", "k", "v", "o"}
    assert (1, "down") not in set(table.select("layer", "module").rows()) and table.height == 3 * 3 - 1
    assert next(iter(values(run))).startswith("absmax 8 bits tensor, without layer 0 k")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "sqpr"}, "no compressor 'sqpr'"),
        ({"windows": 0}, "0 windows for measuring were asked"),
        ({"method": "gptq", "windows": 100}, "100 windows for measuring and 4 for calibration .* has 17 of 24"),
        ({"method": "gptq", "windows": 17, "calibration": None}, "none is left for calibration"),
        ({"calibration": 40, "method": "gptq"}, "3 windows for measuring and 40 for calibration .* ask for fewer"),
        ({"share": 0.3}, "absmax has no use for a share; magnitude have"),
        ({"method": "gptq", "threshold": 0.3}, "gptq has no use for a threshold"),
        ({"skip": ["re:["]}, "cannot be read"),
        ({"skip": ["model.layers.1.mlp.down_prj"]}, "no module 'model.layers.1.mlp.down_prj'.*down_proj"),
        ({"skip": ["re:nothing"]}, "pattern 're:nothing' of modules to skip matches none"),
        ({"skip": Recipe(4, "row", ignore=("lm_head", "model.layers.9.mlp.down_proj"))}, "no module 'model.layers.9"),
        ({"skip": ["re:.*"]}, "nothing is left to compress"),
        ({"keep_massive": True}, "names no massive rows"),
    ],
)
def test_bad_requests_are_told(run_it, options, told):
    with pytest.raises(MonadnockError, match=told):
        run_it(make(), **options)


def test_a_folder_that_is_no_packed_model_or_a_damaged_one_is_told(run_it, tmp_path):
    with pytest.raises(MonadnockError, match="is not a packed model"):
        load_packed(tmp_path)
    run = run_it(make(), "spqr", save=True)
    folder = next((run.path / "packed").iterdir())
    rest = load_file(folder / "rest.safetensors")
    save_file({name: each for name, each in rest.items() if "embed" not in name}, folder / "rest.safetensors")
    with pytest.raises(MonadnockError, match="its parameters are not those"):
        load_packed(folder)
    file = folder / "matrices.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MonadnockError, match="is damaged"):
        load_packed(folder)


def test_a_run_of_another_model_is_refused(run_it):
    run_it(make())
    with pytest.raises(MonadnockError, match="is a run of"):
        run_it(make("gpt2"))
    assert isinstance(Run.open(run_it(make()).path), Run)


def test_labels_tell_apart_what_was_measured(run_it):
    adapter = make()
    for left in ("q", "v"):
        run_it(adapter, skip=["model.layers.0", f"model.layers.1.self_attn.{left}_proj"])
    run_it(adapter, Method.of("gptq", damping=0.5), calibration=2)
    run = run_it(adapter, "gptq", calibration=3)
    names = set(values(run))
    assert {"gptq 4 bits group 16 damping 0.5 calibration 2", "gptq 4 bits group 16 calibration 3"} < names
    assert sum("without layer 0 down" in name for name in names) == 2, names


def test_a_model_that_is_kept_on_the_cpu_is_saved_as_one_that_is_not(run_it, tmp_path):
    from accelerate import cpu_offload

    saved = []
    for moved in (False, True):
        adapter = make()
        if moved:
            cpu_offload(adapter.model, torch.device("cpu"))
        run = run_it(adapter, "spqr", save=True, out=tmp_path / str(moved))
        packed, plain = (next((run.path / kind).iterdir()) for kind in ("packed", "checkpoints"))
        saved.append((load_packed(packed).model.state_dict(), load(plain).model.state_dict()))
    for one, other in zip(*saved, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_failure_to_save_keeps_what_was_measured(run_it, monkeypatch):
    def fail(*_):
        raise MonadnockError("no room")

    monkeypatch.setattr("monadnock.compression.measuring.save_checkpoint", fail)
    adapter = make()
    before = run_it(adapter)
    with pytest.raises(MonadnockError, match="no room"):
        run_it(adapter, "spqr", save=True)
    assert len(values(before)) == 2 and before.table("compressions")["method"].n_unique() == 2
