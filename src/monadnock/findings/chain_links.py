"""The links of the causal chain: how each is cut, what should go with it, when it counts as cut, and who says so."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

GONE = 0.5  # a link holds if its effect loses this share, and less of it in every control
TOUCHED = 0.1  # it holds in part if its effect loses this share, and more than in any control

HOLDS, PARTLY, FAILS, OPEN = "holds", "holds in part", "does not hold", "stays open"


@dataclass(frozen=True)
class Link:
    """A cause and its effect.

    Attributes:
        cause: what is taken away.
        effect: what should go with it.
        claim: the link as a sentence.
        modes: the attacks that take the cause away; each is tested.
        metrics: what is told of the effect; the first decides.
        proof: what has to lose `GONE` for the cause to be away; empty where the cause is a weight.
        source: the paper that says the link holds, in models without norms behind attention and FFN.
    """

    cause: str
    effect: str
    claim: str
    modes: tuple[str, ...]
    metrics: tuple[str, ...]
    proof: str = ""
    source: str = ""

    @property
    def name(self) -> str:
        """The link as it stands in the table `chain`."""
        return f"{self.cause} -> {self.effect}"


SUPER, ROWS, GAINS, MASSIVE, SINKS, PREDICTIONS = (
    "super weights",
    "massive rows",
    "norm gains",
    "massive activation",
    "sinks",
    "predictions",
)
_SIZE, _SINKS = ("start_h", "top1_h"), ("sink_share", "implicit_scaling")
_ZEROED, _MASKED = ("activation-zero", "activation-all"), ("mask", "mask-behind")

STEPS: tuple[Link, ...] = (
    Link(SUPER, MASSIVE, "super weights make the massive activation", ("super",), _SIZE, source="yu2024"),
    Link(ROWS, MASSIVE, "massive rows make the massive activation", ("zero",), _SIZE, source="oh2024"),
    Link(GAINS, MASSIVE, "gains behind attention and FFN make the massive activation", ("gain",), _SIZE),
    Link(MASSIVE, SINKS, "the massive activation makes the sinks", _ZEROED, _SINKS, "start_h", "sun2024"),
    Link(SINKS, PREDICTIONS, "the sinks serve the predictions", _MASKED, ("perplexity",), "sink_share"),
)
WHOLE: tuple[Link, ...] = (
    Link(SUPER, SINKS, "super weights make the sinks", ("super",), _SINKS),
    Link(SUPER, PREDICTIONS, "super weights serve the predictions", ("super",), ("perplexity",), source="yu2024"),
    Link(ROWS, SINKS, "massive rows make the sinks", ("zero",), _SINKS),
    Link(ROWS, PREDICTIONS, "massive rows serve the predictions", ("zero",), ("perplexity",), source="oh2024"),
    Link(GAINS, SINKS, "gains behind attention and FFN make the sinks", ("gain",), _SINKS),
    Link(GAINS, PREDICTIONS, "gains behind attention and FFN serve the predictions", ("gain",), ("perplexity",)),
    Link(
        MASSIVE,
        PREDICTIONS,
        "the massive activation serves the predictions",
        _ZEROED,
        ("perplexity",),
        "start_h",
        "sun2024",
    ),
)
LINKS: tuple[Link, ...] = (*STEPS, *WHOLE)


@dataclass(frozen=True)
class Measured:
    """A metric of the clean model, with the cause taken away, and the range of the controls.

    NaN and infinity are what a broken model gives; None is what nobody measured.
    """

    metric: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Verdict:
    """What a test says of a link: one of `HOLDS`, `PARTLY`, `FAILS`, `OPEN`, and why where that is not plain."""

    word: str
    why: str = ""


def loss(found: Measured) -> float:
    """Return the share of itself that a metric loses; of perplexity, the share by which it grows.

    Infinite where perplexity is no number any more; NaN where nothing can be said.

    Example:
        >>> loss(Measured("sink_share", 0.5, 0.125, 0.5, 0.5)), loss(Measured("perplexity", 10.0, 25.0, 10.0, 10.0))
        (0.75, 1.5)
    """
    before, after = found.before, found.after
    if before is None or after is None or not math.isfinite(before) or before <= 0:
        return math.nan
    if found.metric == "perplexity":
        return after / before - 1 if math.isfinite(after) else math.inf
    return 1 - after / before


def judge(effect: Measured, proof: Measured | None = None) -> Verdict:
    """Say whether a link holds: its effect goes with its cause, and not with the same number cut at random.

    Args:
        effect: the metric that decides.
        proof: the metric that shows whether the cause is away at all.

    Example:
        >>> judge(Measured("sink_share", 0.48, 0.01, 0.47, 0.48)).word
        'holds'
        >>> judge(Measured("perplexity", 11.8, 11.8, 11.7, 11.8), Measured("sink_share", 0.48, 0.48, 0.48, 0.48)).word
        'stays open'
    """
    if proof is not None and not loss(proof) >= GONE:
        return Verdict(OPEN, "the cause is not away")
    lost = loss(effect)
    if math.isnan(lost):
        return Verdict(OPEN, "the effect has no number")
    ends = [_at(effect, end) for end in (effect.low, effect.high)]
    if any(math.isnan(end) for end in ends):
        return Verdict(OPEN, "the controls have no number")
    if lost < TOUCHED:
        return Verdict(FAILS)
    if lost <= max(ends):
        return Verdict(FAILS, "the same number cut at random does the same")
    if max(ends) >= GONE:
        return Verdict(PARTLY, "a random draw does much of it")
    return Verdict(HOLDS if lost >= GONE else PARTLY)


def _at(found: Measured, value: float | None) -> float:
    return loss(Measured(found.metric, found.before, value, None, None))


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on a link that was cut in several ways: in part where they disagree; what is open is left out.

    Example:
        >>> combine([Verdict(OPEN), Verdict(FAILS)]).word, combine([Verdict(HOLDS), Verdict(FAILS)]).word
        ('does not hold', 'holds in part')
    """
    words = {verdict.word for verdict in verdicts} - {OPEN}
    return Verdict(PARTLY if len(words) > 1 else words.pop() if words else OPEN)
