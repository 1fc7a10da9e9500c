"""Importing monadnock is cheap and changes nothing; its public names are loaded when first used."""

import json
import subprocess
import sys

import pytest

import monadnock

HOMES = [
    "Adapter",
    "MonadnockError",
    "Run",
    "Site",
    "Stream",
    "attack",
    "compare",
    "compress",
    "explain",
    "lens",
    "load",
    "prescribe",
    "read",
    "scan",
    "study",
    "verify",
]
ROOMS = ["compression", "evaluation", "interventions", "sensitivity"]
NAMES = sorted(HOMES + ROOMS)


def python(code):
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


def test_the_public_names_are_these():
    assert sorted(monadnock.__all__) == NAMES
    assert sorted(dir(monadnock)) == NAMES
    assert set(monadnock._HOMES) == set(HOMES)


@pytest.mark.parametrize("name", ROOMS)
def test_a_public_room_is_the_module_of_that_name(name):
    assert getattr(monadnock, name) is sys.modules[f"monadnock.{name}"]


@pytest.mark.parametrize("name", HOMES)
def test_a_public_name_is_what_its_home_calls_so(name):
    found = getattr(monadnock, name)
    assert found.__name__ == name
    assert found is getattr(sys.modules[monadnock._HOMES[name]], name)
    assert found.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'monadnock' has no attribute 'hills'"):
        _ = monadnock.hills


def test_import_star_gives_the_public_names():
    out, _ = python("from monadnock import *; print(sorted(n for n in dir() if n[0] != '_'))")
    assert out == f"{NAMES}\n"


def test_import_loads_nothing_heavy_and_says_nothing():
    out, err = python(
        "import json, sys; old = set(sys.modules); import monadnock; print(json.dumps(sorted(set(sys.modules) - old)))"
    )
    loaded = {name.partition(".")[0] for name in json.loads(out)}
    assert not loaded & {"torch", "transformers", "polars", "bokeh", "pydantic", "rich", "typer", "numpy"}
    assert err == ""


def test_importing_everything_changes_no_global_setting():
    code = """
import os, random, sys, warnings, logging
import numpy, torch
from transformers.utils import logging as told
def state():
    return (dict(os.environ), random.getstate(), torch.get_default_dtype(), torch.get_default_device(),
            torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed(), torch.get_rng_state().tolist(),
            list(warnings.filters), logging.getLogger().level, told.get_verbosity(), sys.getrecursionlimit())
import transformers.masking_utils, transformers.modeling_utils, bokeh.embed, polars, rich.progress, typer, gguf
before = state()
import monadnock
for name in monadnock.__all__:
    getattr(monadnock, name)
import monadnock.cli, monadnock.report
after = state()
changed = [i for i, (a, b) in enumerate(zip(before, after)) if a != b]
assert not changed, changed
"""
    assert python(code) == ("", "")
