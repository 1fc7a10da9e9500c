"""Section on judged answers: mean scores of each model, and the answers on which two models differ most."""

import polars as pl

from monadnock.findings.judged import mean_scores
from monadnock.report import text
from monadnock.report.parts import Block, Cell, Findings, Listing, Passage, Section, meaning

_MOST, _LONGEST, _NAME = 4, 1200, 60  # questions shown, characters of an answer and of a name
_MODELS = 4  # answers of a question that are shown
_WITHOUT = "no adapter"


def judged(findings: Findings) -> list[Block]:
    """List the scores, then show the questions on which they differ most, for each file and judge."""
    answers = findings["answers"].filter(pl.col("column").is_not_null())
    blocks = []
    for about, part in answers.group_by("questions", "judge", maintain_order=True):
        told = ", judged by ".join(_line(each or "unnamed") for each in about)
        blocks += [_scores(part, told), *_passages(part)]
    return blocks


def _line(name: str) -> str:
    return text.line(text.printable(name), _NAME)


def _scores(answers: pl.DataFrame, told: str) -> Block:
    """List the mean scores, a row for each model."""
    rows = mean_scores(answers)
    listed = []
    for row in rows:
        means = ("" if value is None else f"{value:.2f}" for value in (*row.columns.values(), row.mean))
        listed.append(tuple(map(Cell, (_line(row.name or _WITHOUT), *means))))
    missing = "; ".join(f"{_line(row.name or _WITHOUT)} {row.unscored}" for row in rows if row.unscored)
    without = f" The judge gave no score to some answers: {missing}." if missing else ""
    heads = ("fine-tuning", *(_line(name.replace("_", " ")).replace("-", "\u2011") for name in rows[0].columns), "mean")
    return Block(
        "Mean scores",
        f"From 1 to 5, {told}; the mean is that of the columns.{without}",
        meaning("answers", "column", "score"),
        Listing(heads, tuple(listed), (False,) * len(heads)),
        wide=True,
    )


def _passages(answers: pl.DataFrame) -> list[Block]:
    """Show the answers to the questions whose scores are furthest apart, or to the first one."""
    scored = answers.group_by("question", "turn", maintain_order=True).agg(
        gap=(pl.col("score").max() - pl.col("score").min()).fill_null(0)
    )
    blocks = []
    for row in scored.sort("gap", descending=True, maintain_order=True).head(_MOST).to_dicts():
        if blocks and not row["gap"]:
            break
        mine = answers.filter(pl.col("question").eq_missing(row["question"]), pl.col("turn").eq_missing(row["turn"]))
        if mine.height > _MODELS:  # those with the lowest and the highest scores
            mine = mine.sort("score", nulls_last=True, maintain_order=True)
            ends = (mine.head(_MODELS // 2), mine.drop_nulls("score").tail(_MODELS // 2))
            mine = pl.concat(ends).unique(maintain_order=True)
        passages = tuple(
            Passage(
                _line(each["name"] or _WITHOUT),
                "no score" if each["score"] is None else f"score {each['score']}",
                "",
                text.line(text.printable(each["answer"] or ""), _LONGEST) or "(nothing)",
            )
            for each in mine.to_dicts()
        )
        title = f"Answers to {_line(str(row['question']))}" + (f", turn {row['turn']}" if row["turn"] != 1 else "")
        asked = text.line(text.printable(str(mine["asked"][0] or "")), _LONGEST)
        blocks.append(Block(title, asked, meaning("answers", "answer"), passages))
    return blocks


SECTIONS = (
    Section(
        "answers",
        "Judged answers",
        "What fine-tuned models write, and how a judge scores it; its words are in the table answers.",
        ("answers",),
        "",
        judged,
    ),
)
