"""The section on pretraining: a table, curves over the steps and the last look, whatever the tables hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock.findings import table
from monadnock.findings.trained import last_looks
from monadnock.report.charts_pretrain import pretraining
from monadnock.report.parts import Findings
from tests.report import pretrain_rows
from tests.report.conftest import manifest


def found(**rows):
    empty = {name: [] for name in pretrain_rows.ROWS}
    return Findings(manifest(), {name: table(name).frame(list(each)) for name, each in (empty | rows).items()})


def everything():
    return pretraining(found(**{name: make() for name, make in pretrain_rows.ROWS.items()}))


def test_each_part_is_there_seeds_together():
    listed, loss, *charts, layers = everything()
    assert [listed.kind, loss.kind, layers.kind] == ["listing", "chart", "listing"]
    assert {chart.kind for chart in charts} == {"chart"} and len(charts) == 7
    told = [[cell.text for cell in row] for row in listed.body.rows]
    assert [row[0] for row in told] == ["llama default", "llama sigmoid", "llama </script><b>"]
    assert told[0][1] == "2.5 (2 to 3)" and told[0][2] == "85 (84 to 86)" and told[0][4] == "8"
    assert told[0][-1] == "1" and told[1][-1] == "1.191 (1.182 to 1.2)"
    assert layers.body.starts == {2, 4} and len(layers.body.rows) == 6


def test_without_a_default_speed_is_in_steps_a_second():
    rows = [row for row in pretrain_rows.pretrainings() if row["variant"] != "default"]
    listed = pretraining(found(pretrainings=rows))[0]
    assert listed.body.heads[-1] == "steps a second" and "default" not in listed.says
    speeds = [row["steps_per_second"] for row in rows if row["name"].startswith("llama sigmoid")]
    assert listed.body.rows[0][-1].text.startswith(f"{sum(speeds) / len(speeds):.4g}")


def test_lines_are_means_in_bands_from_the_least_to_the_most():
    chart = everything()[2]
    data = next(mark.data_source.data for mark in chart.body.renderers if "mean" in mark.data_source.data)
    assert data["step"].tolist() == [0, 10, 20]
    assert data["mean"].tolist() == pytest.approx([5, 45, 85])
    assert (data["least"] <= data["mean"]).all() and (data["mean"] <= data["most"]).all()


def test_gates_are_drawn_only_where_there_are_some():
    titles = [block.title for block in everything()]
    assert "Strongest sink, times the gate" in titles
    rows = [row | {"gated_sink": None} for row in pretrain_rows.training_outliers()]
    assert "Strongest sink, times the gate" not in [b.title for b in pretraining(found(training_outliers=rows))]


def test_one_training_without_a_name_of_a_recipe_is_drawn_too():
    rows = [row | {"name": "training"} for row in pretrain_rows.training_outliers()[:6]]
    blocks = pretraining(found(training_outliers=rows))
    assert len(blocks) == 7 and "training" in blocks[0].alt


def test_nothing_says_nothing():
    assert pretraining(found()) == []


def test_the_last_look_is_of_the_worst_layer():
    looks = {
        row["name"]: row for row in last_looks(table("training_outliers").frame(pretrain_rows.training_outliers()))
    }
    look = looks["llama default, seed 1"]
    assert look["step"] == 20 and look["ratio"] == (21 * 2 + 1) / 0.5 and look["start_ratio"] == 21 / 0.5
    assert look["sinks"] == 8 and look["heads"] == 8 and look["kurtosis"] == 23


numbers = st.none() | st.floats() | st.integers(-(2**40), 2**40).map(float)


@given(st.data())
def test_any_table_gives_blocks(data):
    rows = {}
    for name in pretrain_rows.ROWS:
        columns = {
            column: (
                st.none() | st.sampled_from(["a, seed 1", "a, seed 2", "<b>", ""]) if str(kind) == "String"
                else st.none() | st.integers(-3, 9) if str(kind) == "Int64" else numbers
            )
            for column, kind, _ in table(name).columns
        }  # fmt: skip
        rows[name] = data.draw(st.lists(st.fixed_dictionaries(columns), max_size=4))
    for block in pretraining(found(**rows)):
        assert block.title and block.says and block.kind in ("chart", "listing")
