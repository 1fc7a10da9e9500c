"""Training: fine-tuning with curriculum dropout on massive weights (MacDrop), and what a judge says of the answers."""

from monadnock.training.examples import Examples, read_examples
from monadnock.training.finetuning import finetune
from monadnock.training.judging import judge
from monadnock.training.macdrop import MacDropCallback
from monadnock.training.schedule import SCHEDULES, Schedule

__all__ = ["SCHEDULES", "Examples", "MacDropCallback", "Schedule", "finetune", "judge", "read_examples"]
