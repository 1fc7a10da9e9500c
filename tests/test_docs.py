"""What is not in the docs does not exist: verbs, options, tables, columns, probes, families and views are all told."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import typer.main

import monadnock
from monadnock import interventions
from monadnock.attacking import MODES
from monadnock.attacking.request import METRICS
from monadnock.cli import app
from monadnock.findings import TABLES
from monadnock.report import attacks

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "monadnock"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
SOURCES = sorted(SOURCE.rglob("*.py"))
GROUP: typer.main.TyperGroup = typer.main.get_command(app)  # type: ignore[assignment]
VERBS = dict(GROUP.commands)
OPTIONS = [
    (verb, option) for verb in VERBS for given in VERBS[verb].params for option in (*given.opts, *given.secondary_opts)
]


@cache
def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@cache
def code(name: str) -> set[str]:
    """Return the words of a page that stand in `code` or in a fenced block."""
    text = page(name)
    spans = re.findall(r"```.*?\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
    return set(re.findall(r"-{0,2}\w[\w.+-]*", " ".join(spans)))


def section(name: str, title: str) -> str:
    """Return what stands under the heading that names `title`, down to the next heading as high."""
    found = re.search(rf"^(#+) [^\n]*\b{re.escape(title)}\b[^\n]*$(.*?)(?=^\1 |\Z)", page(name), re.S | re.M)
    assert found, f"docs/{name} has no heading with {title}"
    return found[2]


def registered(kind: str) -> list[str]:
    return sorted(entry.name for entry in entry_points(group=f"monadnock.{kind}"))


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_are_documented(verb):
    assert f"monadnock {verb}" in page("cli.md")


@pytest.mark.parametrize(("verb", "option"), [(v, o) for v, o in OPTIONS if o.startswith("--")])
def test_options_are_documented(verb, option):
    assert option in code("cli.md")


def test_options_that_there_are_not_are_not_documented():
    known = {option for _, option in OPTIONS} | {"--help", "--no-deps", "--extra-index-url", "--index-url"}
    known |= {"--nproc-per-node"}  # of torchrun
    assert {word for word in code("cli.md") if word.startswith("--")} <= known


def test_a_verb_has_fewer_than_ten_arguments_that_matter_and_each_has_help():
    for name, verb in VERBS.items():
        assert verb.help, name
        for given in verb.params:
            assert getattr(given, "help", None), (name, given.name)


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_attack_are_documented_and_drawn(mode):
    assert re.search(rf"^\| `{mode}` \|", page("attack.md"), re.M)
    assert mode in attacks.MODES  # the page's own list, which needs no torch


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_documented(metric):
    assert metric in code("attack.md")


@pytest.mark.parametrize("name", [*interventions.__all__])
def test_interventions_are_documented(name):
    assert name in code("attack.md")


@pytest.mark.parametrize("table", TABLES)
def test_tables_and_their_columns_are_documented(table):
    told = set(re.findall(r"`(\w+)`", section("tables.md", table)))
    assert {name for name, _, _ in TABLES[table].columns} <= told


@pytest.mark.parametrize("probe", registered("probes"))
def test_probes_are_documented(probe):
    assert probe in code("probes.md")


@pytest.mark.parametrize("family", registered("families"))
def test_families_are_documented(family):
    assert family in code("families.md")


@pytest.mark.parametrize("view", registered("views"))
def test_views_are_documented(view):
    assert any(re.search(rf"`(monadnock )?{view}\b", text.read_text(encoding="utf-8")) for text in PAGES)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("text", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(text):
    without_code = re.sub(r"```.*?```|`[^`\n]*`", "", text.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)", without_code):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, place = target.partition("#")
        there = (text.parent / file).resolve() if file else text
        assert there.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)
            assert place in map(anchor, headings), target


def modules():
    names = [found.name for found in pkgutil.walk_packages(monadnock.__path__, "monadnock.")]
    return [monadnock, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]


def test_examples_in_docstrings_run():
    runner, finder = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), doctest.DocTestFinder(exclude_empty=True)
    ran = 0
    for module in modules():
        for test in finder.find(module, module.__name__):
            ran += sum(not example.options.get(doctest.SKIP) for example in test.examples)
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert ran > 10


def test_public_things_have_a_docstring():
    bare = []
    for module in modules():
        for name, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == module.__name__
            if name.startswith("_") or not own or not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            if "." in getattr(thing, "__qualname__", ""):
                continue
            if not thing.__doc__ or (inspect.isclass(thing) and "__doc__" not in vars(thing)):
                bare.append(f"{module.__name__}.{name}")
            if inspect.isclass(thing):
                methods = ((n, m) for n, m in vars(thing).items() if inspect.isfunction(m) and not n.startswith("_"))
                bare += [f"{module.__name__}.{name}.{n}" for n, m in methods if not inspect.getdoc(getattr(thing, n))]
    assert not bare


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short_and_open_with_what_they_are(source):
    text = source.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    told = ast.get_docstring(ast.parse(text))
    assert told
    assert text.startswith(('"""', 'r"""'))
    assert told.splitlines()[0].endswith(".")


def test_the_tree_in_the_readme_has_every_file():
    tree = re.search(r"^src/monadnock/\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    assert tree
    told, room = set(), ""
    for line in tree[1].splitlines():
        names = line[:26].split()
        room = room if line.startswith("    ") else names[0] if names[0].endswith("/") else ""
        told |= {name if name.endswith("/") else room + name for name in names if "." in name or name == room}
    files = [
        path.relative_to(SOURCE) for path in SOURCES if path.name != "__init__.py" and "families" not in path.parts
    ]
    missing = [str(file) for file in files if not any(file.match(name) for name in told)]
    assert not missing
    assert all(list(SOURCE.glob(name)) for name in told - {"tests/", "benchmarks/", "docs/"})  # nothing that is gone
