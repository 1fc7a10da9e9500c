"""Probes: each asks for statistics at some sites and turns them into tables; none knows another."""

from monadnock.probes.base import Ask, Evidence, Probe, ReadsWeights, probe_names, resolve_probes

__all__ = ["Ask", "Evidence", "Probe", "ReadsWeights", "probe_names", "resolve_probes"]
