"""One HTML page from a run folder: charts and tables that open from disk, offline; no torch."""

from monadnock.report.page import write_report

__all__ = ["write_report"]
