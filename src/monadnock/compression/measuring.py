"""Compress a model, measure what it loses, and write that into a run; and save it, if that is asked."""

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from monadnock.compression.applying import Compressed, Rows, compressed
from monadnock.compression.checkpoint import save_checkpoint, save_packed
from monadnock.compression.method import Method
from monadnock.compression.packing import Arrays, pack_matrix
from monadnock.data import Windows
from monadnock.data.text import check_text
from monadnock.errors import MonadnockError
from monadnock.evaluation.likelihood import Likelihood, last_output, score
from monadnock.findings import Run
from monadnock.findings.words import listed
from monadnock.interventions.changed import check_changeable
from monadnock.models import Adapter
from monadnock.models.matrices import Matrix, find_matrices
from monadnock.preparing import bar, evaluating, known_run, open_model, text_windows
from monadnock.prescribing.recipe import Recipe
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan

WINDOWS = 8  # of the text's beginning, on which perplexity is measured
LEFT = 16.0  # bits of a weight that is left as it is
CALIBRATION = 32  # of its end, from which gptq and spqr take inputs
NAMED = 4  # modules that are left out which a label names; it counts the others
ALL = 10**9  # tokens: more than any text file has


def compress(
    model: Any,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    method: str | Method = "absmax",
    granularity: str | None = None,
    bits: int | None = None,
    group: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    keep_massive: bool = False,
    skip: Sequence[str] | Recipe = (),
    save: bool = False,
    text: str | Path | None = None,
    dataset: str | None = None,
    windows: int | None = None,
    calibration: int | None = None,
    length: int | None = None,
    bos: bool | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Compress the linear layers of a model's blocks, and write into a run what the model loses.

    Perplexity is measured on the first windows of the text; gptq and spqr are calibrated on the last ones, block after
    block, with the inputs that the blocks compressed so far give. The model is given back as it was.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model to add to, or a new folder. By default a new one under `monadnock-runs/`.
        method: absmax, magnitude, rtn, gptq, spqr, or a `Method` with all its settings.
        granularity: tensor, row or group; by default tensor (absmax, magnitude), row (rtn) or group (gptq, spqr).
        bits: of a weight; by default 8 (absmax), 4 (rtn, gptq) or 3 (spqr).
        group: columns that share a scale, 16 by default where there are groups.
        share: of the weights that magnitude pruning sets to 0, 0.5 by default.
        threshold: of spqr, 0.2 by default; lower means more outliers.
        keep_massive: keep the massive rows of W_up and W_gate, which the run names, in 16 bits.
        skip: modules that are left as they are, by their names in the checkpoint: whole, or `re:` and a pattern; or a
            recipe, whose targets and ignore list say it.
        save: write the model as a checkpoint, for spqr packed too, into the run's folder.
        text, dataset: see `scan`.
        windows: how many first windows are for measuring, by default 8, or all of a shorter text.
        calibration: how many last windows are for calibration, by default 32, or what is left.
        length: tokens of a window, by default 1024.
        bos: put BOS in front of each window; by default if the tokenizer has one.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with rows in the tables `effects` (mode is compress) and `compressions`.

    Raises:
        MonadnockError: on bad input, a run of another model, or a text too short for both purposes.

    Example:
        >>> run = compress("smollm2", method="absmax", granularity="row")  # doctest: +SKIP
        >>> run.table("effects").select("method", "metric", "value", "baseline")  # doctest: +SKIP
    """
    if not isinstance(method, Method):
        how: dict[str, Any] = {"granularity": granularity, "bits": bits, "group": group}
        method = Method.of(method, share=share, threshold=threshold, **how)
    for what, count in (("measuring", windows), ("calibration", calibration)):
        if count is not None and count < 1:
            raise MonadnockError(f"{count} windows for {what} were asked; give at least 1.")
    check_text(text, dataset)
    path, known = known_run(model, out)
    adapter = open_model(model, tokenizer, progress=progress, **options)
    check_changeable(adapter)
    matrices = _matrices(adapter, skip)
    source: dict[str, Any] = {"text": text, "dataset": dataset, "length": length, "bos": bos}
    measured, calibrating = _ends(adapter, source, windows, calibration, method.needs_inputs)
    run = known or scan(adapter, out=path, probes=["start_token"], progress=progress, tokens=length or 1024, **source)
    with evaluating(adapter.model):
        check_same(run, adapter, weight_sums(adapter) if run.manifest.attacks else [])
        keep = _massive_rows(run, matrices) if keep_massive else {}
        job = Job(adapter, method, tuple(matrices), measured, calibrating, keep)
        if save or not run.has("effects", job.part):
            with bar(job.label, len(matrices) + 2 * len(measured.ids), progress) as step:
                job.measure(run, step, save=save)
    return run


@dataclass(frozen=True)
class Job:
    """One compressor on one model: what is compressed, on which text it is measured and calibrated, what is kept."""

    adapter: Adapter
    method: Method
    matrices: tuple[Matrix, ...]
    measured: Windows
    calibrating: Windows | None
    keep: Rows

    @property
    def label(self) -> str:
        """The method in words, with what is spared."""
        left = [str(matrix) for matrix in sorted(set(find_matrices(self.adapter)) - set(self.matrices))]
        told = str(self.method)
        if self.calibrating is not None and len(self.calibrating.ids) != CALIBRATION:
            told += f" calibration {len(self.calibrating.ids)}"
        if self.keep:
            told += ", massive rows kept"
        if left:
            told += f", without {listed(left, NAMED)}"
        return told if len(left) <= NAMED else f"{told} ({_digits(left, 4)})"

    @property
    def part(self) -> str:
        """Name of its part of the tables."""
        kept = sorted((str(matrix), rows) for matrix, rows in self.keep.items())
        texts = self.measured.label, self.calibrating and self.calibrating.label
        told = (texts, self.method, [str(matrix) for matrix in self.matrices], kept)
        return f"{_slug(self.label)[:80]}-{_digits(told, 12)}"

    def measure(self, run: Run, step: Callable[[], None], *, save: bool) -> None:
        """Measure the model as it is and compressed; write both tables, and the model if it is to be saved."""
        adapter, before, after = self.adapter, Likelihood(), Likelihood()
        clean = []
        for window, ids in enumerate(self.measured.ids):
            clean.append(last_output(adapter, ids))
            score(adapter, self.measured, window, before, clean[window])
            step()
        saving = Saving(self) if save else None
        take = saving.take if saving else lambda _: None
        how: dict[str, Any] = {"matrices": self.matrices, "keep": self.keep, "step": step, "take": take}
        with compressed(adapter, self.method, self.calibrating, **how) as rows:
            for window, ids in enumerate(self.measured.ids):
                score(adapter, self.measured, window, after, last_output(adapter, ids), clean[window])
                step()
            self._tell(run, before, after, rows, saving)
            if saving:
                saving.write(run.path, self.part)

    def _tell(
        self, run: Run, before: Likelihood, after: Likelihood, rows: list[dict[str, Any]], saving: "Saving | None"
    ) -> None:
        """Write both tables."""
        adapter = self.adapter
        sizes = {matrix: matrix.weight(adapter).read().numel() for matrix in find_matrices(adapter)}
        took = {matrix: row["average_bits"] for matrix, row in zip(self.matrices, rows, strict=True)}
        bits = sum(took.get(matrix, LEFT) * size for matrix, size in sizes.items()) / sum(sizes.values())
        stored = saving.bits(sizes) if saving else None
        found = [
            ("perplexity", after.perplexity, before.perplexity),
            ("kl", after.kl, 0.0),
            ("top1_agreement", after.top1_agreement, 1.0),
            ("average_bits", bits, 8.0 * adapter.dtype.itemsize),
            *([("stored_bits", stored, 8.0 * adapter.dtype.itemsize)] if stored else []),
        ]
        about = {"mode": "compress", "method": self.label, "targets": f"{len(self.matrices)} matrices"}
        about["data"] = self.measured.label
        run.add("compressions", self.part, [{"method": self.label} | row for row in rows])
        run.add("effects", self.part, [about | {"metric": m, "value": v, "baseline": b} for m, v, b in found])


class Saving:
    """Gathers what spqr made of each matrix, and writes the model as a checkpoint, for spqr packed too."""

    def __init__(self, job: Job):
        self.job = job
        self.packed: dict[Matrix, tuple[Arrays, dict[str, Any]]] = {}
        self.before = {each: each.weight(job.adapter).read().detach().clone() for each in job.keep}

    def take(self, found: Compressed) -> None:
        """Keep the packed form of a matrix."""
        if self.job.method.name == "spqr" and found.rounded is not None:
            rows = self.before[found.matrix][list(found.kept)] if found.kept else found.rounded.weight[:0]
            self.packed[found.matrix] = pack_matrix(found.rounded, self.job.method.setting, rows, found.kept)

    def bits(self, sizes: Mapping[Matrix, int]) -> float | None:
        """Return the stored bits of a weight, those of matrices that are not packed as if left; None if none is."""
        if not self.packed:
            return None
        packed = 8.0 * sum(each.nbytes for arrays, _ in self.packed.values() for each in arrays.values())
        left = sum(size for matrix, size in sizes.items() if matrix not in self.packed)
        return (packed + LEFT * left) / sum(sizes.values())

    def write(self, folder: Path, name: str) -> None:
        """Write the model into the folder of a run."""
        save_checkpoint(self.job.adapter, folder / "checkpoints" / name)
        if self.packed:
            save_packed(self.job.adapter, self.packed, folder / "packed" / name)


def _ends(
    adapter: Adapter, source: dict[str, Any], asked: int | None, asked_last: int | None, calibrates: bool
) -> tuple[Windows, Windows | None]:
    """Return the first windows of the text, and the last ones, which are others; None if none are needed."""
    windows, calibration = asked or WINDOWS, (asked_last or CALIBRATION) if calibrates else 0
    enough = ALL if source["dataset"] is None else (source["length"] or 1024) * (windows + calibration)
    whole = text_windows(adapter, tokens=enough, **source)
    count = min(windows, len(whole.ids))
    rest = min(calibration, len(whole.ids) - count)
    if (asked and count < asked) or (calibrates and asked_last and 0 < rest < asked_last):
        raise MonadnockError(
            f"{windows} windows for measuring and {calibration} for calibration were asked, and {whole.source} has "
            f"{len(whole.ids)} of {whole.ids.shape[1]} tokens; ask for fewer, or give a longer text."
        )
    if calibration and rest < 1:
        raise MonadnockError(
            f"{whole.source} has {len(whole.ids)} windows of {whole.ids.shape[1]} tokens, {windows} of them are for "
            "measuring and none is left for calibration; give a longer text, fewer --windows or a smaller --length."
        )
    calibrating = dataclasses.replace(whole, ids=whole.ids[len(whole.ids) - rest :]) if calibration else None
    return dataclasses.replace(whole, ids=whole.ids[:count]), calibrating


def _matrices(adapter: Adapter, skip: Sequence[str] | Recipe) -> list[Matrix]:
    """Return all matrices of the blocks but those that a name, a pattern or a recipe tells to leave."""
    names = {matrix: matrix.name(adapter) for matrix in find_matrices(adapter)}
    if isinstance(skip, Recipe):
        _skipper(
            adapter, [each for each in skip.ignore if not each.startswith("re:")], names
        )  # refuses what is not there
        skips = skip.keeps
    else:
        skips = _skipper(adapter, skip, names)
    left = [matrix for matrix, name in names.items() if not skips(name)]
    if not left:
        raise MonadnockError("Every matrix was to be skipped; nothing is left to compress.")
    return left


def _skipper(adapter: Adapter, skip: Sequence[str], names: Mapping[Matrix, str]) -> Callable[[str], bool]:
    """Return what says of a name whether one of the entries means it; each entry has to mean some module."""
    known = {*names.values(), *(name for name, _ in adapter.model.named_modules())}
    patterns = []
    for each in skip:
        try:
            pattern = re.compile(each[3:] if each.startswith("re:") else re.escape(each) + r"(\.|\Z)")
        except re.error as error:
            raise MonadnockError(f"The pattern {each!r} of modules to skip cannot be read: {error}.") from error
        if not any(pattern.match(name) for name in known):
            if each.startswith("re:"):
                raise MonadnockError(f"The pattern {each!r} of modules to skip matches none of {adapter.source.id}.")
            near = difflib.get_close_matches(each, known, n=2) or [next(iter(names.values()))]
            raise MonadnockError(
                f"{adapter.source.id} has no module {each!r} to skip; its modules are named as {' or '.join(near)}."
            )
        patterns.append(pattern)
    return lambda name: any(pattern.match(name) for pattern in patterns)


def _massive_rows(run: Run, matrices: list[Matrix]) -> Rows:
    """Return the massive rows that a run names, of those matrices of W_up and W_gate that are compressed."""
    if "massive_weights" not in run.heights():
        raise MonadnockError(
            f"{run.path} has no table massive_weights, which names massive rows; scan with the probe start_token."
        )
    found = run.table("massive_weights").filter(pl.col("massive"))
    if not found.height:
        raise MonadnockError(f"{run.path} names no massive rows; there is nothing to keep.")
    keep: dict[Matrix, list[int]] = {}
    for row in found.iter_rows(named=True):
        for module in ("gate", "up"):
            matrix = Matrix(row["layer"], module, row["expert"])
            if matrix in matrices:
                keep.setdefault(matrix, []).append(row["feature"])
    return keep


def _digits(told: object, count: int) -> str:
    """Return the first digits of the hash of something, which tell it from others that are named alike."""
    return hashlib.sha256(repr(told).encode()).hexdigest()[:count]


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", label.lower().replace("%", "-percent")).strip("-")
