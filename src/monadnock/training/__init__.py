"""Training: fine-tuning with curriculum dropout on massive weights (MacDrop)."""

from monadnock.training.examples import Examples, read_examples
from monadnock.training.finetuning import finetune
from monadnock.training.macdrop import MacDropCallback
from monadnock.training.schedule import SCHEDULES, Schedule

__all__ = ["SCHEDULES", "Examples", "MacDropCallback", "Schedule", "finetune", "read_examples"]
