"""What is attacked: massive rows, super weights and massive features, from a run or named by hand."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from monadnock.errors import MonadnockError
from monadnock.findings import Run
from monadnock.interventions.changed import check_expert, check_features, check_layer
from monadnock.models import Adapter
from monadnock.models.start import start_states


@dataclass(frozen=True)
class Aim:
    """Rows of W_up and W_gate in one layer, the most massive first.

    Attributes:
        layer: 0-based decoder layer.
        expert: 0-based expert; None in dense layers.
        rows: features of x_down; all of them, or those that a run lists or a user named.
    """

    layer: int
    expert: int | None
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Targets:
    """All that an attack may aim at.

    Attributes:
        aims: the layers that are attacked together.
        entries: super weights (row, column) of W_down in the first of these layers, the strongest first.
        features: features of h that are largest for the start token, the largest first.
        start_token: the token that is fed alone, and put in front by the mode `prefix`.
    """

    aims: tuple[Aim, ...]
    entries: tuple[tuple[int, int], ...]
    features: tuple[int, ...]
    start_token: int

    @property
    def layers(self) -> tuple[int, ...]:
        """The attacked layers."""
        return tuple(aim.layer for aim in self.aims)


def check_tables(run: Run) -> None:
    """Raise a `MonadnockError` unless a run has the tables from which targets are read."""
    missing = [name for name in ("massive_weights", "super_weights", "start_states") if name not in run.heights()]
    if missing:
        raise MonadnockError(
            f"{run.path} has no table {missing[0]}, from which targets are read; scan with the probe start_token."
        )


def find_targets(
    adapter: Adapter,
    run: Run,
    *,
    layers: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    expert: int | None = None,
) -> Targets:
    """Read the targets from a run, or rank them by hand where a layer or rows are named.

    Args:
        adapter: the model that the run was made of.
        run: a run with the tables of the probe `start_token`.
        layers: layers to attack together; by default the run's massive layer. Their rows are ranked by |x_down| of the
            start token fed alone.
        rows: rows to attack in place of the ranked ones, in this order.
        expert: which expert of a mixture; by default the one that the router prefers for the start token.

    Raises:
        MonadnockError: if the run has no such tables, or a layer, row or expert does not exist.
    """
    check_tables(run)
    listed = run.table("massive_weights").sort("rank")
    start = run.manifest.text.start_token_id
    if layers is None and expert is None:
        aims = [Aim(listed["layer"][0], listed["expert"][0], tuple(listed["feature"].to_list()))]
    else:
        aims = _ranked(adapter, start, [listed["layer"][0]] if layers is None else layers, expert, rows is None)
    if rows is not None:
        aims = [Aim(aim.layer, aim.expert, tuple(rows)) for aim in aims]
    here = (pl.col("layer") == aims[0].layer) & pl.col("expert").eq_missing(aims[0].expert)
    found = run.table("super_weights").filter(here).sort("rank")
    entries = tuple(zip(found["row"].to_list(), found["column"].to_list(), strict=True))
    return Targets(tuple(aims), entries, _features(run), start)


def check_aim(adapter: Adapter, layers: Sequence[int] | None, rows: Sequence[int] | None, expert: int | None) -> None:
    """Refuse layers, rows and an expert that do not exist, before anything slow.

    Raises:
        MonadnockError: with what there is.
    """
    for layer in layers or []:
        check_layer(adapter, layer)
    if doubled := [layer for layer in layers or [] if list(layers or []).count(layer) > 1]:
        raise MonadnockError(f"Layer {doubled[0]} was asked twice.")
    if layers is not None and not layers:
        raise MonadnockError("No layer was named; leave the layers out for the massive layer.")
    if expert is not None:
        check_expert(adapter, expert)
    check_features(adapter, list(rows or []), adapter.intermediate_size, "Row")


def _ranked(adapter: Adapter, token: int, layers: Sequence[int], expert: int | None, needed: bool) -> list[Aim]:
    """Rank the rows of layers by |x_down| of a token; `needed` is off where rows are named by hand."""
    states = start_states(adapter, token)
    experts = [states.experts[layer] if expert is None else expert for layer in layers]
    if needed and any(states.experts[layer] != one for layer, one in zip(layers, experts, strict=True)):
        raise MonadnockError(
            f"Expert {expert} does not get the start token in layer {layers[0]}, so that its rows cannot be ranked; "
            "name them (--rows)."
        )
    return [
        Aim(layer, one, tuple(states.inner[layer].abs().argsort(descending=True).tolist()))
        for layer, one in zip(layers, experts, strict=True)
    ]


def _features(run: Run) -> tuple[int, ...]:
    """Return the features of h that are largest for the start token in the layer where |h| peaks."""
    states = run.table("start_states").filter(pl.col("stream") == "residual")
    peak = states.sort(pl.col("value").abs(), descending=True)["layer"][0]
    return tuple(states.filter(pl.col("layer") == peak).sort("rank")["feature"].to_list())
