"""Measure what rounding each weight costs, matrix by matrix, and write each into a run as soon as it is known."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from monadnock.calibrating import walk
from monadnock.data.text import check_text
from monadnock.findings import Run
from monadnock.models.matrices import Matrix, find_matrices
from monadnock.preparing import bar, evaluating, known_run, open_model, text_windows
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan
from monadnock.sensitivity.loss import KINDS, check_setting, factors, sensitivity_of, squared_errors
from monadnock.sensitivity.mapping import map_facts, map_name, map_tensors
from monadnock.sensitivity.patterns import find_patterns
from monadnock.sensitivity.shape import Shapes
from monadnock.sensitivity.shares import line_rows, share_row

DEFAULT_TOKENS = 8192
DAMPING = 0.01


def measure(
    model: Any,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    layers: Sequence[int] | None = None,
    modules: Sequence[str] = ("all",),
    kinds: Sequence[str] = KINDS,
    bits: int = 3,
    group: int | None = None,
    damping: float = DAMPING,
    patterns: bool = True,
    maps: bool = False,
    text: str | Path | None = None,
    dataset: str | None = None,
    tokens: int | None = None,
    length: int | None = None,
    bos: bool | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Measure the sensitivity of weight matrices to rounding, and what patterns it makes (spqr).

    The text goes through the model layer by layer, so that one layer's Hessians are in memory at a time. Each matrix is
    on disk as soon as it is measured: the same call goes on where another one stopped, and adds matrices.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model to add to, or a new folder. By default a new one under `monadnock-runs/`.
        layers: 0-based decoder layers; by default all.
        modules: roles or the family's names, see `monadnock.models.matrices.find_matrices`.
        kinds: compensated, plain, sequential, see `monadnock.sensitivity.loss.sensitivity_of`.
        bits: of a rounded weight, 1 to 8.
        group: columns of a row that share a grid; by default the whole row.
        damping: added to the Hessian's diagonal, in parts of its mean.
        patterns: look for patterns in the compensated kind, or in the first that is asked for.
        maps: keep each matrix's map in the run, for `monadnock map`.
        text, dataset, tokens, length, bos, seed: the calibration text, see `scan`; 8,192 tokens by default.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with the tables `sensitivity`, `sensitivity_lines` and `patterns`.

    Raises:
        MonadnockError: on bad input, a run of another model, or a singular Hessian.

    Example:
        >>> run = measure("smollm2", layers=[11], modules=["self_attn.o_proj"])  # doctest: +SKIP
        >>> run.table("sensitivity")["top_1e3"].to_list()  # doctest: +SKIP
    """
    check_setting(kinds, bits, group, damping)
    check_text(text, dataset)
    path, known = known_run(model, out)
    adapter = open_model(model, tokenizer, progress=progress, **options)
    wanted = find_matrices(adapter, layers, modules)
    tokens = max(DEFAULT_TOKENS, length or 0) if tokens is None else tokens
    source: dict[str, Any] = {"text": text, "dataset": dataset, "tokens": tokens, "length": length, "bos": bos}
    windows = text_windows(adapter, seed=seed, **source)
    run = known or scan(adapter, out=path, probes=["start_token"], seed=seed, progress=progress, **source)
    with evaluating(adapter.model):
        if known is not None:
            upto = 1 + max(matrix.layer for matrix in wanted)  # layers behind are not measured, nor read from a disk
            check_same(run, adapter, weight_sums(adapter) if run.manifest.attacks else [], upto)
        asked = Asked(tuple(kinds), bits, group, damping, patterns, windows.label)
        todo = [matrix for matrix in wanted if not asked.done(run, matrix, maps=maps)]
        if not todo:
            return run
        shapes = Shapes(adapter)
        with bar("matrices", len(todo), progress) as step, shapes.watch(todo):
            for inputs in walk(adapter, windows, todo):
                for matrix in inputs.matrices:
                    moment = inputs.moment(matrix)
                    hessian = None if moment is None else moment.hessian
                    count = 0 if moment is None else int(moment.tokens)
                    _measure(run, shapes, matrix, asked, hessian, count, maps=maps)
                    step()
    return run


class Asked:
    """What is measured of every matrix, and under which names that is found in the run."""

    def __init__(self, kinds: tuple[str, ...], bits: int, group: int | None, damping: float, patterns: bool, data: str):
        self.kinds, self.bits, self.group, self.damping, self.data = kinds, bits, group, damping, data
        self.patterned = ("compensated" if "compensated" in kinds else kinds[0]) if patterns else None

    @property
    def setting(self) -> dict[str, Any]:
        """The columns of a table that say how it was measured."""
        return {"bits": self.bits, "group": self.group, "damping": self.damping, "data": self.data}

    def part(self, matrix: Matrix, kind: str) -> str:
        """Return the name of a matrix's part of a growing table."""
        told = repr((self.bits, self.group, self.damping, self.data))
        return f"{matrix.part}-{kind}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def done(self, run: Run, matrix: Matrix, *, maps: bool) -> bool:
        """Say whether the run has all of a matrix."""
        if any(not run.has("sensitivity", self.part(matrix, kind)) for kind in self.kinds):
            return False
        if self.patterned and not run.has("patterns", self.part(matrix, self.patterned)):
            return False
        return not maps or self.drawn(run, matrix)

    def drawn(self, run: Run, matrix: Matrix) -> bool:
        """Say whether the run keeps a matrix's map as it is asked for."""
        facts = run.tensor_facts(map_name(matrix)) if map_name(matrix) in run.tensor_names() else {}
        return all(facts.get(key) == ("" if value is None else str(value)) for key, value in self.setting.items())


def _measure(
    run: Run, shapes: Shapes, matrix: Matrix, asked: Asked, hessian: Tensor | None, count: int, *, maps: bool
) -> None:
    """Measure one matrix in all kinds and write it; an expert that got no token has rows without numbers."""
    adapter = shapes.adapter
    weight = matrix.weight(adapter).read().detach().float()
    name = matrix.name(adapter)
    for kind in asked.kinds:
        part, about = asked.part(matrix, kind), matrix.columns | {"kind": kind} | asked.setting
        row = about | {"name": name, "num_tokens": count, "num_inputs": weight.shape[1]}
        if hessian is None:
            run.add("patterns", part, [])
            run.add("sensitivity_lines", part, [])
            run.add("sensitivity", part, [row])
            continue
        how: dict[str, Any] = {"bits": asked.bits, "group": asked.group, "damping": asked.damping}
        values = sensitivity_of(weight, hessian, kind, **how)
        if kind == asked.patterned:
            heads = shapes.heads(matrix)
            again = None if kind == "sequential" else _redraw(hessian, kind, asked)
            control = None if heads else adapter.d_head
            found = find_patterns(weight, values, heads, again, control_width=control)
            run.add("patterns", part, [about | each for each in found])
        run.add("sensitivity_lines", part, [about | each for each in line_rows(values)])
        run.add("sensitivity", part, [row | share_row(weight, values, hessian)])
    if maps and hessian is not None:
        facts = map_facts(matrix, shapes.heads(matrix), name, **asked.setting, tokens=count)
        tensors = map_tensors(weight, factors(hessian, asked.damping), asked.bits, asked.group)
        run.add_tensors(map_name(matrix), tensors, facts)


def _redraw(hessian: Tensor, kind: str, asked: Asked) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what gives the sensitivities of other weights in some columns with the same inputs, for permutations."""
    factor = factors(hessian, asked.damping).of(kind)

    def again(weight: Tensor, columns: Tensor) -> Tensor:
        return squared_errors(weight, asked.bits, asked.group) * factor[columns].to(weight)

    return again
