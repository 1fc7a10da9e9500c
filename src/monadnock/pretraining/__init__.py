"""Pretraining: small models with attention variants, trained by a recipe, watched for outliers while they learn."""

from monadnock.pretraining.monitor import OutlierMonitor as OutlierMonitor
from monadnock.pretraining.recipe import Recipe as Recipe
from monadnock.pretraining.recipe import read_recipe as read_recipe
from monadnock.pretraining.running import pretrain as pretrain
from monadnock.pretraining.watching import watch as watch

__all__ = ["OutlierMonitor", "Recipe", "pretrain", "read_recipe", "watch"]
