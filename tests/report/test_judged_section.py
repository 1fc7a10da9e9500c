"""The section on judged answers: means are means of columns, what has no score is told, and any rows are shown."""

from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import table
from monadnock.findings.judged import Scores, mean_scores
from monadnock.report.charts_judged import judged
from monadnock.report.parts import Findings
from tests.report import train_rows
from tests.report.conftest import manifest


def frame(rows):
    return table("answers").frame(list(rows))


def found(rows):
    return Findings(manifest(), {"answers": frame(rows)})


def test_scores_are_means_by_column_and_the_mean_is_that_of_the_columns():
    rows = [
        {"name": name, "column": column, "score": score}
        for name, column, score in [
            (None, "qa", 1), (None, "qa", 2), (None, "MT-1", 5), ("a", "odd", 3), ("a", "qa", None), ("a", "MT-1", 4),
        ]
    ]  # fmt: skip
    base, tuned = mean_scores(frame(rows))
    assert base == Scores(None, {"MT-1": 5.0, "qa": 1.5, "odd": None}, 0) and base.mean == 3.25
    assert tuned == Scores("a", {"MT-1": 4.0, "qa": None, "odd": 3.0}, 1) and tuned.mean == 3.5


def test_the_paper_s_mean_is_the_mean_of_its_seven_columns():
    columns: dict[str, float | None] = {
        "MT-1": 3.71,
        "MT-2": 3.54,
        "translation": 4.50,
        "summarization": 3.24,
        "qa": 4.35,
    }
    columns |= {"math_reasoning": 3.64, "rag": 3.74}  # oh2024, table 9, Llama-3-8B with LoRA
    assert round(Scores(None, columns, 0).mean, 2) == 3.82


def test_scores_come_first_and_then_the_answers_that_differ_most():
    scores, *answers = judged(found(train_rows.answers()))
    assert scores.kind == "listing" and scores.body.rows[0][0].text == "no adapter"
    assert "no score to some answers: lora, seed 0 1." in scores.says
    assert [block.kind for block in answers] == ["passages"] * len(answers)
    first = answers[0]
    assert "turn 2" in first.title and [passage.note for passage in first.body] == ["score 1", "score 3", "score 5"]


def test_of_many_models_the_lowest_and_highest_are_shown():
    rows = [
        {"name": f"m{place}", "column": "qa", "question": "q", "turn": 1, "score": score, "answer": f"a{place}"}
        for place, score in enumerate([3, 3, 3, 3, 3, 5, 1])
    ]
    _, answers = judged(found(rows))
    assert {"score 1", "score 5"} <= {passage.note for passage in answers.body} and len(answers.body) == 4


def test_without_rows_there_is_nothing():
    assert judged(found([])) == []


@settings(max_examples=20)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["a", "</script>"]),
                "column": st.sampled_from(["MT-1", "name", "mean", "odd"]),
                "question": st.sampled_from(["q", None]),
                "turn": st.integers(1, 2),
                "score": st.integers(1, 5),
                "judge": st.sampled_from(["j", None]),
            },
        ),
        max_size=8,
    )
)
def test_any_rows_are_shown(rows):
    judged(found(rows))
