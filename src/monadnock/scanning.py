"""Scan a model: observe what the probes ask for in one pass over the text, and write what they found as a run."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from monadnock import processes
from monadnock.data import Windows
from monadnock.data.text import check_text
from monadnock.errors import MonadnockError
from monadnock.findings.manifest import Manifest, SelfCheck
from monadnock.findings.run import Run, check_free
from monadnock.findings.schema import table
from monadnock.models import Adapter, observe
from monadnock.preparing import (
    bar,
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
from monadnock.probes.base import Pass
from monadnock.relations.consistency import NEEDED, consistency
from monadnock.sites import Site, Stream
from monadnock.stats import Statistic

CHECKED_POSITIONS = 64  # positions of the first window whose logits are compared
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # of the largest |logit|

Collected = dict[tuple[Pass, Site, type[Statistic]], Statistic]


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
        collected, check = observe_text(adapter, windows, start, wanted, progress=progress)
    with processes.first_alone():
        if not processes.is_first():
            return Run.open(path)
        tables = _tables(wanted, Evidence(adapter, windows, start, collected))
        manifest = _manifest(adapter, windows, start, wanted, check, time.monotonic() - began)
        return Run.write(path, manifest, tables, force=force)


def observe_text(
    adapter: Adapter,
    windows: Windows,
    start: int,
    probes: Iterable[Probe],
    *,
    progress: bool = False,
    check: bool = True,
) -> tuple[Collected, SelfCheck | None]:
    """Collect the union of what the probes ask for: one pass over the start token, one over the windows.

    Args:
        adapter: the model.
        windows: the text.
        start: id of the token that is fed alone at position 0.
        probes: what is measured.
        progress: show a progress bar on a terminal.
        check: compare the first window's logits with those of a plain pass; `scan` always does.

    Returns:
        The statistics by pass, site and kind, and the self-check of the first window's logits, if there was a pass.
    """
    collected: Collected = {}
    asks = dict.fromkeys(ask for probe in probes for ask in probe.asks(adapter))
    for ask in [ask for ask in asks if not any(other.stands_for(ask) for other in asks)]:
        size = 1 if ask.over == "start" else len(windows.ids)
        for layer in range(adapter.num_layers):
            collected[ask.over, Site(ask.stream, layer), ask.statistic] = ask.statistic(size)
    passes: dict[Pass, Tensor] = {"start": torch.tensor([[start]]), "text": windows.ids}
    outcome = None
    for over, ids in passes.items():
        here = {(site, kind): stat for (which, site, kind), stat in collected.items() if which == over}
        if not here:
            continue
        expected, positions = None, torch.tensor([ids.shape[1] - 1])
        if over == "text" and check and processes.is_first():
            positions = torch.linspace(0, ids.shape[1] - 1, min(CHECKED_POSITIONS, ids.shape[1])).long()
            expected = adapter.forward(ids[0], keep=positions)
        watcher = _Watcher(here)
        mine = range(processes.number(), len(ids), processes.count()) if over == "text" else range(len(ids))
        shown = progress and over == "text" and processes.is_first()
        with observe(adapter, watcher.by_site()), bar(f"{over} pass", len(mine), shown) as step:
            for watcher.window in mine:
                logits = adapter.forward(ids[watcher.window], keep=positions if watcher.window == 0 else 1)
                if watcher.window == 0 and expected is not None:
                    outcome = self_check(expected, logits, TOLERANCE.get(adapter.dtype, 5e-2))
                for (site, kind), statistic in here.items():
                    if not statistic.seen[watcher.window]:
                        name = adapter.family.model_type
                        raise MonadnockError(
                            f"Nothing was seen at {site} ({kind.__name__}): family {name} does not let it be observed; "
                            "no run was written."
                        )
                step()
        if over == "text":
            processes.merge_in_first(here)
    return collected, outcome


def self_check(expected: Tensor, found: Tensor, tolerance: float) -> SelfCheck:
    """Compare logits [position, vocab] without and with observation; NaN equals NaN.

    Raises:
        MonadnockError: if they differ by more than `tolerance` times the largest |logit|.
    """
    expected, found = expected.float(), found.float()
    finite = expected.isfinite()
    scale = float(expected[finite].abs().max()) if bool(finite.any()) else 0.0
    difference = torch.where(finite & found.isfinite(), (expected - found).abs(), 0.0).max()
    error = float(difference) / scale if scale else 0.0
    if error > tolerance or bool((finite != found.isfinite()).any()):
        raise MonadnockError(
            f"Observation changed the logits (relative difference {error:.1e}, at most {tolerance:.0e} is rounding); "
            "no run was written: please report this model family."
        )
    return SelfCheck(relative_error=error, tolerance=tolerance, num_logit_positions=len(expected))


class _Watcher:
    """Hands what is seen at each site to the statistics there, with the number of the window."""

    def __init__(self, statistics: Mapping[tuple[Site, type[Statistic]], Statistic]):
        self.window = 0
        self._at: dict[Site, list[Statistic]] = {}
        for (site, _), statistic in statistics.items():
            self._at.setdefault(site, []).append(statistic)

    def by_site(self) -> dict[Site, Callable[[Any], None]]:
        return {site: self._update(statistics) for site, statistics in self._at.items()}

    def _update(self, statistics: list[Statistic]) -> Callable[[Any], None]:
        def update(batch: Any) -> None:
            for statistic in statistics:
                statistic.update(batch, self.window)

        return update


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
