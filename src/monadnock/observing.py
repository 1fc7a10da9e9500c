"""Show a text to the statistics that probes ask for: in one pass, or layer by layer where weights are not in memory."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from monadnock import processes
from monadnock.data import Windows
from monadnock.errors import MonadnockError
from monadnock.findings.manifest import SelfCheck
from monadnock.models import Adapter, observe
from monadnock.models.layerwise import embed, holding, logits_of, run_layer, walking
from monadnock.models.offload import is_away
from monadnock.preparing import bar
from monadnock.probes import Evidence, Probe
from monadnock.probes.base import Pass, ReadsWeights
from monadnock.sites import Site
from monadnock.stats import Statistic

CHECKED_POSITIONS = 64  # positions of the first window whose logits are compared
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # of the largest |logit|

Collected = dict[tuple[Pass, Site, type[Statistic]], Statistic]
At = dict[tuple[Site, type[Statistic]], Statistic]


def observe_text(
    adapter: Adapter,
    windows: Windows,
    start: int,
    probes: Iterable[Probe],
    *,
    progress: bool = False,
    check: bool = True,
) -> tuple[Evidence, SelfCheck | None]:
    """Collect the union of what the probes ask for: one pass over the start token, one over the windows.

    A model whose weights are not all in memory goes layer by layer: all windows through one before the next is read.
    What probes read off the weights of a layer they read while it is there, so that each weight is read once.

    Args:
        adapter: the model.
        windows: the text.
        start: id of the token that is fed alone at position 0.
        probes: what is measured.
        progress: show a progress bar on a terminal.
        check: compare the first window's logits with those of a plain pass; `scan` always does.

    Returns:
        The evidence, and the self-check of the first window's logits, if there was a pass.
    """
    collected: Collected = {}
    probes = list(probes)
    asks = dict.fromkeys(ask for probe in probes for ask in probe.asks(adapter))
    for ask in [ask for ask in asks if not any(other.stands_for(ask) for other in asks)]:
        size = 1 if ask.over == "start" else len(windows.ids)
        for layer in range(adapter.num_layers):
            collected[ask.over, Site(ask.stream, layer), ask.statistic] = ask.statistic(size)
    evidence = Evidence(adapter, windows, start, collected)
    passes = _passes(evidence)
    if is_away(*adapter.layers):
        return evidence, _by_layers(adapter, passes, probes, evidence, progress=progress, check=check)
    outcome = None
    for each in passes:
        outcome = _at_once(adapter, each, progress=progress, check=check)
    return evidence, outcome


@dataclass
class _Windows:
    """What one of the passes goes over, the statistics that see it, and which of its windows this process has."""

    over: Pass
    ids: Tensor
    mine: range
    statistics: At = field(default_factory=dict)

    @property
    def checked(self) -> bool:
        """Whether the logits of its first window are compared."""
        return self.over == "text" and processes.is_first()

    @property
    def positions(self) -> Tensor:
        """The positions whose logits are compared."""
        return torch.linspace(0, self.ids.shape[1] - 1, min(CHECKED_POSITIONS, self.ids.shape[1])).long()

    def at(self, layer: int) -> At:
        """Return the statistics of one layer."""
        return {(site, kind): each for (site, kind), each in self.statistics.items() if site.layer == layer}


def _passes(evidence: Evidence) -> list[_Windows]:
    ids = evidence.windows.ids
    both = (
        _Windows("start", torch.tensor([[evidence.start_token_id]]), range(1)),
        _Windows("text", ids, range(processes.number(), len(ids), processes.count())),
    )
    for (over, site, kind), statistic in evidence.observed.items():
        both[over == "text"].statistics[site, kind] = statistic
    return [each for each in both if each.statistics]


def _at_once(adapter: Adapter, windows: _Windows, *, progress: bool, check: bool) -> SelfCheck | None:
    """Show the statistics all windows, each in one forward pass."""
    expected, outcome = None, None
    if check and windows.checked:
        expected = adapter.forward(windows.ids[0], keep=windows.positions)
    watcher = _Watcher(windows.statistics)
    shown = progress and windows.checked
    with observe(adapter, watcher.by_site()), bar(f"{windows.over} pass", len(windows.mine), shown) as step:
        for watcher.window in windows.mine:
            compared = expected is not None and watcher.window == 0
            logits = adapter.forward(windows.ids[watcher.window], keep=windows.positions if compared else 1)
            if expected is not None and watcher.window == 0:
                outcome = self_check(expected, logits, TOLERANCE.get(adapter.dtype, 5e-2))
            _check_seen(adapter, windows.statistics, watcher.window)
            step()
    if windows.over == "text":
        processes.merge_in_first(windows.statistics)
    return outcome


def _by_layers(
    adapter: Adapter, passes: list[_Windows], probes: list[Probe], evidence: Evidence, *, progress: bool, check: bool
) -> SelfCheck | None:
    """Show the statistics all windows at one layer after the other, and let probes read each layer's weights there."""
    outcome, behind = None, adapter.num_layers
    text = next((each for each in passes if check and each.checked), None)
    with walking(adapter), bar("layers", adapter.num_layers, progress and processes.is_first()) as step:
        with holding(adapter, -1):
            places = [(each, window) for each in passes for window in each.mine]
            states: dict[tuple[Pass, int], Any] = {
                (each.over, window): embed(adapter, each.ids[window]) for each, window in places
            }
            plain = None if text is None else states[text.over, 0]  # goes through without observation
            _read(evidence, probes, -1)
        for layer in range(adapter.num_layers):
            with holding(adapter, layer):
                if text is not None:
                    plain = run_layer(adapter, text.ids[0], layer, plain, {})
                for windows in passes:
                    here = windows.at(layer)
                    watcher = _Watcher(here)
                    for watcher.window in windows.mine:
                        place = windows.over, watcher.window
                        ids = windows.ids[watcher.window]
                        states[place] = run_layer(adapter, ids, layer, states[place], watcher.by_site())
                        _check_seen(adapter, here, watcher.window)
                    if windows.over == "text":
                        processes.merge_in_first(here)
                _read(evidence, probes, layer)
            step()
        with holding(adapter, behind):
            if text is not None:
                expected = logits_of(adapter, text.ids[0], plain, text.positions)
                found = logits_of(adapter, text.ids[0], states[text.over, 0], text.positions)
                outcome = self_check(expected, found, TOLERANCE.get(adapter.dtype, 5e-2))
            _read(evidence, probes, behind)
    return outcome


def _read(evidence: Evidence, probes: list[Probe], layer: int) -> None:
    """Let probes read the weights that are in memory now; only the first process writes what they find."""
    for probe in probes if processes.is_first() else []:
        if isinstance(probe, ReadsWeights):
            evidence.read(probe, layer)


def _check_seen(adapter: Adapter, statistics: At, window: int) -> None:
    for (site, kind), statistic in statistics.items():
        if not statistic.seen[window]:
            name = adapter.family.model_type
            raise MonadnockError(
                f"Nothing was seen at {site} ({kind.__name__}): family {name} does not let it be observed; "
                "no run was written."
            )


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
