"""Verbs that torchrun cannot share are refused at once; each process would do the whole, and write into one run."""

import pytest

from monadnock.cli import SHARED, VERBS, main


@pytest.mark.parametrize("verb", sorted({verb.__name__.rpartition(".")[2] for verb in VERBS} - set(SHARED)))
def test_other_verbs_are_refused(monkeypatch, capsys, verb):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("sys.argv", ["monadnock", verb, "smollm2"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"torchrun started 2 processes, and {verb} runs in one" in capsys.readouterr().err


def test_one_process_of_torchrun_does_all(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr("sys.argv", ["monadnock", "ls", "variants"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and "sigmoid" in capsys.readouterr().out
