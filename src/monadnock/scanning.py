"""Scan a model: observe what the probes ask for in one pass over the text, and write what they found as a run."""

import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from monadnock import processes
from monadnock.data import Windows
from monadnock.data.text import check_text
from monadnock.findings.manifest import Manifest, SelfCheck
from monadnock.findings.run import Run, check_free
from monadnock.findings.schema import table
from monadnock.models import Adapter
from monadnock.observing import observe_text
from monadnock.preparing import (
    evaluating,
    fresh_path,
    model_facts,
    open_model,
    start_token,
    text_facts,
    text_windows,
    versions,
)
from monadnock.probes import Evidence, Probe, resolve_probes
from monadnock.relations.consistency import NEEDED, consistency
from monadnock.sites import Stream


def scan(
    model: Any,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    text: str | Path | None = None,
    dataset: str | None = None,
    tokens: int | None = None,
    length: int | None = None,
    bos: bool | None = None,
    probes: Sequence[str | Probe] | None = None,
    seed: int = 0,
    dtype: str = "auto",
    device: str | None = None,
    device_map: str | dict | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Run:
    """Find a model's systematic outliers and write them as a run.

    Under torchrun each process takes its share of the windows, and the first one writes.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        out: folder of the run; by default a new one under `monadnock-runs/`.
        text: a text file; by default the built-in text.
        dataset: a `datasets` name instead, as `owner/name:config:split`.
        tokens: how many tokens, by default 4096 (at least one window).
        length: tokens of a window, by default 1024 or the model's context if that is shorter.
        bos: put a BOS token in front of each window; by default if the tokenizer has one.
        probes: names or probes; by default all that are registered.
        seed: chooses the windows.
        dtype, device, device_map, revision, trust_remote_code: see `load`.
        force: replace a run that is already at `out`.
        progress: show a progress bar when the output is a terminal.

    Returns:
        The run.

    Raises:
        MonadnockError: on bad input, or if observation changes the model's logits beyond rounding.

    Example:
        >>> run = scan("smollm2", tokens=1024)  # doctest: +SKIP
        >>> run.table("massive_weights")["feature"][:2].to_list()  # doctest: +SKIP
        [1229, 1487]
    """
    began = time.monotonic()
    wanted = resolve_probes(probes)
    for probe in wanted:
        for name in probe.tables:
            table(name)  # refuses a probe whose table has no schema before anything runs
    path = processes.from_first(Path(out) if out is not None else fresh_path(model))
    check_free(path.absolute(), force=force)
    check_text(text, dataset)
    adapter = open_model(
        model,
        tokenizer,
        progress=progress,
        dtype=dtype,
        device=device or (processes.own_device() if device_map is None else None),
        device_map=device_map,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    windows = text_windows(adapter, text=text, dataset=dataset, tokens=tokens, length=length, bos=bos, seed=seed)
    start = start_token(adapter, windows)
    with evaluating(adapter.model):
        evidence, check = observe_text(adapter, windows, start, wanted, progress=progress)
    with processes.first_alone():
        if not processes.is_first():
            return Run.open(path)
        tables = _tables(wanted, evidence)
        manifest = _manifest(adapter, windows, start, wanted, check, time.monotonic() - began)
        return Run.write(path, manifest, tables, force=force)


def _tables(probes: Iterable[Probe], evidence: Evidence) -> dict[str, pl.DataFrame]:
    frames: dict[str, pl.DataFrame] = {}
    for probe in probes:
        for name, rows in probe.findings(evidence).items():
            frame = table(name).frame(rows)
            frames[name] = pl.concat([frames[name], frame]) if name in frames else frame
    if all(name in frames for name in NEEDED):
        frames["consistency"] = table("consistency").frame(consistency(frames))
    return frames


def _manifest(
    adapter: Adapter, windows: Windows, start: int, probes: Sequence[Probe], check: SelfCheck | None, seconds: float
) -> Manifest:
    own = adapter.config._attn_implementation
    seen = (Stream.ATTN_PROBS, Stream.HEADS)
    observed = any(ask.stream in seen for probe in probes for ask in probe.asks(adapter))
    return Manifest(
        monadnock=version("monadnock"),
        model=model_facts(adapter),
        text=text_facts(adapter, windows, start),
        probes=[probe.name for probe in probes],
        attention=f"eager, observed in blocks; checked against {own}" if observed else own,
        thresholds={name: value for probe in probes for name, value in probe.thresholds.items()},
        versions=versions(),
        self_check=check,
        seconds=seconds,
    )
