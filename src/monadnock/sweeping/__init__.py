"""Sweeps: one verb over a grid of settings, as a recipe says it."""

from monadnock.sweeping.recipe import SweepRecipe as SweepRecipe
from monadnock.sweeping.recipe import read_recipe as read_recipe
from monadnock.sweeping.running import sweep as sweep

__all__ = ["SweepRecipe", "read_recipe", "sweep"]
