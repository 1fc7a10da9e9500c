"""What was asked of an attack, checked before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from monadnock.attacking.modes import MODES, gain_norms
from monadnock.data.text import read_text
from monadnock.errors import MonadnockError, nearest
from monadnock.evaluation.generation import PROMPTS
from monadnock.evaluation.tasks import DEFAULT_TASKS
from monadnock.models import Adapter

METRICS = ("perplexity", "kl", "chain", "generation", "tasks")


@dataclass(frozen=True)
class Asked:
    """Metrics that were asked for.

    Attributes:
        names: names of metrics.
        prompts: what to go on from, if generation was asked.
        tasks: names of tasks, if tasks were asked.
    """

    names: frozenset[str]
    prompts: tuple[str, ...] | None
    tasks: tuple[str, ...] | None


def parse_metrics(metrics: Sequence[str]) -> Asked:
    """Read metrics, some of which carry arguments: `generation:FILE`, `tasks:NAME+NAME`.

    Raises:
        MonadnockError: on an unknown or doubled metric, arguments where there are none, or an unreadable file.

    Example:
        >>> parse_metrics(["kl", "tasks:piqa+boolq"]).tasks
        ('piqa', 'boolq')
    """
    given = {name: argument for name, _, argument in (metric.partition(":") for metric in metrics)}
    if len(given) < len(metrics):
        raise MonadnockError(f"A metric was asked twice in {', '.join(metrics)}.")
    if not given:
        raise MonadnockError(f"No metric was asked for; known are {', '.join(METRICS)}.")
    for name, argument in given.items():
        if name not in METRICS:
            raise MonadnockError(f"There is no metric {name!r}: {nearest(name, METRICS)}")
        if argument and name not in ("generation", "tasks"):
            raise MonadnockError(f"Metric {name} takes no arguments, {argument!r} was given.")
    prompts = tasks = None
    if "generation" in given:
        prompts = _prompts(given["generation"]) if given["generation"] else PROMPTS
    if "tasks" in given:
        tasks = tuple(given["tasks"].split("+")) if given["tasks"] else DEFAULT_TASKS
    if tasks is not None and len(set(tasks)) < len(tasks):
        raise MonadnockError(f"A task was asked twice in {', '.join(tasks)}.")
    return Asked(frozenset(given), prompts, tasks)


def _prompts(file: str) -> tuple[str, ...]:
    lines = tuple(line for line in read_text(file).splitlines() if line.strip())
    if not lines:
        raise MonadnockError(f"The file of prompts {file} holds no line; give one prompt per line.")
    return lines


def check_modes(modes: Sequence[str], ks: Sequence[int], seeds: int) -> None:
    """Refuse unknown or doubled modes, and sizes that no attack can have.

    Raises:
        MonadnockError: with the nearest known modes.
    """
    if not modes or not ks:
        raise MonadnockError(f"No {'k' if modes else 'mode'} was asked for; modes are {', '.join(MODES)}.")
    for name in modes:
        if name not in MODES:
            raise MonadnockError(f"There is no mode {name!r}: {nearest(name, MODES)}")
        if modes.count(name) > 1:
            raise MonadnockError(f"Mode {name} was asked twice.")
    if min(ks) < 0:
        raise MonadnockError(f"k = {min(ks)} was asked; k counts rows and is 0 or more.")
    if seeds < 1:
        raise MonadnockError(f"{seeds} seeds were asked; what is random has to be drawn once at least.")


def check_possible(adapter: Adapter, modes: Sequence[str], ks: Sequence[int]) -> None:
    """Refuse more rows than a layer has, and norms that a family has not, before anything slow.

    Raises:
        MonadnockError: with what there is.
    """
    if {"gain", "gain-random"} & set(modes):
        gain_norms(adapter)
    width = adapter.intermediate_size
    if max(ks) > width and {"zero", "retain", "random"} & set(modes):
        raise MonadnockError(f"k = {max(ks)} was asked, but {adapter.source.id} has {width} rows in W_up of a layer.")
