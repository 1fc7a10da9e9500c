"""Mean scores that a judge gave: a row for each model, a column for each kind of question (oh2024, table 9)."""

from dataclasses import dataclass

import polars as pl

COLUMNS = ("MT-1", "MT-2", "translation", "summarization", "qa", "math_reasoning", "rag")  # of Spec-Bench, in its order


@dataclass(frozen=True)
class Scores:
    """What a judge thinks of a model.

    Attributes:
        name: of the fine-tuning; None for the model without adapter.
        columns: mean score of each kind of question; None where no answer has one.
        unscored: answers without a score.
    """

    name: str | None
    columns: dict[str, float | None]
    unscored: int

    @property
    def mean(self) -> float | None:
        """The mean of the columns that have one."""
        given = [value for value in self.columns.values() if value is not None]
        return sum(given) / len(given) if given else None


def mean_scores(answers: pl.DataFrame) -> list[Scores]:
    """Return the scores of each model, the one without adapter first.

    Args:
        answers: the table `answers`, of one file of questions and one judge.
    """
    found = answers["column"].drop_nulls().unique(maintain_order=True).to_list()
    columns = sorted(found, key=lambda name: COLUMNS.index(name) if name in COLUMNS else len(COLUMNS))
    rows = []
    for name in [None, *answers["name"].drop_nulls().unique(maintain_order=True)]:
        mine = answers.filter(pl.col("name").eq_missing(name))
        if mine.height:
            means = {column: mine.filter(column=column)["score"].cast(pl.Float64) for column in columns}
            told = {column: values.drop_nulls().mean() for column, values in means.items()}
            kept = {column: value if isinstance(value, float) else None for column, value in told.items()}
            rows.append(Scores(name, kept, mine["score"].null_count()))
    return rows


def tuned_names(finetunings: pl.DataFrame) -> list[tuple[str, str]]:
    """Return (name, folder) of each fine-tuning; with its data in the name, where the names alone are not enough.

    Args:
        finetunings: the table of that name.
    """
    rows = finetunings.select("name", "data", "adapter").rows()
    names = [name for name, _, _ in rows]
    return [(name if names.count(name) == 1 else f"{name}, {data}", adapter) for name, data, adapter in rows]
