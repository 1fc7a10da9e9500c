"""The explorer: one page for a weight matrix, to walk through its sensitivities down to single weights."""

from monadnock.explorer.page import write_map

__all__ = ["write_map"]
