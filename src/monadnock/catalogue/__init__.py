"""The catalogue: massive weights and attacks as published, and as we measured them; no torch."""

from monadnock.catalogue.published import (
    Entry,
    entries,
    entry_named,
    find_entry,
    measured_weights,
    published_attacks,
    published_consistency,
    published_weights,
)

__all__ = [
    "Entry",
    "entries",
    "entry_named",
    "find_entry",
    "measured_weights",
    "published_attacks",
    "published_consistency",
    "published_weights",
]
