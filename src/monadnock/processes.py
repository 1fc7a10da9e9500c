"""The processes that torchrun started: which one this is, what its share is, and how they wait for each other."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed

from monadnock.errors import MonadnockError
from monadnock.stats import Statistic

WAIT = timedelta(hours=12)  # for the first process: to tokenise a large text takes hours


def count() -> int:
    """Return how many processes there are; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Return which one this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Say whether this is the one that writes and speaks; the only one always is."""
    return number() == 0


def own_device() -> str | None:
    """Return this process's GPU where there are several processes and a GPU for each on this machine, else None."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return f"cuda:{local}" if count() > 1 and torch.cuda.device_count() > local else None


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process go through a block before the others, which do not enter it where the first one failed.

    Raises:
        MonadnockError: in the others, if the first one failed; what there was before is not taken for what it made.
    """
    if count() == 1:
        yield
    elif is_first():
        came_through = False
        try:
            yield
            came_through = True
        finally:
            from_first(came_through)
    else:
        if not from_first(False):
            raise MonadnockError(
                f"Process {number()} ends, as the first one failed in what the others wait for; see what that one says."
            )
        yield


def from_first(value: Any) -> Any:
    """Return what the first process gave, in all of them."""
    if count() == 1:
        return value
    _begin()
    held = [value]
    distributed.broadcast_object_list(held, src=0)
    return held[0]


def merge_in_first(statistics: Mapping[Any, Statistic]) -> None:
    """Merge the statistics of all processes into those of the first, one after another.

    Args:
        statistics: the same keys in every process, each having seen other windows.
    """
    if count() == 1:
        return
    _begin()
    for statistic in statistics.values():  # one at a time: the others' are in memory only so long
        own = {name: tensor.cpu() for name, tensor in statistic.state_dict().items()}
        states: list[Any] | None = [None] * count() if is_first() else None
        distributed.gather_object(own, states, dst=0)
        for state in (states or [])[1:]:
            other = type(statistic)(len(statistic.seen))
            other.load_state_dict({name: tensor.to(_device(statistic, name, tensor)) for name, tensor in state.items()})
            statistic.merge(other)


def _device(statistic: Statistic, name: str, tensor: torch.Tensor) -> torch.device:
    own = getattr(statistic, name, None)
    return tensor.device if own is None else own.device


def _begin() -> None:
    """Make the group of processes; what is passed here goes over the CPU, gradients of a training over the GPUs."""
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=WAIT)
