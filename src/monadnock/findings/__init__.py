"""What a scan found: table schemas, the run folder, its manifest and its summary; no torch."""

from monadnock.findings.columns import Table
from monadnock.findings.manifest import Manifest
from monadnock.findings.run import Run
from monadnock.findings.schema import TABLES, table

__all__ = ["TABLES", "Manifest", "Run", "Table", "table"]
