"""The summary says in sentences what the tables hold, whatever the tables hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monadnock.findings import TABLES, Run, table
from monadnock.findings.summary import Summary, _ranges, summarise
from monadnock.findings.words import listed
from tests.report.conftest import HOSTILE, manifest, rows


def sentence(topic, facts=None, **tables):
    """Return what the summary says on a topic, or None."""
    frames = {name: table(name).frame(rows) for name, rows in tables.items()}
    return dict(summarise(facts or manifest(), frames).items).get(topic)


def weights(*magnitudes, massive, expert=None):
    return [
        {"layer": 4, "expert": expert, "rank": i + 1, "feature": 70 + i, "magnitude": m, "massive": i < massive}
        for i, m in enumerate(magnitudes)
    ]


def heads(*sinks):
    """Return ten heads; sinks are (layer, position, token class)."""
    found = [
        {"layer": a, "head": i, "first_key_mass": 0.8 * (p == 0), "sink_mass": 0.8, "sink_position": p,
         "sink_token_class": c, "sink": True}
        for i, (a, p, c) in enumerate(sinks)
    ]  # fmt: skip
    return found + [{"layer": 9, "head": i, "sink_mass": 0.1, "sink": False} for i in range(10 - len(sinks))]


def test_without_tables_there_is_the_model_alone():
    (item,) = summarise(manifest(), {}).items
    assert item[0] == "Model"
    assert "llama family, 6 layers, 4 heads, 123,456 parameters, float32" in item[1]
    assert "4 x 128 tokens of <i>topics</i>, BOS '<s>' in front." in item[1]
    assert sentence("Model", manifest(bos=False)).endswith("no BOS in front.")


def test_the_massive_layer():
    said = sentence("Massive layer", massive_weights=weights(3064.8, 1118.8, 10.82, massive=2))
    assert (
        said == "layer 4, rows 70 (|x_down| 3,065) and 71 (|x_down| 1,119) of W_up and W_gate; the next row has 10.8."
    )
    said = sentence("Massive layer", massive_weights=weights(500.0, 2.0, massive=1, expert=3))
    assert said == "layer 4, expert 3, row 70 (|x_down| 500) of W_up and W_gate; the next row has 2."
    assert "the next" not in sentence("Massive layer", massive_weights=weights(500.0, massive=1))


def test_no_massive_layer():
    said = sentence("Massive layer", massive_weights=weights(3.64, 2.0, massive=0, expert=2))
    assert said.startswith("none: no entry of x_down is massive when '<s>' is fed alone")
    assert said.endswith("the largest is 3.64 in row 70 of layer 4, expert 2.")


def test_features_tell_their_stages_in_order():
    lives = [
        {"feature": 507, "birth": 11, "death": None, "peak_value": 24926.2, "massive": True},
        {"feature": 507, "birth": 1, "death": 9, "peak_value": 769.3, "massive": False},
        {"feature": 9, "birth": 2, "death": 3, "peak_value": -150.0, "massive": False},
    ]
    said = sentence("Features", lifecycles=lives)
    assert said.endswith("507 (layers 1 to 8, up to 769, below the bound; from layer 11 on, up to 24,926).")
    assert sentence("Features", lifecycles=lives[1:]) == (
        "no residual feature of the start token is massive in any layer."
    )


def test_tokens_are_counted_by_place():
    row = {"stream": "residual", "layer": 1, "sequence": 0, "position": 0, "token": "<s>", "token_class": "start"}
    row |= {"feature": 3, "value": 9000.0, "criterion": "sun2024", "overflows_float16": False}
    more = [
        row,
        row | {"layer": 2, "feature": 4},  # the same place again
        row | {"sequence": 1},
        row | {"sequence": 1, "position": 7, "token": "\n", "token_class": "weak"},
        row | {"position": 8, "token": "no", "criterion": None},
        row | {"position": 9, "token": "no", "stream": "down_proj_input"},
    ]
    said = sentence("Tokens", activations=more)
    assert said == "massive activations in the residual sit on '<s>' (start) 2x and '\\n' (blank) (weak) 1x."
    assert "overflow float16" in sentence("Tokens", activations=[row | {"overflows_float16": True}])
    none = [row | {"criterion": None}]
    assert sentence("Tokens", activations=none) == "no token carries a massive activation in the residual."
    many = [row | {"position": position, "feature": position} for position in range(32)]  # as many as are listed
    assert "at least 32x" in sentence("Tokens", activations=many)
    assert sentence("Tokens", activations=[row | {"stream": "query"}]) is None  # nobody looked at the residual


def test_sinks_are_parted_by_where_they_are():
    start, weak, dot = (5, 0, "start"), (2, 6, "weak"), (3, 4, "delimiter")
    said = sentence("Attention sinks", heads=heads(start, (6, 0, "start"), weak, (3, 6, "weak"), dot))
    assert said.startswith("5 of 10 heads (50%) have a sink")
    assert "2 of them on position 0 in layers 5 to 6; 3 on a later token (mostly weak), in layers 2 to 3." in said
    said = sentence("Attention sinks", heads=heads(start))
    assert "all on position 0 in layers 5." in said
    assert "later" not in said
    assert "no" in sentence("Attention sinks", heads=heads())


def test_a_sink_that_few_queries_see_still_counts_as_one_on_position_0():
    local = heads((5, 0, "start"), (6, 0, "start"))
    local[0] |= {"first_key_mass": 0.2}  # half of the queries do not see position 0
    assert "all on position 0 in layers 5 to 6." in sentence("Attention sinks", heads=local)


def test_nonfinite_super_weights_gains_eight_bits_and_router():
    broken = [
        {"where": "weight", "layer": 1, "name": "mlp.up_proj.weight", "count": 1234},
        {"where": "residual", "layer": None, "name": "text", "count": 1},
    ]
    said = sentence("Broken values", nonfinite=broken)
    assert said.startswith("NaN or infinity in 2 places, first in weight mlp.up_proj.weight of layer 1 (1,234 entries)")
    assert "layer" not in sentence("Broken values", nonfinite=broken[1:]).partition(";")[0]
    assert sentence("Broken values", nonfinite=[]) is None

    super_weight = {"layer": 11, "row": 507, "column": 1229, "weight": 5.8757, "contribution": 18008.2}
    assert sentence("Super weights", super_weights=[super_weight]) == (
        "W_down[507, 1229] of layer 11 is 5.88 and puts 18,008 into feature 507."
    )
    assert sentence("Super weights", super_weights=[]) is None

    gain = {"layer": 2, "norm": "mlp_output", "feature": 163, "gain": 525.0, "ratio": 30.0, "massive_feature": True}
    said = sentence("Norm gains", norm_gains=[gain, gain | {"layer": 3, "gain": 789.0, "ratio": 60.0}])
    assert "at feature 163, mlp_output of layer 3 has 789, 60 times its median" in said
    for other in ({"norm": "attn_input"}, {"massive_feature": False}, {"ratio": 9.0}):
        assert sentence("Norm gains", norm_gains=[gain | other]) is None

    errors = [0.117, 0.083, 0.03, float("nan")]
    matrices = [{"layer": i, "module": "gate", "axis": "tensor", "w8_error": e} for i, e in enumerate(errors)]
    matrices += [{"layer": 7, "module": "up", "axis": "row", "w8_error": 0.9}]
    said = sentence("8-bit weights", weights=matrices)
    assert "gate of layer 0 (11.7%), gate of layer 1 (8.3%) and gate of layer 2 (3.0%)" in said
    assert said.endswith("the median module loses 8.3%.")

    routed = [{"layer": 4, "expert": e, "input": "start", "probability": p} for e, p in enumerate([0.1, 0.7, 0.2])]
    routed += [{"layer": 4, "expert": 2, "input": "text", "probability": 0.9}]
    assert sentence("Router", router=routed, massive_weights=weights(500.0, massive=1)) == (
        "in layer 4 the start token goes to expert 1 with probability 0.70."
    )
    assert sentence("Router", router=[], massive_weights=weights(500.0, massive=1)) is None


@pytest.mark.parametrize("kept", ["all", *TABLES])
@pytest.mark.parametrize("filled", [True, False])
def test_any_table_alone_filled_or_empty_gives_sentences(kept, filled):
    frames = {name: table(name).frame(rows(name) if filled else None) for name in TABLES if kept in ("all", name)}
    items = summarise(manifest(), frames).items
    assert items[0][0] == "Model"
    assert all(text.endswith(".") and "  " not in text and "None" not in text for _, text in items)


@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranges_say_exactly_the_layers(layers):
    said = _ranges([*layers, *layers])
    back = []
    for part in said.split(", "):
        first, _, last = part.partition(" to ")
        back += range(int(first), int(last or first) + 1)
    assert back == sorted(layers)
    assert said.count(",") == sum(layer - 1 not in layers for layer in layers) - 1


def test_lists():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_text_is_escaped_in_html(tmp_path, token):
    row = {"stream": "residual", "layer": 1, "sequence": 0, "position": 0, "token": token, "token_class": "<u>"}
    frame = table("activations").frame([row | {"criterion": "sun2024", "overflows_float16": False}])
    run = Run.write(tmp_path / "run", manifest(start_token="<img onerror=x>"), {"activations": frame})
    html = run._repr_html_()
    assert html == run.summary().html()
    text = html.replace("<table>", "").replace("</table>", "")
    for tag in ("<tr>", "</tr>", "</th>", "</td>", "<td style='text-align:left'>"):
        text = text.replace(tag, "")
    text = text.replace("<th style='text-align:left;vertical-align:top'>", "")
    assert "<" not in text
    assert ">" not in text
    assert "\n" not in text
    assert "\x1b" not in html, "control characters of tokens are written out"


def test_a_summary_reads_as_text(run):
    summary = run.summary()
    assert str(summary) == "\n".join(f"{topic}: {text}" for topic, text in summary.items)
    assert summary.sentences == [text for _, text in summary.items]
    assert repr(run) == f"Run({str(run.path)!r}, model={run.manifest.model.id!r})\n{summary}"
    assert Summary(()).html() == "<table></table>"
