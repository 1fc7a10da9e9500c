"""`monadnock ls`: what there is to name: models, families, probes, variants, tables, modes of attack, the catalogue."""

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


def _variants() -> list[tuple[str, str]]:
    from monadnock.models.variants import VARIANTS

    return list(VARIANTS.items())


def _tables() -> list[tuple[str, str]]:
    from monadnock.findings import TABLES

    return [(name, table.doc) for name, table in TABLES.items()]


def _modes() -> list[tuple[str, str]]:
    from monadnock.attacking import MODES

    return [(name, mode.doc) for name, mode in MODES.items()]


def _catalogue() -> list[tuple[str, str]]:
    from monadnock.catalogue import entries

    lines = []
    for name, entry in entries().items():
        place = f"layer {entry.layer}" if entry.expert is None else f"layer {entry.layer}, expert {entry.expert}"
        lines.append((name, f"{place}, indices {' '.join(map(str, entry.features))}; {entry.source}"))
    return lines


KINDS = {
    "models": _models,
    "families": _families,
    "probes": _probes,
    "variants": _variants,
    "tables": _tables,
    "modes": _modes,
    "catalogue": _catalogue,
}


def command(
    what: Annotated[str, typer.Argument(help="models, families, probes, variants, tables, modes or catalogue")],
) -> None:
    """List what there is to name: models, families, probes, attention variants, tables, modes of attack, catalogue."""
    if what not in KINDS:
        raise MonadnockError(f"There is no list of {what!r}: {nearest(what, KINDS)}")
    lines = KINDS[what]()
    width = max([16, *(len(name) for name, _ in lines)])
    for name, note in lines:
        print(f"{name:{width}} {note}")
