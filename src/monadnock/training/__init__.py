"""Training: fine-tuning with curriculum dropout on massive weights (MacDrop)."""

from monadnock.training.macdrop import MacDropCallback
from monadnock.training.schedule import SCHEDULES, Schedule

__all__ = ["SCHEDULES", "MacDropCallback", "Schedule"]
