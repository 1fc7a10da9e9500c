"""Every table that a run can hold, by name."""

from monadnock.errors import MonadnockError, nearest
from monadnock.findings.columns import Table
from monadnock.findings.tables_attack import ATTACKS
from monadnock.findings.tables_compress import COMPRESSED
from monadnock.findings.tables_explain import CHAIN, EXPLAINED
from monadnock.findings.tables_pretrain import PRETRAINED
from monadnock.findings.tables_read import READ
from monadnock.findings.tables_scan import SCAN
from monadnock.findings.tables_study import STUDIES
from monadnock.findings.tables_train import TRAINED

_ALL = (*SCAN, *EXPLAINED, *ATTACKS, *CHAIN, *STUDIES, *READ, *COMPRESSED, *TRAINED, *PRETRAINED)
TABLES: dict[str, Table] = {table.name: table for table in _ALL}


def table(name: str) -> Table:
    """Return the schema of a table; an unknown name is a `MonadnockError` with the nearest known names."""
    if name not in TABLES:
        raise MonadnockError(f"There is no table {name!r}: {nearest(name, TABLES)}")
    return TABLES[name]
