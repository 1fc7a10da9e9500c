"""Walk a text through the layers, one after the other, and gather what the linear layers of each are given."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from monadnock.data import Windows
from monadnock.errors import MonadnockError
from monadnock.models import Adapter, States
from monadnock.models.layerwise import embed, holding, run_layer, walking
from monadnock.models.matrices import Matrix
from monadnock.models.start import Enough
from monadnock.sites import Site, Stream
from monadnock.stats import SecondMoment

_SEES = {
    "q": Stream.ATTN_INPUT,
    "k": Stream.ATTN_INPUT,
    "v": Stream.ATTN_INPUT,
    "o": Stream.O_PROJ_INPUT,
    "gate": Stream.MLP_INPUT,
    "up": Stream.MLP_INPUT,
    "down": Stream.DOWN_PROJ_INPUT,
}


@dataclass
class LayerInputs:
    """What the chosen matrices of one layer were given over the text.

    Attributes:
        layer: 0-based decoder layer.
        matrices: those that were asked for.
        moments: second moment of the inputs, by stream and expert; matrices with the same inputs share one.
    """

    layer: int
    matrices: list[Matrix]
    moments: dict[tuple[Stream, int | None], SecondMoment] = field(default_factory=dict)

    def moment(self, matrix: Matrix) -> SecondMoment | None:
        """Return the second moment of a matrix's inputs; None for an expert that got no token."""
        return self.moments.get((_SEES[matrix.module], matrix.expert))


def walk(
    adapter: Adapter,
    windows: Windows,
    matrices: Collection[Matrix],
    *,
    again: bool = False,
    step: Callable[[], None] = lambda: None,
) -> Iterator[LayerInputs]:
    """Yield the inputs of each layer's matrices; each layer runs on what the one before gave.

    Only one layer's second moments are in memory, beside the states of all windows behind one layer; of a model that is
    kept on disk also only one layer's weights. Layers after the last one that is asked for never run.

    Args:
        adapter: the model.
        windows: the calibration text.
        matrices: whose inputs are gathered.
        again: the caller changes weights meanwhile: yield the matrices of a layer that read the same stream together,
            in the order in which they run, each on inputs that the changed ones before give, and run the layer once
            more before the walk goes on.
        step: called after each layer.

    Raises:
        MonadnockError: if inputs are not finite.

    Example:
        >>> for inputs in walk(adapter, windows, [Matrix(11, "down")]):  # doctest: +SKIP
        ...     hessian = inputs.moment(inputs.matrices[0]).hessian
    """
    with walking(adapter):
        with holding(adapter, -1):
            states: list[Any] = [embed(adapter, ids) for ids in windows.ids]
        for layer in range(max(matrix.layer for matrix in matrices) + 1):
            chosen = [matrix for matrix in matrices if matrix.layer == layer]
            outputs: list[Any] = []
            with holding(adapter, layer):
                for stage in _stages(chosen) if again else [chosen] * bool(chosen):
                    inputs = LayerInputs(layer, stage)
                    outputs = [
                        run_layer(adapter, ids, layer, state, _watchers(inputs, window, len(states), part=again))
                        for window, (ids, state) in enumerate(zip(windows.ids, states, strict=True))
                    ]
                    _check_finite(adapter, inputs)
                    yield inputs
                if again or not chosen:
                    pairs = zip(windows.ids, states, strict=True)
                    outputs = [run_layer(adapter, ids, layer, state, {}) for ids, state in pairs]
            states = outputs
            step()


def _stages(matrices: list[Matrix]) -> list[list[Matrix]]:
    """Group the matrices of a layer by the stream that they read, in the order in which they run."""
    streams = dict.fromkeys(_SEES.values())
    stages = [[matrix for matrix in matrices if _SEES[matrix.module] is stream] for stream in streams]
    return [stage for stage in stages if stage]


def _watchers(inputs: LayerInputs, window: int, count: int, *, part: bool) -> dict[Site, Any]:
    """Return what takes in the states of one window at each stream that a matrix of this layer reads.

    With `part` the pass ends where the one stream that is read has been seen.
    """
    wanted = {(_SEES[matrix.module], matrix.expert) for matrix in inputs.matrices}
    streams = {stream for stream, _ in wanted}
    mixed = any(expert is not None for _, expert in wanted)

    def take(stream: Stream, expert: int | None, values: Tensor) -> None:
        if (stream, expert) in wanted and len(values):
            inputs.moments.setdefault((stream, expert), SecondMoment(count)).update(States(values), window)

    def plain(stream: Stream) -> Callable[[States], None]:
        def taking(batch: States) -> None:
            take(stream, None, batch.values)
            if part and not mixed:
                raise Enough

        return taking

    found: dict[Site, Any] = {
        Site(stream, inputs.layer): plain(stream) for stream in streams if (stream, None) in wanted
    }
    if mixed:
        hidden: list[Tensor] = []

        def routed(batch: States) -> None:
            assert batch.expert is not None and batch.position is not None
            for expert in batch.expert.unique().tolist():
                rows = batch.expert == expert
                take(Stream.DOWN_PROJ_INPUT, expert, batch.values[rows])
                take(Stream.MLP_INPUT, expert, hidden[0][batch.position[rows]])

        found[Site(Stream.MLP_INPUT, inputs.layer)] = lambda batch: hidden.append(batch.values)
        found[Site(Stream.DOWN_PROJ_INPUT, inputs.layer)] = routed
    return found


def _check_finite(adapter: Adapter, inputs: LayerInputs) -> None:
    for (stream, _), moment in inputs.moments.items():
        if not bool(moment.products.isfinite().all()):
            raise MonadnockError(
                f"Inputs at {Site(stream, inputs.layer)} of {adapter.source.id} are not all finite; scan the model to "
                "see where NaN or infinity begins."
            )
