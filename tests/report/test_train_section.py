"""The section on fine-tuning: a table, curves and what zeroed rows leave, whatever the tables hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from monadnock.findings import table
from monadnock.report.charts_train import finetunings
from monadnock.report.parts import Findings
from tests.report import train_rows
from tests.report.conftest import manifest


def found(**rows):
    return Findings(manifest(), {name: table(name).frame(list(each)) for name, each in rows.items()})


def test_each_part_is_there_with_the_model_without_adapter_first():
    blocks = finetunings(found(**{name: make() for name, make in train_rows.ROWS.items()}))
    assert [block.kind for block in blocks] == ["listing", "chart", "listing"]
    listed, curves, left = blocks
    assert len(listed.body.rows) == len(train_rows.NAMES)
    assert len(curves.keys) == 5 and "3 more are in the table" in curves.says
    first = [[cell.text for cell in row[:2]] for row in left.body.rows[:5]]
    assert first[0] == ["0", "no adapter"] and first[4] == ["2", "no adapter"]
    assert left.body.starts == {4, 8}


def test_seeds_are_one_row_with_their_mean_and_ends():
    rows = [
        {"name": f"lora, seed {seed}", "zeroed": 0, "metric": "perplexity", "value": value, "base": 9.0}
        for seed, value in ((0, 10.0), (1, 14.0), (12, 12.0))
    ]
    (left,) = finetunings(found(robustness=rows))
    told = [[cell.text for cell in row] for row in left.body.rows]
    assert told == [["0", "no adapter", "9"], ["0", "lora", "12 (10 to 14)"]]
    assert "Of several seeds" in left.says


def test_an_ablation_is_drawn_over_p0_a_line_for_each_scope_and_one_without():
    blocks = finetunings(found(robustness=train_rows.ablation()))
    charts = [block for block in blocks if block.kind == "chart"]
    assert [chart.title.partition(" against")[0] for chart in charts] == [
        "Perplexity",
        "Mean accuracy of the tasks",
    ] * 2
    assert [chart.title.rpartition(", ")[2] for chart in charts[::2]] == [
        "all weights as they are",
        "3 rows set to zero",
    ]
    for chart, more in zip(charts, (0, 0, 3, 3), strict=True):
        assert [key.label for key in chart.keys[:2]] == ["massive", "all"] and len(chart.keys) == 4
        assert chart.keys[3].label == f"without MacDrop: {0.5 + more}"
        lines = [mark.data_source.data for mark in chart.body.renderers if len(mark.data_source.data["p0"]) == 3]
        assert [list(line["value"]) for line in lines] == [[2.5 + more, 5.5 + more, 9.5 + more]] * 3


def test_methods_and_data_without_macdrop_have_lines_of_their_own():
    rows = [
        {"name": f"{method} {p0}", "method": method, "data": "d", "p0": p0, "zeroed": 0, "metric": "perplexity",
         "macdrop": p0 and f"macdrop step {p0} all", "schedule": p0 and "step", "scope": p0 and "all", "value": value}
        for method, p0, value in [
            ("lora", 0.1, 1.0), ("lora", 0.2, 2.0), ("dora", 0.1, 3.0), ("dora", 0.2, 4.0),
            ("lora", None, 2.0), ("dora", None, 4.0),
        ]
    ]  # fmt: skip
    (chart,) = [block for block in finetunings(found(robustness=rows)) if block.kind == "chart"]
    assert [key.label for key in chart.keys] == ["lora", "dora", "lora without MacDrop: 2", "dora without MacDrop: 4"]


def test_tasks_have_a_mean_where_there_are_several():
    rows = [
        {"name": "lora, seed 0", "zeroed": 0, "metric": metric, "text": "lm-eval", "value": value, "base": 0.0}
        for metric, value in (("a:acc", 0.2), ("b:acc", 0.4), ("b:acc_norm", 0.9), ("longbench_x:score", 0.5))
    ]
    (left,) = finetunings(found(robustness=rows))
    assert left.body.heads[-1] == "mean accuracy of the tasks" and left.body.rows[1][-1].text == "0.3"
    assert "mean score of the tasks" not in left.body.heads


def test_one_probability_is_no_ablation():
    rows = [row for row in train_rows.ablation() if row["p0"] in (None, 0.5)]
    assert [block.kind for block in finetunings(found(robustness=rows))] == ["listing"]


def test_schedules_of_the_same_name_with_another_alpha_are_two_lines():
    rows = [
        {"name": f"{p0} {alpha}", "macdrop": f"macdrop exp {p0} massive alpha {alpha}", "schedule": "exp", "p0": p0,
         "scope": "massive", "zeroed": 0, "metric": "perplexity", "value": p0 + alpha}
        for p0 in (0.2, 0.8) for alpha in (0.01, 0.05)
    ]  # fmt: skip
    (chart,) = [block for block in finetunings(found(robustness=rows)) if block.kind == "chart"]
    assert [key.label for key in chart.keys] == ["alpha 0.01", "alpha 0.05"]


def test_without_rows_there_is_nothing():
    assert finetunings(found()) == []


@settings(max_examples=20)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["a", "</script>", None]),
                "zeroed": st.integers(0, 3),
                "value": st.floats(),
                "metric": st.sampled_from(["perplexity", "odd", None]),
                "base": st.floats(),
                "p0": st.floats() | st.sampled_from([0.1, 0.2]),
                "scope": st.sampled_from(["all", None]),
                "macdrop": st.sampled_from(["</script>", "macdrop a b c d e", None]),
            },
        ),
        max_size=6,
    ),
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["a", None]), "step": st.integers(0, 5), "loss": st.floats()}
        ),
        max_size=6,
    ),
)
def test_any_rows_are_shown(left, steps):
    finetunings(found(robustness=left, finetuning_steps=steps, finetunings=[{}]))
