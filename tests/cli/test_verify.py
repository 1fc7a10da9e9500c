"""`monadnock verify` says what it found in a sentence and an exit code; `ls catalogue` lists what there is."""

import pytest

from monadnock.catalogue import entries
from tests.catalogue.planted import NAME, plant, publish
from tests.cli.conftest import save

__all__ = ["publish"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a planted model, and the folder that it is saved in, named as its entry."""
    folder = tmp_path_factory.mktemp("verify")
    found = plant(folder)
    return found, save(folder / NAME, found.adapter.model)


def test_a_match(cli, planted, publish, work):
    model, folder = planted
    publish(model.entry())
    ended = cli("verify", folder)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Match with the catalogue's {NAME} (planted): layer 1, and its 5 indices")
    assert ended.out.count("\n") == 1
    assert not list(work.iterdir())


def test_a_partial_match(cli, planted, publish):
    model, folder = planted
    publish(model.entry(features=[40, 2, 9, 17, 33]))
    ended = cli("verify", folder, "--dtype", "float32", "--device", "cpu")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("Partial match")


def test_a_mismatch(cli, planted, publish):
    model, folder = planted
    publish(model.entry(layer=0, model="Other"))
    ended = cli("verify", folder, "--entry", "other")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("Mismatch with the catalogue's Other (planted): layer 1, not layer 0.")


def test_spread_over_all_devices(cli, planted, publish):
    model, folder = planted
    publish(model.entry())
    assert cli("verify", folder, "--device", "auto", "--dtype", "float32").code == 0


BAD = {
    "not in the catalogue": (["{folder}/../tiny"], "name an entry with --entry"),
    "nearly in the catalogue": (["someone/Mistral-7B-v0.2"], "did you mean Mistral-7B-v0.1 or"),
    "no such entry": (["{folder}", "--entry", "hats"], "massive weights of 'hats'"),
    "no such folder": (["./Llama-2-7b-hf"], "does not exist"),
    "unknown dtype": (["{folder}", "--dtype", "float31"], "did you mean float32"),
    "unknown device": (["{folder}", "--device", "toaster"], "'toaster' cannot be used here"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(cli, planted, case, monkeypatch, work):
    model, folder = planted
    args, said = BAD[case]
    known = entries() | {NAME: model.entry()}
    monkeypatch.setattr("monadnock.catalogue.published.published_weights", lambda: known)
    ended = cli("verify", *[arg.format(folder=folder) for arg in args])
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("monadnock: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err
    assert not list(work.iterdir())


def test_a_model_without_bos(cli, planted, publish, tmp_path):
    publish(planted[0].entry())
    ended = cli("verify", save(tmp_path / NAME, bos=False))
    assert ended.code == 2
    assert "has no BOS token" in ended.err


def test_ls_lists_the_catalogue(cli):
    ended = cli("ls", "catalogue")
    assert (ended.code, ended.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert list(lines) == list(entries())
    assert lines["Mixtral-8x7B-v0.1"] == "layer 1, expert 3, indices 7310 7530 11981 7492 3178; oh2024 table 7"
    assert lines["smollm2"].endswith("; monadnock")
    assert len({line.index("layer") for line in ended.out.splitlines()}) == 1
