"""Sweeps: one verb over a grid of settings, as a recipe says it."""

from monadnock.sweeping.recipe import SweepRecipe as SweepRecipe
from monadnock.sweeping.recipe import read_recipe as read_recipe
from monadnock.sweeping.running import SweepError as SweepError
from monadnock.sweeping.running import folders as folders
from monadnock.sweeping.running import sweep as sweep

__all__ = ["SweepError", "SweepRecipe", "folders", "read_recipe", "sweep"]
