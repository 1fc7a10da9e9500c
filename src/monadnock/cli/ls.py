"""`monadnock ls`: what there is to name: models, families, probes, tables."""

from typing import Annotated

import typer

from monadnock.errors import MonadnockError, nearest


def _models() -> list[tuple[str, str]]:
    from monadnock.models.packaged import PACKAGED

    return [(name, f"{entry.note}; {entry.install}") for name, entry in PACKAGED.items()]


def _families() -> list[tuple[str, str]]:
    from monadnock.models.family import families, family

    kinds = {"interface": "attention observed in blocks", "returned": "attention read from the module's output"}
    return [(name, kinds[family(name).attention]) for name in families()]


def _probes() -> list[tuple[str, str]]:
    from monadnock.probes.base import probe_names, resolve_probes

    return [(name, "fills " + ", ".join(resolve_probes([name])[0].tables)) for name in probe_names()]


def _tables() -> list[tuple[str, str]]:
    from monadnock.findings import TABLES

    return [(name, table.doc) for name, table in TABLES.items()]


KINDS = {"models": _models, "families": _families, "probes": _probes, "tables": _tables}


def command(what: Annotated[str, typer.Argument(help="models, families, probes or tables")]) -> None:
    """List the packaged models, the families, the probes or the tables."""
    if what not in KINDS:
        raise MonadnockError(f"There is no list of {what!r}: {nearest(what, KINDS)}")
    for name, note in KINDS[what]():
        print(f"{name:16} {note}")
