"""Explain a model: cut every link of the causal chain, cut the same number at random, and write down what goes."""

from pathlib import Path
from typing import Any

from monadnock.attacking.recording import attack_facts
from monadnock.attacking.targets import check_tables
from monadnock.data.text import check_text
from monadnock.errors import MonadnockError
from monadnock.explaining.cutting import make_plan
from monadnock.explaining.measuring import Bench
from monadnock.explaining.testing import LinkTests
from monadnock.findings import Run
from monadnock.interventions.changed import check_changeable
from monadnock.preparing import evaluating, known_run, open_model, text_windows
from monadnock.sameness import check_same, weight_sums
from monadnock.scanning import scan

CONTROLS_BY_DEFAULT = 3
SHORTEST = 16  # tokens of a window: uniform attention gives the first of 8 tokens more than a sink's 0.3
DEFAULT_TOKENS = 2048


def explain(
    model: Any,
    tokenizer: Any = None,
    *,
    out: str | Path | None = None,
    controls: int = CONTROLS_BY_DEFAULT,
    text: str | Path | None = None,
    dataset: str | None = None,
    tokens: int | None = None,
    length: int | None = None,
    bos: bool | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Test the causal chain from massive weights to predictions, link by link, each beside random controls.

    Every attack is measured as `attack` measures it, and is on disk at once, in the table `effects`; each link stands
    in the table `chain` as soon as its attack and controls are done. The same call goes on where another one stopped.

    Args:
        model: what `load` takes, an `Adapter`, or a transformers causal language model.
        tokenizer: the tokenizer, where a model object is given.
        out: a run of this model, from which targets are read and to which the chain is added; or a new folder, which is
            then scanned first, with all probes. By default a new one under `monadnock-runs/`.
        controls: how many random draws stand beside each attack.
        text, dataset, tokens, length, bos, seed: the text, see `scan`; 2,048 tokens by default.
        progress: show a progress bar when the output is a terminal.
        **options: dtype, device, device_map, revision, trust_remote_code, see `load`.

    Returns:
        The run, with the tables `chain` and `effects`.

    Raises:
        MonadnockError: on bad input, a run of another model, or a run without what the probe `start_token` finds.

    Example:
        >>> run = explain("smollm2", out="runs/smollm2")  # doctest: +SKIP
        >>> dict(run.summary().items)["Chain"]  # doctest: +SKIP
        'Of the links of the chain, ...'
    """
    if controls < 1:
        raise MonadnockError(
            f"{controls} controls were asked; an effect means nothing without one random draw beside it."
        )
    if min(length or SHORTEST, tokens or SHORTEST) < SHORTEST:
        asked = length if length is not None and length < SHORTEST else tokens
        raise MonadnockError(
            f"Windows of {asked} tokens were asked; the chain needs {SHORTEST} at least: in shorter ones nearly every "
            "head has a sink, with or without massive activations."
        )
    check_text(text, dataset)
    path, known = known_run(model, out)
    if known is not None:
        check_tables(known)
    adapter = open_model(model, tokenizer, progress=progress, **options)
    check_changeable(adapter)
    tokens = max(DEFAULT_TOKENS, length or 0) if tokens is None else tokens
    source: dict[str, Any] = {"text": text, "dataset": dataset, "tokens": tokens, "length": length, "bos": bos}
    windows = text_windows(adapter, seed=seed, **source)
    run = known or scan(adapter, out=path, seed=seed, progress=progress, **source)
    with evaluating(adapter.model):
        sums = weight_sums(adapter)
        check_same(run, adapter, sums)
        plan = make_plan(adapter, run)
        run.note(attack_facts(adapter, windows, plan.targets.start_token, sums, ["perplexity", "chain"]))
        LinkTests(Bench(adapter, run, plan, windows, controls), controls).run(progress)
    return run
