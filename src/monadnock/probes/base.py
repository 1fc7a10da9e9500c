"""What a probe is, what it may look at, and how probes are found by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import polars as pl

from monadnock.data import Windows, token_columns
from monadnock.errors import MonadnockError, nearest
from monadnock.models import Adapter
from monadnock.sites import Site, Stream
from monadnock.stats import Statistic

Pass = Literal["text", "start"]  # the windows of the text, or the start token alone
S = TypeVar("S", bound=Statistic)


@dataclass(frozen=True)
class Ask:
    """A statistic that a probe wants to see at every layer of a stream, in one of the two passes."""

    stream: Stream
    statistic: type[Statistic]
    over: Pass = "text"

    def stands_for(self, other: "Ask") -> bool:
        """Say whether what this ask collects holds all that the other would: a special case, of what shows as much."""
        special = self.statistic is not other.statistic and issubclass(self.statistic, other.statistic)
        shown = self.stream is other.stream or (self.stream, other.stream) == (Stream.HEADS, Stream.ATTN_PROBS)
        return special and shown and self.over == other.over


@runtime_checkable
class Probe(Protocol):
    """Something that is measured.

    Attributes:
        name: how it is asked for.
        tables: the tables that it fills.
        thresholds: its thresholds as `source.name`, for the manifest.
    """

    name: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]
    thresholds: ClassVar[Mapping[str, float]]

    def asks(self, adapter: Adapter) -> Sequence[Ask]:
        """Say what has to be observed; scan observes the union of all probes' asks in one pass."""
        ...

    def findings(self, evidence: "Evidence") -> dict[str, list[dict] | pl.DataFrame]:
        """Turn what was observed into rows of the probe's tables."""
        ...


@runtime_checkable
class ReadsWeights(Protocol):
    """A probe that reads weights, in steps of a layer: a model may have no more of them in memory."""

    name: ClassVar[str]

    def reads(self, evidence: "Evidence", layer: int) -> Any:
        """Return what `findings` needs of the weights at a layer; it asks for it as `evidence.read(self, layer)`.

        Args:
            evidence: what was observed, at this layer and the ones before.
            layer: 0-based decoder layer; -1 for what stands before the first, `num_layers` for what is behind the last.
        """
        ...


@dataclass(frozen=True)
class Evidence:
    """All that a scan observed.

    Attributes:
        adapter: the model.
        windows: the scanned text.
        start_token_id: the token that was fed alone at position 0.
        observed: statistics by pass, site and kind.
    """

    adapter: Adapter
    windows: Windows
    start_token_id: int
    observed: Mapping[tuple[Pass, Site, type[Statistic]], Statistic]

    def get(self, kind: type[S], stream: Stream, layer: int, over: Pass = "text") -> S:
        """Return the statistic of a kind that was collected at a site, or one that stands for it."""
        asked = Ask(stream, kind, over)
        for ask in (asked, *(Ask(Stream.HEADS, more, over) for more in kind.__subclasses__())):
            statistic = self.observed.get((over, Site(ask.stream, layer), ask.statistic))
            if isinstance(statistic, kind) and (ask == asked or ask.stands_for(asked)):
                return statistic
        raise KeyError(f"{asked} was not observed at layer {layer}")

    def read(self, probe: ReadsWeights, layer: int) -> Any:
        """Return what a probe reads off the weights at a layer, read once; see `ReadsWeights`."""
        known = self.__dict__.setdefault("_reads", {})
        if (probe.name, layer) not in known:
            known[probe.name, layer] = probe.reads(self, layer)
        return known[probe.name, layer]

    def token(self, window: int, position: int) -> dict[str, Any]:
        """Return the columns token_id, token and token_class of a position."""
        known = self.__dict__.setdefault("_tokens", {})
        place = int(self.windows.ids[window, position]), position == 0
        if place not in known:
            known[place] = token_columns(self.adapter.tokenizer, place[0], position)
        return known[place]


@cache
def _registered() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group="monadnock.probes")}


def probe_names() -> list[str]:
    """Return the names of all registered probes."""
    return list(_registered())


def resolve_probes(wanted: Sequence["str | Probe"] | None) -> list[Probe]:
    """Return probes by name, or as given; all registered ones if none are named.

    A name may carry arguments for the probe: `activations:query+key`.

    Raises:
        MonadnockError: on an unknown name, with the nearest known ones.

    Example:
        >>> [probe.name for probe in resolve_probes(["weights"])]
        ['weights']
    """
    probes: list[Probe] = []
    for item in probe_names() if wanted is None else wanted:
        if not isinstance(item, str):
            probes.append(item)
            continue
        name, _, arguments = item.partition(":")
        if name not in _registered():
            raise MonadnockError(f"There is no probe {name!r}: {nearest(name, _registered())}")
        cls = _registered()[name].load()
        try:
            probes.append(cls(arguments.split("+")) if arguments else cls())
        except TypeError as error:
            raise MonadnockError(f"Probe {name} takes no arguments, {arguments!r} was given.") from error
    if not probes:
        raise MonadnockError(f"No probe was asked for; known are {', '.join(_registered())}.")
    names = [probe.name for probe in probes]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise MonadnockError(f"Probe {', '.join(sorted(doubled))} was asked for twice.")
    return probes
