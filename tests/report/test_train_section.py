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
