"""Models: loading them, where their parts are in each family, and watching them run."""

from monadnock.models.adapter import Adapter, Source
from monadnock.models.loading import load
from monadnock.models.observe import AttentionBlock, States, observe

__all__ = ["Adapter", "AttentionBlock", "Source", "States", "load", "observe"]
