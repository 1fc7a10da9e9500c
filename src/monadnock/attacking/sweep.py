"""Attack a model in many ways: measure each, write it at once, and go on where a stopped start left off."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monadnock.attacking.cells import Cell, make_cells
from monadnock.attacking.measures import CleanStates, Generations, Measure, Predictions, TheChain, Zeroshot
from monadnock.attacking.modes import Change
from monadnock.attacking.recording import attack_facts, missing_parts, record
from monadnock.attacking.request import METRICS, Asked, check_modes, check_possible, parse_metrics
from monadnock.attacking.targets import check_aim, check_tables, find_targets
from monadnock.data import Windows
from monadnock.data.text import check_text
from monadnock.errors import MonadnockError
from monadnock.evaluation.tasks import Tasks
from monadnock.findings import Run
from monadnock.interventions.changed import check_changeable
from monadnock.models import Adapter
from monadnock.preparing import bar, evaluating, known_run, open_model, text_windows
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan

MODES_BY_DEFAULT = ("zero", "retain", "random")
KS_BY_DEFAULT = (1, 3, 5, 10, 30, 50)
METRICS_BY_DEFAULT = ("perplexity", "kl", "chain", "generation")
DEFAULT_TOKENS = 2048


def attack(
    model: Any,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    modes: Sequence[str] = MODES_BY_DEFAULT,
    ks: Sequence[int] = KS_BY_DEFAULT,
    metrics: Sequence[str] = METRICS_BY_DEFAULT,
    layers: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    expert: int | None = None,
    seeds: int = 1,
    limit: int | None = None,
    text: str | Path | None = None,
    dataset: str | None = None,
    tokens: int | None = None,
    length: int | None = None,
    bos: bool | None = None,
    stride: int | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Attack a model's massive weights in several modes and sizes, and write what that does into a run.

    Every attack and metric is on disk as soon as it is measured. What is there already is not measured again: the same
    call goes on where another one stopped, and adds modes, sizes and metrics to it.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model, from which targets are read and to which effects are added; or a new folder, which is
            then scanned first for what the targets need. By default a new one under `monadnock-runs/`.
        modes: what is done; `monadnock.attacking.MODES` has all.
        ks: how many rows, weights, features or positions.
        metrics: perplexity, kl, chain, generation (or generation:FILE, a prompt per line), tasks (or
            tasks:NAME+NAME, of lm-eval, or YAML files).
        layers: layers that are attacked together; by default the massive layer.
        rows: rows in place of those that |x_down| ranks first.
        expert: the expert of a mixture; by default the one that gets the start token.
        seeds: how many draws of what is drawn at random.
        limit: examples of each task.
        text, dataset, tokens, length, bos, seed: the text, see `scan`; 2,048 tokens by default.
        stride: tokens from one window to the next; by default windows do not overlap.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with the tables `effects` and `generations`.

    Raises:
        MonadnockError: on bad input, a run of another model, or an attack that is impossible.

    Example:
        >>> run = attack("smollm2", modes=["zero"], ks=[1, 2])  # doctest: +SKIP
        >>> run.table("effects").filter(metric="perplexity")  # doctest: +SKIP
    """
    check_modes(modes, ks, seeds)
    asked = parse_metrics(metrics)
    if limit is not None and asked.tasks is None:
        raise MonadnockError(f"A limit of {limit} examples was given, but no tasks were asked for (--metric tasks).")
    check_text(text, dataset)
    path, known = known_run(model, out)
    if known is not None:
        check_tables(known)
    tasks = [Tasks([name], limit=limit) for name in asked.tasks or ()]
    adapter = open_model(model, tokenizer, progress=progress, **options)
    check_changeable(adapter)
    check_aim(adapter, layers, rows, expert)
    check_possible(adapter, modes, ks)
    tokens = max(DEFAULT_TOKENS, length or 0) if tokens is None else tokens
    source: dict[str, Any] = {"text": text, "dataset": dataset, "tokens": tokens, "length": length, "bos": bos}
    windows = text_windows(adapter, seed=seed, stride=stride, **source)
    run = known or scan(adapter, out=path, probes=["start_token"], seed=seed, progress=progress, **source)
    with evaluating(adapter.model):
        sums = weight_sums(adapter)
        check_same(run, adapter, sums)
        targets = find_targets(adapter, run, layers=layers, rows=rows, expert=expert)
        cells = make_cells(adapter, targets, windows, modes, ks, seeds)
        measures = _measures(adapter, windows, asked, tasks, [cell.change for cell in cells if cell.change])
        asked_metrics = [name for name in METRICS if name in asked.names]
        run.note(attack_facts(adapter, windows, targets.start_token, sums, asked_metrics))
        _fill(run, cells, measures, progress=progress)
    return run


def _measures(
    adapter: Adapter, windows: Windows, asked: Asked, tasks: list[Tasks], changes: list[Change]
) -> list[tuple[Measure, list[str]]]:
    """Return what is measured, each with the parts that were asked for."""
    clean = CleanStates(adapter, windows, changes)
    found: list[tuple[Measure, list[str]]] = []
    if predictions := [name for name in ("perplexity", "kl") if name in asked.names]:
        found.append((Predictions(clean, windows.label), predictions))
    if "chain" in asked.names:
        found.append((TheChain(clean, windows.label), ["chain"]))
    if asked.prompts is not None:
        found.append((Generations(adapter, asked.prompts, bos=windows.bos), ["generation"]))
    found += [(Zeroshot(adapter, task, bos=windows.bos), ["task"]) for task in tasks]
    return found


def _fill(run: Run, cells: list[Cell], measures: list[tuple[Measure, list[str]]], *, progress: bool) -> None:
    """Measure what is not on disk yet, and write each part as soon as it is known."""
    todo = []
    for cell in cells:
        for measure, parts in measures:
            if missing := missing_parts(run, cell, measure, parts):
                todo.append((cell, measure, missing))
    with bar("attacks", sum(measure.steps for _, measure, _ in todo), progress) as step:
        for cell, measure, missing in todo:
            record(run, cell, cells[0], measure, missing, step)
