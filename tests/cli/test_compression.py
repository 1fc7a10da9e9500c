"""`monadnock sensitivity`, `map`, `compress`, `prescribe`: what they write and say, in turn, and bad input."""

import pytest

from monadnock import load
from monadnock.findings import Run

SMALL = ["--length", "16", "--tokens", "96"]
WINDOWS = ["--length", "16", "--windows", "3", "--calibration", "3"]


def test_the_whole_way_from_sensitivity_to_a_measured_recipe(scanned, cli, model, text):
    ended = cli("sensitivity", model, "--text", text, *SMALL, "--layer", "1", "--module", "o,down", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1].endswith("monadnock show run sensitivity_lines")
    assert "1 o" in ended.out and "1 down" in ended.out
    ended = cli(
        "sensitivity",
        model,
        "--text",
        text,
        *SMALL,
        "--no-patterns",
        "--map",
        "--module",
        "self_attn.q_proj",
        "--out",
        "run",
    )
    assert (ended.code, ended.err) == (0, "") and ended.out.splitlines()[-1] == "Next:   monadnock map run"
    ended = cli("map", "run", "map-001-q")
    assert (ended.code, ended.err) == (0, "")
    assert [path.name for path in (Run.open("run").path / "maps").iterdir()] == ["map-001-q.html"]
    ended = cli("compress", model, "--text", text, *WINDOWS, "--bits", "4", "--granularity", "row", "--out", "run")
    assert (ended.code, ended.err) == (0, "") and "absmax 4 bits row" in ended.out
    ended = cli("prescribe", "run")
    assert (ended.code, ended.err) == (0, "")
    assert "Recipe: run/recipe.yaml" in ended.out.splitlines()
    ended = cli("compress", model, "--text", text, *WINDOWS, "--recipe", "run/recipe.yaml", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    run = Run.open("run")
    tables = {"sensitivity", "sensitivity_lines", "patterns", "effects", "compressions", "prescriptions"}
    assert tables <= set(run.heights())
    assert (run.path / "report.html").is_file()
    for name in tables:
        assert cli("show", "run", name).code == 0
    assert cli("show", "run").code == 0


def test_a_saved_model_is_named_and_loads(cli, model, text):
    ended = cli("compress", model, "--text", text, *WINDOWS, "--method", "spqr", "--save", "--out", "fresh")
    assert (ended.code, ended.err) == (0, "")
    saved = [line.removeprefix("Saved:  ") for line in ended.out.splitlines() if line.startswith("Saved:")]
    assert len(saved) == 2 and load(saved[0]).num_layers == 3
    assert "stored bits" in ended.out


def test_a_recipe_with_nothing_kept_is_measured_once(scanned, cli, model, text, work):
    from monadnock.prescribing import Recipe, write_recipe

    write_recipe(Recipe(8, "tensor"), work / "plain.yaml")
    ended = cli("compress", model, "--text", text, *WINDOWS, "--recipe", "plain.yaml", "--out", "run")
    assert (ended.code, ended.err) == (0, "")
    assert set(Run.open("run").table("effects")["method"]) == {"absmax 8 bits tensor"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["sensitivity", "MODEL", "--module", "self_atn.o_proj"], "self_attn.o_proj"),
        (["sensitivity", "MODEL", "--layer", "one"], "'one' was given as layers"),
        (["sensitivity", "MODEL", "--layer", "7"], "Layer 7 was asked"),
        (["sensitivity", "MODEL", "--bits", "9"], "give 1 to 8"),
        (["compress", "MODEL", "--method", "sqpr"], "no compressor 'sqpr'"),
        (["compress", "MODEL", "--method", "spqr", "--granularity", "row"], "it works by group"),
        (["compress", "MODEL", "--recipe", "none.yaml"], "none.yaml"),
        (["prescribe", "nowhere"], "nowhere is not a run"),
        (["compress", "MODEL", "--recipe", "r.yaml", "--bits", "3"], "give it without other settings"),
        (["sensitivity", "MODEL", "--layer", ","], "No layer or no module was named"),
        (["map", "nowhere"], "nowhere is not a run"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(cli, model, work, args, told):
    before = sorted(work.iterdir())
    ended = cli(*[str(model) if arg == "MODEL" else arg for arg in args])
    assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1
    assert sorted(work.iterdir()) == before


def test_a_run_without_maps_says_how_to_make_them(scanned, cli):
    ended = cli("map", "run")
    assert ended.code == 2 and "--map" in ended.err
