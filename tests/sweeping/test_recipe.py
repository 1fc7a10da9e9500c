"""Recipes: which cells they stand for, what a change does to them, and what is refused."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from monadnock import MonadnockError
from monadnock.sweeping import SweepRecipe, read_recipe

REPOSITORY = Path(__file__).parents[2]
ALL = sorted((REPOSITORY / "recipes").glob("*.yaml"))
RECIPES = [path for path in ALL if not path.name.startswith("pretrain_")]  # those are read by `monadnock pretrain`

values = st.integers(0, 9) | st.booleans() | st.text("ab", min_size=1, max_size=2)
cells = st.lists(st.dictionaries(st.sampled_from("abc"), values | st.lists(values, min_size=1, max_size=3)), max_size=3)


def write(folder, **content):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"verb": "attack", "settings": {"model": "m"}} | content))
    return path


@given(cells)
def test_lists_stand_for_all_their_combinations(found):
    grid = SweepRecipe(verb="attack", settings={"a": "shared"}, cells=found).grid()
    sizes = [math.prod(len(each) for each in cell.values() if isinstance(each, list)) for cell in found]
    assert len(grid) == (sum(sizes) if found else 1)
    assert all(not isinstance(value, list) for cell in grid for value in cell.values())
    assert all(cell["a"] == "shared" for cell in grid) or any("a" in cell for cell in found)
    for cell in found:
        for name, each in cell.items():
            assert (
                {str(value) for value in each} <= {str(row[name]) for row in grid if name in row}
                if isinstance(each, list)
                else any(row.get(name) == each for row in grid)
            )


def test_a_list_in_the_settings_is_one_value():
    assert SweepRecipe(verb="attack", settings={"ks": [1, 2]}).grid() == [{"ks": [1, 2]}]


def test_a_change_holds_in_every_cell_and_cells_that_are_then_alike_are_one(tmp_path):
    path = write(tmp_path, cells=[{"seed": [0, 1], "bos": True}, {"seed": 2, "bos": True}, {"bos": False}])
    assert len(read_recipe(path).grid()) == 4
    grid = read_recipe(path, {"seed": 5, "model": "other"}).grid()
    assert grid == [{"model": "other", "seed": 5, "bos": True}, {"model": "other", "seed": 5, "bos": False}]


def test_a_cell_is_told_by_what_is_its_own():
    recipe = SweepRecipe(verb="attack", settings={"model": "m", "seed": 3}, cells=[{"seed": [3, 4]}, {"bos": True}])
    assert recipe.told() == ["seed 3", "seed 4", "seed 3, bos True"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_comes_with_monadnock_can_be_read(path):
    recipe = read_recipe(path)
    assert recipe.about and len(recipe.grid()) > 1
    assert not Path(recipe.settings.get("data", "")).suffix or (REPOSITORY / recipe.settings["data"]).is_file()


def test_there_are_recipes():
    assert {"macdrop_scope", "macdrop_schedule", "macdrop_tasks"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"verb": "atack"}, "did you mean attack"),
        ({"architecture": "gpt2"}, "recipe of one pretraining: monadnock pretrain --recipe"),
        ({"verb": "report"}, "No sweep of 'report'"),
        ({"settings": {"model": "m", "modes": ["zero"], "kz": [1]}}, "sets 'kz'"),
        ({"cells": [{"progress": True}]}, "sets 'progress'"),
        ({"grid": {}}, "grid is no key of a recipe"),
        ({"settings": {}}, "names no model"),
        ({"cells": [{"seed": []}]}, "0 cells"),
        ({"cells": [{"seed": list(range(101)), "length": list(range(100))}]}, "10100 cells"),
        ({"verb": "finetune"}, "gives no data, which finetune needs"),
        ({"cells": [{name: list(range(10)) for name in "abcdefgh"}]}, "100000000 cells"),
        ({"cells": {"seed": [1]}}, "cells is not a list"),
        ({"settings": {"model": "m", "trust_remote_code": True}}, "which a file may not"),
        ({"cells": [{"trust_remote_code": [False, True]}]}, "which a file may not"),
        ({"cells": [{"seed": ["many"]}]}, "recipe.yaml: seed is 'many', but takes a whole number"),
        ({"settings": {"model": "m", "modes": "zero"}}, "modes is 'zero', but takes a list"),
        ({"resources": {"cpus": -1}}, "resources cpus is not 0 or a number of at least 0.0001"),
        ({"resources": {"cpus": 0.00001}}, "resources cpus is not 0 or a number of at least 0.0001"),
        ({"resources": {"gpus": math.inf}}, "resources gpus is not 0 or a number of at least 0.0001"),
        ({"resources": {"gpus": math.nan}}, "resources gpus is not 0 or a number of at least 0.0001"),
        ({"settings": {"model": "m", "out": "/tmp/there"}}, "outside the working folder"),
        ({"settings": {"model": "m", "out": "a/../../b"}}, "outside the working folder"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, content, says):
    with pytest.raises(MonadnockError, match=says):
        read_recipe(write(tmp_path, **content))


NO_RECIPES = ["[1, 2", "\0", "just words", "- 1", "[" * 5000, "!!python/object/apply:os.system [ls]"]


@pytest.mark.parametrize("content", NO_RECIPES, ids=range(len(NO_RECIPES)))
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(MonadnockError, match="Recipe"):
        read_recipe(path)


def test_a_person_may_ask_for_what_a_file_may_not(tmp_path):
    read = read_recipe(write(tmp_path), {"trust_remote_code": True, "out": str(tmp_path)})
    assert read.settings["trust_remote_code"] is True
