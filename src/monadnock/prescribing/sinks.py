"""How many of the first tokens keep their keys and values in 16 bits."""

import polars as pl

from monadnock.prescribing.bounds import SINK_PREFIX
from monadnock.prescribing.prescription import Findings, Prescription
from monadnock.thresholds import GU2025_SINK_MASS


def sinks(found: Findings) -> list[Prescription]:
    """Say how many first tokens stay in 16 bits in the KV cache.

    A sink gets a large part of the attention, so that an error in its key or value reaches most queries. A fixed prefix
    holds sinks that are on the same early position in most windows; one more token costs next to nothing, so that
    positions with massive activations in most windows count too.

    Source: xiao2024 (StreamingLLM), hooper2024 (KVQuant) keep first tokens; the rule is ours.
    """
    heads = found.get("heads")
    if heads is None:
        told = f"No heads were looked at; {found.command('scan')} says where the sinks are."
        return [Prescription("not_judged", told)]
    sinking = heads.filter(pl.col("sink").fill_null(False))
    if not sinking.height:
        told = "No head has a sink: no key gets over 30 % of the attention, so that the first tokens need no care."
        mass = heads["sink_mass"].max()
        largest = float(mass) if isinstance(mass, float) else None
        return [Prescription("no_sinks", told, "heads.sink_mass", largest, GU2025_SINK_MASS)]
    early = sinking.filter(pl.col("sink_position") < SINK_PREFIX)
    massive = massive_positions(found)
    places = sorted({int(each) for each in early["sink_position"]} | set(massive))
    told = f"{early.height} of {sinking.height} heads with a sink have it on {_listed(early['sink_position'])}"
    told += _others(sinking, early) + _about(found, massive)
    counted = {"evidence": "heads.sink_position", "value": float(early.height), "bound": float(sinking.height)}
    if not places:
        return [Prescription("no_sinks", told + " No fixed prefix would hold a sink.", **counted)]
    count = places[-1] + 1
    first = "the first token" if count == 1 else f"the first {count} tokens"
    return [Prescription("keep_sinks", f"Keep keys and values of {first}: {told}", amount=float(count), **counted)]


def massive_positions(found: Findings) -> list[int]:
    """Return early positions at which the residual is massive in more than half of the windows."""
    entries = found.get("activations")
    if entries is None:
        return []
    massive = entries.filter(
        pl.col("stream") == "residual", pl.col("criterion").is_not_null(), pl.col("position") < SINK_PREFIX
    )
    windows = massive.group_by("position").agg(pl.col("sequence").n_unique())
    most = windows.filter(2 * pl.col("sequence") > found.manifest.text.num_windows)
    return sorted(int(each) for each in most["position"])


def _listed(positions: pl.Series) -> str:
    found = sorted(int(each) for each in positions.unique())
    if not found:
        return "an early position that most windows share"
    return f"position{'s' if len(found) > 1 else ''} {', '.join(str(each) for each in found)}"


def _others(sinking: pl.DataFrame, early: pl.DataFrame) -> str:
    """Say what a fixed prefix cannot hold."""
    moving = sinking["sink_position"].null_count()
    later = sinking.height - early.height - moving
    parts = [f"{moving} on positions that change from window to window"] if moving else []
    parts += [f"{later} on later positions"] if later else []
    return f"; {' and '.join(parts)}: no fixed prefix holds these." if parts else "."


def _about(found: Findings, massive: list[int]) -> str:
    """Say what the counting depends on."""
    text = found.manifest.text
    told = ""
    if massive:
        where = ", ".join(str(each) for each in massive)
        told += f" Massive activations are on position{'s' if len(massive) > 1 else ''} {where} in most windows."
    if text.num_windows == 1:
        told += " Only one window was scanned: whether a position is fixed cannot be told from it."
    return told + f" The text had {'a' if text.bos else 'no'} BOS in front; another start moves the sinks."
