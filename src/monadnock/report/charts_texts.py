"""Section on generated texts: what the model writes under each attack, side by side."""

import re

import polars as pl

from monadnock.findings.summary_attacks import placed
from monadnock.report import attacks, text
from monadnock.report.attacks import CLEAN
from monadnock.report.parts import Block, Findings, Passage, Section, meaning

_HEADING = 70  # characters of a prompt in a heading; a longer one is told in full below it
_NOTHING = "(nothing)"


def generations(findings: Findings) -> list[Block]:
    """Set the texts of every prompt side by side, the clean model's first; those of one mode that agree are one."""
    table = placed(findings["generations"]).with_columns(pl.col("text").fill_null(""))
    blocks = []
    for (prompt,), rows in table.group_by("prompt", maintain_order=True):
        heading = " ".join(str(prompt).split()) or "(empty prompt)"
        whole = heading == prompt and len(heading) <= _HEADING
        heading = heading if len(heading) <= _HEADING else f"{heading[: _HEADING - 1]}…"
        says = "What the model writes after this prompt, greedily" if whole else f"After “{prompt}”, greedily"
        says += "; what an attacked model shares with the clean one from the start is paler."
        notes = meaning("generations", "mode", "k", "same_tokens", "num_tokens")
        blocks.append(Block(f"“{heading}”", says, notes, tuple(_passages(rows)), wide=True))
    return blocks


def _passages(rows: pl.DataFrame) -> list[Passage]:
    """Return a passage for each text of a prompt; equal texts of one mode in one place come once, with every k."""
    modes = attacks.ordered_modes(rows["mode"])
    places = attacks.ordered_places(rows["place"])
    several = len(attacks.layers(places)) > 1
    clean = next((row["text"] for row in rows.filter(mode=CLEAN).to_dicts()), None)
    seeded = (
        rows.sort("k", "seed")
        .group_by("mode", "place", "k", "text", maintain_order=True)
        .agg(pl.col("seed").drop_nulls().alias("seeds"), pl.col("same_tokens", "num_tokens").first())
    )
    same = seeded.group_by("mode", "place", "text", "seeds", maintain_order=True).agg(
        pl.col("k"), pl.col("same_tokens", "num_tokens").first()
    )
    order = lambda row: (row["mode"] != CLEAN, places.index(row["place"]), modes.index(row["mode"]))  # noqa: E731
    return [_passage(row, clean, several) for row in sorted(same.to_dicts(), key=order)]


def _passage(row: dict, clean: str | None, several: bool) -> Passage:
    written, same, tokens = row["text"], row["same_tokens"], row["num_tokens"]
    if row["mode"] == CLEAN:
        return Passage(
            "clean model", "" if tokens is None else text.count(tokens, "token"), "", _lines(written) or _NOTHING
        )
    notes = [row["place"]] * (several and bool(row["place"]))
    if row["seeds"]:
        notes.append(f"seed{'s' * (len(row['seeds']) > 1)} {', '.join(map(str, row['seeds']))}")
    if tokens is not None and same is not None:
        count = text.count(tokens, "token")
        begun = count if written == clean else f"the first {same} of {count}"
        notes.append(f"{begun} as the clean model" if same else "other than clean from the first token on")
    pairs = enumerate(zip(clean or "", written, strict=False))
    shared = next((i for i, (a, b) in pairs if a != b), min(len(clean or ""), len(written)))
    name = f"{row['mode']}, k = {', '.join(map(str, row['k']))}"
    return Passage(
        name, "; ".join(notes), _lines(written[:shared]), _lines(written[shared:]) or _NOTHING * (not shared)
    )


def _lines(written: str) -> str:
    """Make line breaks visible, and empty lines take no room: broken models write many."""
    return re.sub(r"\n+", lambda found: "↵" * len(found[0]) + "\n", written)


SECTIONS = (
    Section(
        "texts",
        "Generated texts",
        "What the model writes while it is attacked, beside what it writes clean.",
        ("generations",),
        "The table has no rows: no text was generated.",
        generations,
    ),
)
