"""Which links can be cut in this model, with which attacks and targets; and why others cannot."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from monadnock.attacking.targets import Aim, Targets, find_targets
from monadnock.findings import Run
from monadnock.findings.chain_links import GAINS, MASSIVE, ROWS, SINKS, SUPER
from monadnock.findings.words import listed
from monadnock.models import Adapter

MATTERS = 0.01  # super weights are zeroed if they put at least this share of the largest contribution into h


@dataclass(frozen=True)
class Cut:
    """An attack that takes a cause away.

    Attributes:
        mode: the mode of attack.
        k: to how many targets.
        words: what it does, in words.
        note: what else is to be known of it.
    """

    mode: str
    k: int
    words: str
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What can be tested.

    Attributes:
        targets: what the attacks aim at: the features are first those that are massive.
        cuts: the attacks, in the order of the chain.
        missing: why a cause or effect is not there, by its name; empty where nothing has to be said of it.
        alive: layers in which a massive feature of the start token lives.
    """

    targets: Targets
    cuts: tuple[Cut, ...]
    missing: Mapping[str, str]
    alive: tuple[int, ...]


def make_plan(adapter: Adapter, run: Run) -> Plan:
    """Read from a run what the chain of this model is made of.

    Raises:
        MonadnockError: if the run has no tables of the probe `start_token`.
    """
    targets = find_targets(adapter, run)
    lives = run.table("lifecycles").filter(pl.col("massive"))
    order = lives.sort(pl.col("peak_value").abs(), descending=True)["feature"].unique(maintain_order=True).to_list()
    features = (*order, *(feature for feature in targets.features if feature not in order))
    targets = replace(targets, features=features)
    spans = [range(row["birth"], row["death"] or adapter.num_layers) for row in lives.to_dicts()]
    alive = tuple(sorted({layer for span in spans for layer in span}))
    num_rows = run.table("massive_weights").filter(pl.col("massive")).height
    num_super = _that_matter(run)
    missing: dict[str, str] = {}
    if not order:
        missing[MASSIVE] = "no feature of the start token is massive (sun2024)"
    if not num_super:
        missing[SUPER] = "the run lists no super weight"
    if not num_rows:
        missing[ROWS] = "no row of W_up is massive (sun2024)"
    if not {"attn_output", "mlp_output"} & set(adapter.family.norms):
        missing[GAINS] = ""
    elif not order:
        missing[GAINS] = missing[MASSIVE]
    aim, cuts = targets.aims[0], []
    if SUPER not in missing:
        cuts.append(Cut("super", num_super, f"{_count(num_super, 'super weight')} of {_place(aim)} zeroed"))
    if ROWS not in missing:
        cuts.append(Cut("zero", num_rows, f"{_count(num_rows, 'massive row')} of {_place(aim)} zeroed"))
    named = f"feature{'s' * (len(order) > 1)} {listed([str(feature) for feature in order])}" if order else ""
    if GAINS not in missing:
        cuts.append(Cut("gain", len(order), f"the gains behind attention and FFN at {named} set to their median"))
    if MASSIVE not in missing:
        zero, note = f"h at {named} of position 0 zeroed", _later_tokens(run)
        cuts.append(Cut("activation-zero", len(order), f"{zero} behind layer {aim.layer}", note))
        cuts.append(Cut("activation-all", len(order), f"{zero} behind every layer", note))
    return Plan(targets, (*cuts, *_masks(adapter, run, aim)), missing, alive)


def _masks(adapter: Adapter, run: Run, aim: Aim) -> list[Cut]:
    found = [Cut("mask", 1, "key 0 masked in all layers", _later_sinks(run))]
    if aim.layer + 1 < adapter.num_layers:
        found.append(Cut("mask-behind", 1, f"key 0 masked in the layers behind layer {aim.layer}", found[0].note))
    return found


def _that_matter(run: Run) -> int:
    """Count the super weights, the strongest first, that put enough into h."""
    sizes = run.table("super_weights")["contribution"].abs()
    largest = sizes.max()
    return 0 if largest is None else int((sizes >= MATTERS * float(str(largest))).sum())


def _later_tokens(run: Run) -> str:
    """Say whether massive activations sit on other tokens than the first, which are left alone."""
    if "activations" not in run.heights():
        return ""
    table = run.table("activations").filter(
        pl.col("stream") == "residual", pl.col("criterion").str.contains("sun2024"), pl.col("position") > 0
    )
    if not table.height:
        return ""
    kind = table["token_class"].fill_null("other").mode().sort()[0]
    return f"massive activations also sit on later tokens (mostly of class {kind}), where they were left"


def _later_sinks(run: Run) -> str:
    """Say how many heads have their sink elsewhere, where no key is masked."""
    if "heads" not in run.heights():
        return ""
    sinks = run.table("heads").filter(pl.col("sink"))
    later = sinks.filter(pl.col("sink_position").ne_missing(0)).height
    told = f"{later} of {sinks.height} heads with a sink have it on another key than 0, which was not masked"
    return told if later else ""


def why_not(missing: Mapping[str, str], cause: str, effect: str) -> str | None:
    """Return why a link is not tested; None if it is, empty if there is nothing to say."""
    return next((missing[name] for name in (cause, effect) if name in missing), None)


def without_sinks(plan: Plan) -> Plan:
    """Return the plan for a model in which no head has a sink."""
    missing = {**plan.missing, SINKS: "no head has a sink (gu2025)"}
    return replace(plan, cuts=tuple(cut for cut in plan.cuts if not cut.mode.startswith("mask")), missing=missing)


def _place(aim: Aim) -> str:
    return f"layer {aim.layer}" + ("" if aim.expert is None else f", expert {aim.expert},")


def _count(number: int, noun: str) -> str:
    return f"the {noun}" if number == 1 else f"the {number} {noun}s"
