"""monadnock finds the systematic outliers of a language model and shows how they hang together.

Public names, loaded when first used: `scan`, `attack`, `explain`, `study`, `lens`, `read`, `compress`, `prescribe`,
`compare`, `verify`, `load`, `Adapter`, `Run`, `Site`, `Stream`, `MonadnockError`, and the modules `interventions`,
`evaluation`, `sensitivity` and `compression`.

Example:
    >>> import monadnock as mk
    >>> run = mk.scan("smollm2")  # doctest: +SKIP
    >>> run.table("heads")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monadnock import compression as compression
    from monadnock import evaluation as evaluation
    from monadnock import interventions as interventions
    from monadnock import sensitivity as sensitivity
    from monadnock.attacking import attack as attack
    from monadnock.compression import compress as compress
    from monadnock.errors import MonadnockError as MonadnockError
    from monadnock.explaining import explain as explain
    from monadnock.findings import Run as Run
    from monadnock.models import Adapter as Adapter
    from monadnock.models import load as load
    from monadnock.prescribing import prescribe as prescribe
    from monadnock.reading import lens as lens
    from monadnock.reading import read as read
    from monadnock.relations.compare import compare as compare
    from monadnock.scanning import scan as scan
    from monadnock.sites import Site as Site
    from monadnock.sites import Stream as Stream
    from monadnock.studying import study as study
    from monadnock.verifying import verify as verify

_HOMES = {
    "Adapter": "monadnock.models",
    "MonadnockError": "monadnock.errors",
    "Run": "monadnock.findings",
    "Site": "monadnock.sites",
    "Stream": "monadnock.sites",
    "attack": "monadnock.attacking",
    "compare": "monadnock.relations.compare",
    "compress": "monadnock.compression",
    "explain": "monadnock.explaining",
    "lens": "monadnock.reading",
    "load": "monadnock.models",
    "prescribe": "monadnock.prescribing",
    "read": "monadnock.reading",
    "scan": "monadnock.scanning",
    "study": "monadnock.studying",
    "verify": "monadnock.verifying",
}
_ROOMS = ("compression", "evaluation", "interventions", "sensitivity")
__all__ = [
    "Adapter",
    "MonadnockError",
    "Run",
    "Site",
    "Stream",
    "attack",
    "compare",
    "compress",
    "compression",
    "evaluation",
    "explain",
    "interventions",
    "lens",
    "load",
    "prescribe",
    "read",
    "scan",
    "sensitivity",
    "study",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"monadnock.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'monadnock' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
