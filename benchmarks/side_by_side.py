"""Ways of doing the same, measured side by side: times in turn in one process, peak memory in a process for each."""

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def times(
    ways: Mapping[str, Callable[[], Any]], rounds: int, check: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, list[float]]:
    """Return the seconds of every way in every round; one round before them does not count.

    Args:
        ways: what is timed, by name; one after another in each round, so that ratios hold when the machine drifts.
        rounds: how many rounds.
        check: gets what the ways returned, each round.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        results = {}
        for name, way in ways.items():
            began = time.perf_counter()
            results[name] = way()
            if turn:
                taken[name].append(time.perf_counter() - began)
        check(results)
    return taken


def ratio(mine: Sequence[float], base: Sequence[float]) -> str:
    """Return the median, smallest and largest ratio of the rounds."""
    ratios = [one / other for one, other in zip(mine, base, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def peak(file: str, *arguments: str) -> float:
    """Run a benchmark file in a process of its own and return the peak memory in GB that it prints."""
    command = [sys.executable, file, *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_of(way: Callable[[], Any]) -> float:
    """Run something and return the peak memory of this process in GB meanwhile (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that loading reached
    way()
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 2**20
