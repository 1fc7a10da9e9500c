"""Refuse a run of another model, or of one with the same name and other weights."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from monadnock.errors import MonadnockError
from monadnock.findings import Run
from monadnock.models import Adapter
from monadnock.models.components import parameters
from monadnock.models.start import start_states
from monadnock.preparing import model_facts

SAME = 0.02  # largest difference of the start token's states that another machine or library may make
ROUNDING = 1e-9  # the same of sums of weights
_SUMS = "weight_sums"  # in tensors/


def check_same(run: Run, adapter: Adapter, sums: list[float], layers: int | None = None) -> None:
    """Refuse a run of another model, revision or dtype, or of the same name with other weights, by their `weight_sums`.

    Args:
        run: what is added to.
        adapter: the model.
        sums: its `weight_sums`, or nothing where they are not to be compared.
        layers: of how many first layers the start token's states are compared; by default of all.

    Raises:
        MonadnockError: with what differs.
    """
    theirs, mine = run.manifest.model, model_facts(adapter)
    same_file = theirs.revision is not None and theirs.revision == mine.revision
    same_place = Path(theirs.id).resolve() == Path(mine.id).resolve() and theirs.revision == mine.revision
    for what, one, other in (
        ("", *((f"{m.id}" + (f" at {m.revision}" if m.revision else "")) for m in (theirs, mine))),
        ("dtype ", theirs.dtype, mine.dtype),
        ("parameters: ", theirs.num_parameters, mine.num_parameters),
    ):
        if (what == "" and not (same_file or same_place)) or (what and one != other):
            raise MonadnockError(
                f"{run.path} is a run of {what}{one}, the model is {what}{other}; give a run of this model, or a new "
                "folder."
            )
    _check_states(run, adapter, layers)
    noted = [attack.weight_sums for attack in run.manifest.attacks if attack.weight_sums]
    if noted and _differ(noted[0], sums, ROUNDING):
        raise MonadnockError(_told(run, adapter, "sums of its weights"))


def check_weights(run: Run, adapter: Adapter) -> None:
    """Refuse another model as `check_same` does, and note the sums of this one's weights, if nobody has yet.

    Raises:
        MonadnockError: with what differs.
    """
    sums = weight_sums(adapter)
    check_same(run, adapter, sums)
    if _SUMS not in run.tensor_names():
        run.add_tensors(_SUMS, {"sums": np.array(sums)}, {"about": "sum w and sum |w| of each layer and of the rest"})
    elif _differ(run.tensors(_SUMS)[0]["sums"].tolist(), sums, ROUNDING):
        raise MonadnockError(_told(run, adapter, "sums of its weights"))


def weight_sums(adapter: Adapter) -> list[float]:
    """Return sum w and sum |w| over each decoder layer and over the rest, by which weights are known again."""
    sums = torch.zeros(adapter.num_layers + 1, 2, dtype=torch.float64)
    for layer, _, values in parameters(adapter):
        place = adapter.num_layers if layer is None else layer
        sums[place] += torch.stack([part.sum(dtype=torch.float64).cpu() for part in (values, values.abs())])
    return sums.flatten().tolist()


def _check_states(run: Run, adapter: Adapter, layers: int | None) -> None:
    """Compare the start token's largest states with those that the run has."""
    if "start_states" not in run.heights():
        return
    enough = (lambda states: len(states.residual) >= layers) if layers is not None else None
    states = start_states(adapter, run.manifest.text.start_token_id, enough=enough)
    table = run.table("start_states").filter((pl.col("rank") == 1) & (pl.col("layer") < len(states.residual)))
    for stream, values in (("residual", states.residual), ("down_proj_input", states.inner)):
        rows = table.filter(pl.col("stream") == stream)
        found = values[rows["layer"].to_list(), rows["feature"].to_list()].tolist()
        if _differ(rows["value"].to_list(), found, SAME):
            raise MonadnockError(_told(run, adapter, f"{stream} states of its start token"))


def _differ(one: list[float], other: list[float], tolerance: float) -> bool:
    a, b = torch.tensor(one, dtype=torch.float64).nan_to_num(), torch.tensor(other, dtype=torch.float64).nan_to_num()
    return len(a) != len(b) or bool(((a - b).abs() > tolerance * (a.abs() + a.abs().median())).any())


def _told(run: Run, adapter: Adapter, what: str) -> str:
    return f"{run.path} is a run of {adapter.source.id} with other weights: the {what} differ; give a new folder."
