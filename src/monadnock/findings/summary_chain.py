"""The causal chain as one plain paragraph: every sentence and verdict is read off the table `chain`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from monadnock.findings.chain_links import (
    FAILS,
    GAINS,
    HOLDS,
    LINKS,
    OPEN,
    PARTLY,
    PREDICTIONS,
    ROWS,
    STEPS,
    WHOLE,
    Link,
    Measured,
    Verdict,
    combine,
    judge,
)
from monadnock.findings.manifest import Manifest
from monadnock.findings.words import listed

METRICS = {
    "start_h": "|h| of the start token",
    "top1_h": "the largest |h|",
    "sink_share": "the share of heads with a sink",
    "implicit_scaling": "implicit scaling",
    "perplexity": "perplexity",
}
_ORDER = (HOLDS, PARTLY, FAILS, OPEN)


def texts(chain: pl.DataFrame) -> list[str]:
    """Return the texts over which the chain was tested, the one with most rows first."""
    counts = chain.drop_nulls("data").group_by("data", maintain_order=True).len()
    return counts.sort("len", descending=True, maintain_order=True)["data"].to_list()


def chain(_manifest: Manifest, tables: Mapping[str, pl.DataFrame]) -> str:
    """Tell the chain over the text that has most rows; nothing where it was not tested."""
    table = tables["chain"]
    return paragraph(table.filter(pl.col("data") == texts(table)[0])) if texts(table) else ""


class Cut:
    """One way to cut a link, with what was measured of it.

    Attributes:
        mode, k: the attack that cuts it; None where the link was not tested.
        rows: the rows of the table, one for each metric.
        words: what was done; empty where the link was not tested.
        effect: the metric that decides, where it was measured.
        proof: the metric that shows whether the cause is away, where there is one.
        verdict: what follows; None where the link was not tested.
        notes: what else is to be known.
    """

    def __init__(self, link: Link, rows: list[dict]):
        found = {row["metric"]: row for row in reversed(rows)}
        self.mode, self.k, self.rows = rows[0]["mode"], rows[0]["k"], rows
        self.words: str = rows[0]["intervention"] or ""
        self.effect = _measured(found.get(link.metrics[0]))
        self.proof = _measured(found.get(link.proof))
        self.notes = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
        self.verdict: Verdict | None = None
        if self.effect is not None:
            unwatched = bool(link.proof) and self.proof is None
            self.verdict = Verdict(OPEN, "the cause was not watched") if unwatched else judge(self.effect, self.proof)


def _measured(row: dict | None) -> Measured | None:
    if row is None:
        return None
    return Measured(row["metric"], row["before"], row["after"], row["control_min"], row["control_max"])


def find_cuts(table: pl.DataFrame, link: Link) -> list[Cut]:
    """Return the ways in which a link was cut over one text; one without verdict says why it was not."""
    ways: dict[tuple, list[dict]] = {}
    for row in table.filter(pl.col("link") == link.name).to_dicts():
        ways.setdefault((row["mode"], row["k"], row["targets"], row["intervention"]), []).append(row)
    order = sorted(ways, key=lambda way: link.modes.index(way[0]) if way[0] in link.modes else len(link.modes))
    found = [Cut(link, ways[way]) for way in order]
    return [cut for cut in found if cut.verdict or cut.notes]


@dataclass(frozen=True)
class Part:
    """A part of the paragraph: what it is on (empty for the conclusion), the verdict where there is one, the text."""

    name: str
    verdict: str
    text: str


def parts(table: pl.DataFrame) -> list[Part]:
    """Write the chain over one text: how many links hold, link by link what came of it, and each cause to the end."""
    found = {link: find_cuts(table, link) for link in LINKS}
    normed = any(found[link] for link in LINKS if link.cause == GAINS)
    steps = [(link, found[link]) for link in STEPS if found[link]]
    told = [Part("", "", _conclusion(found))]
    told += [Part(link.name, _word(cuts) or "not tested", _step(link, cuts, normed)) for link, cuts in steps]
    for cause in dict.fromkeys(link.cause for link in WHOLE):
        links = [(link, found[link]) for link in WHOLE if link.cause == cause]
        if text := _whole(cause, links, normed):
            words = dict.fromkeys(word for _, cuts in links if (word := _word(cuts)))
            told.append(Part(f"{cause}, all the way down", ", ".join(words), text))
    return told


def paragraph(table: pl.DataFrame) -> str:
    """Write the chain over one text as a paragraph.

    Example:
        >>> from monadnock.findings import table
        >>> row = {"step": 4, "link": "sinks -> predictions", "note": "no head has a sink"}
        >>> paragraph(table("chain").frame([row]))
        'No link of the chain could be tested. The sinks serve the predictions: not tested, no head has a sink.'
    """
    return " ".join(part.text for part in parts(table))


def _word(cuts: list[Cut]) -> str:
    """Return the verdict on a link; nothing where it was not tested."""
    verdicts = [cut.verdict for cut in cuts if cut.verdict]
    return combine(verdicts).word if verdicts else ""


def _conclusion(found: Mapping[Link, list[Cut]]) -> str:
    words: dict[str, list[str]] = {}
    for link in STEPS:
        if word := _word(found[link]):
            words.setdefault(word, []).append(link.name)
    total = sum(map(len, words.values()))
    if not total:
        return "No link of the chain could be tested."
    if total == len(words.get(HOLDS, [])):
        return "Every link of the chain that could be tested holds."
    told = [f"{listed(words[word])} {_verb(word, len(words[word]))}" for word in _ORDER if word in words]
    return f"Of the links of the chain, {'; '.join(told)}."


def _verb(word: str, count: int) -> str:
    """Put a verdict into the plural where it is on several links."""
    if count == 1:
        return word
    return {HOLDS: "hold", PARTLY: "hold in part", FAILS: "do not hold", OPEN: "stay open"}[word]


def _step(link: Link, cuts: list[Cut], normed: bool) -> str:
    """Tell one link: its verdict, then every way in which it was cut."""
    claim = link.claim[:1].upper() + link.claim[1:]
    notes = list(dict.fromkeys(note for cut in cuts for note in cut.notes))
    tested = [(cut, cut.verdict) for cut in cuts if cut.verdict]
    if not tested:
        return f"{claim}: not tested, {'; '.join(notes)}."
    whole = combine(verdict for _, verdict in tested)
    shared = [note for note in notes if len(tested) > 1 and all(note in cut.notes for cut, _ in tested)]
    told = [f"{claim}: this {whole.word}{_against(link, whole, normed)}."]
    for cut, verdict in tested:
        against = _against(link, verdict, normed) if verdict.word != whole.word else ""
        tail = f" ({_reason(verdict)}{against})" if len(tested) > 1 or verdict.why else ""
        own = "".join(f"; {note}" for note in cut.notes if note not in shared)
        told.append(f"With {cut.words or 'the cause cut'}, {_numbers(cut, verdict)}{tail}{own}.")
    return " ".join([*told, *(f"{note[:1].upper()}{note[1:]}." for note in shared)])


def _whole(cause: str, links: list[tuple[Link, list[Cut]]], normed: bool) -> str:
    """Tell what a cause does all the way down the chain."""
    tested = [(link, cut, cut.verdict) for link, cuts in links for cut in cuts if cut.verdict]
    several = len({cut.words for _, cut, _ in tested}) > 1
    told = []
    for link, cut, verdict in tested:
        done = f"with {cut.words}, " if several else ""
        reason = _reason(verdict) + _against(link, verdict, normed)
        told.append(f"{done}{_numbers(cut, verdict, drawn=bool(verdict.why))} ({reason})")
    return f"All the way down from the {cause}: {'; '.join(told)}." if told else ""


def _against(link: Link, verdict: Verdict, normed: bool) -> str:
    """Name the paper that a verdict contradicts; on models with norms behind attention and FFN, only oh2024 looked."""
    if verdict.word != FAILS or not link.source:
        return ""
    if not normed:
        return f", against {link.source}"
    return ", as oh2024 finds in Gemma 2" if (link.cause, link.effect) == (ROWS, PREDICTIONS) else ""


def _reason(verdict: Verdict) -> str:
    return f"{verdict.word}: {verdict.why}" if verdict.why else verdict.word


def _numbers(cut: Cut, verdict: Verdict, *, drawn: bool = True) -> str:
    """Tell the metric that decides, and its controls if `drawn`; before it, where it decides nothing, the cause."""
    seen = [cut.proof if verdict.word == OPEN else None, cut.effect]
    return " and ".join(_from_to(found, drawn) for found in seen if found is not None)


def _from_to(found: Measured, drawn: bool) -> str:
    before, after, low, high = (
        number(value, found.metric) for value in (found.before, found.after, found.low, found.high)
    )
    told = f"{METRICS.get(found.metric, found.metric)} goes from {before} to {after}"
    return told + f", at random {low if low == high else f'{low} to {high}'}" * drawn


def number(value: float | None, metric: str) -> str:
    """Return a metric as people read it: shares in per cent, large numbers without decimals.

    Example:
        >>> number(0.481, "sink_share"), number(24926.2, "top1_h"), number(11.758, "perplexity"), number(None, "top1_h")
        ('48%', '24,926', '11.76', 'nothing')
    """
    if value is None:
        return "nothing"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity"
    if metric == "sink_share":
        return f"{value:.0%}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
