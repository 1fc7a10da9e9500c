"""The page of a comparison: numbers side by side, what changed, curves of all runs, and how they were made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monadnock.findings.pages import check_replaceable, write_file
from monadnock.findings.words import listed
from monadnock.relations.compare import Comparison
from monadnock.relations.compare_join import Side
from monadnock.report import compare_charts, compare_lists, facts, text
from monadnock.report.page import fill
from monadnock.report.parts import Block

_VERB = "compare"
_MOST = 5  # runs that the title names


@dataclass(frozen=True)
class Chapter:
    """A chapter of the page: anchor, heading, the question that it answers, and what makes its blocks."""

    key: str
    title: str
    says: str
    draw: Callable[[Comparison], list[Block]]
    empty: str = ""


CHAPTERS = (
    Chapter("numbers", "Numbers", "By what the models can be told apart at a glance.", compare_lists.numbers),
    Chapter("changed", "What changed", "Row by row, where runs have the same shape.", compare_lists.changed),
    Chapter("over", "Over the runs", "Whether outliers grow or shrink from run to run.", compare_lists.over),
    Chapter(
        "activations",
        "Activations over the layers",
        "How large the largest activations get, and where.",
        lambda found: compare_charts.curves(found, compare_charts.ACTIVATIONS),
    ),
    Chapter(
        "sinks",
        "Attention sinks",
        "How many heads park their attention on one key, and where.",
        lambda found: compare_charts.curves(found, compare_charts.SINKS) + compare_charts.sink_maps(found),
    ),
    Chapter(
        "rotary",
        "Rotary offsets",
        "How many pairs of dimensions of queries and keys act as an offset of the logits.",
        lambda found: compare_charts.curves(found, compare_charts.ROTARY),
    ),
    Chapter(
        "weights",
        "Weights",
        "Which layers hold weights and gains far above their neighbours.",
        lambda found: compare_charts.curves(found, compare_charts.WEIGHTS),
    ),
    Chapter("attacks", "Attacks", "What each model loses when its massive weights are changed.", compare_lists.attacks),
    Chapter("largest", "Largest changes", "The rows that changed most.", compare_lists.largest),
    Chapter("tables", "Tables", "How much of each table differs.", compare_lists.tables),
)


def write_comparison(comparison: Comparison, path: str | Path = "compare.html") -> Path:
    """Write the page of a comparison and return its path; an older page of a comparison there is replaced.

    The page holds all it needs, and opens from disk without a network. It appears whole or not at all.

    Raises:
        MonadnockError: if the path holds anything else, or cannot be written.

    Example:
        >>> write_comparison(compare("runs/base", "runs/tuned"))  # doctest: +SKIP
        PosixPath('compare.html')
    """
    check_replaceable(Path(path), what="page", verb=_VERB)  # before anything slow
    return write_file(Path(path), [render(comparison).encode()], what="page", verb=_VERB)


def render(comparison: Comparison) -> str:
    """Return the page of a comparison as HTML."""
    first, *others = comparison.names
    chapters = [(chapter, chapter.draw(comparison)) for chapter in CHAPTERS]
    return fill(
        [(chapter, blocks) for chapter, blocks in chapters if blocks],
        comparison.sides[0].manifest.model_copy(update={"thresholds": _agreed(comparison)}),
        verb=_VERB,
        title=f"{listed(others, _MOST)} against {first}",
        facts={side.name: _about(side) for side in comparison.sides},
        provenance=_provenance(comparison),
        alarm="Not everything here is comparable",
        so="What differs between the runs, besides what was to be compared:",
        warnings=comparison.warnings,
        sentences=[("Note", sentence) for sentence in comparison.remarks],
        missing=[],
    )


def _agreed(comparison: Comparison) -> dict[str, float]:
    """Return the thresholds that all runs have in common: definitions cite no others."""
    first, *others = (side.manifest.thresholds for side in comparison.sides)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _about(side: Side) -> str:
    model, words = side.manifest.model, side.manifest.text
    front = f"{text.token(words.start_token)} in front" if words.bos else "no BOS in front"
    return (
        f"{model.id}, {facts.facts(side.manifest)['Family']}; {model.dtype}; {words.num_windows} of {words.length:,} "
        f"tokens of {words.source}, {front}; from {side.path}"
    )


def _provenance(comparison: Comparison) -> dict[str, str]:
    """Return the facts of all runs: once where they agree, and else once for each run."""
    every = {side.name: facts.facts(side.manifest) | facts.provenance(side.manifest) for side in comparison.sides}
    told = {}
    for label in dict.fromkeys(label for run in every.values() for label in run):
        values = {name: run.get(label, text.NONE) for name, run in every.items()}
        if len(set(values.values())) == 1:
            told[label] = next(iter(values.values()))
        else:
            told |= {f"{label}, {name}": value for name, value in values.items()}
    return told
