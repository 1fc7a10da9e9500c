"""Sensitivity, patterns and compression in sentences, from tables written by hand."""

from monadnock.findings import table
from monadnock.findings.summary_compress import compression, in_words, matrices_told, patterns, sensitivity

SETTING = {"bits": 3, "group": None, "damping": 0.01, "data": "8 x 64"}


def matrix(layer, module, kind="plain", **values):
    row = {"layer": layer, "module": module, "kind": kind, "num_tokens": 512, "relative": 0.1, "top_1e3": 0.2}
    return row | SETTING | values


def head(layer, module, number, kind="compensated", score=4.0, **values):
    place = {"pattern": "attention_head", "axis": "column", "head": number, "score": score, "found": True}
    return {"layer": layer, "module": module, "kind": kind} | place | SETTING | values


def test_a_matrix_is_told_once_for_each_setting_with_patterns_of_one_kind():
    losses = [
        matrix(1, "o", relative=0.3),
        matrix(1, "o", "compensated", relative=0.05),
        matrix(1, "o", bits=4, relative=0.6, group=16),
        matrix(0, "up", num_tokens=0, relative=None, top_1e3=None),
    ]
    found = [head(1, "o", 2), head(1, "o", 5, "plain", score=9.0), head(1, "o", 7, bits=4, group=16)]
    told = matrices_told(
        {"sensitivity": table("sensitivity").frame(losses), "patterns": table("patterns").frame(found)}
    )
    assert [(each.plain, each.compensated) for each in told] == [("60%", ""), ("30%", "5.00%"), ("", "")]
    assert [each.patterns for each in told] == ["head 7 (4x)", "head 2 (4x)", "no token came here"]
    assert len({each.matrix for each in told}) == 3 and told[0].matrix.startswith("1 o (4 bits, group 16, damping")


def test_one_setting_needs_no_name():
    (told,) = matrices_told({"sensitivity": table("sensitivity").frame([matrix(1, "down", expert=3)])})
    assert told.matrix == "1 down 3" and told.patterns == ""


def test_words_name_the_strongest_first_and_count_the_rest():
    rows = [head(0, "q", number, score=number) for number in range(2, 7)]
    assert in_words(rows) == "heads 6, 5, 4 and 2 more (6x)"


def test_summaries_name_the_worst_and_count_by_module():
    losses = table("sensitivity").frame([matrix(layer, "o", relative=layer / 10) for layer in range(4)])
    assert "o of layer 3 (30.0%), o of layer 2 (20.0%) and o of layer 1 (10.0%)" in sensitivity(
        None, {"sensitivity": losses}
    )
    found = table("patterns").frame([head(0, "o", 1), head(0, "o", 2, found=False), head(1, "q", 0, found=False)])
    assert "attention head in 1 of 2 (o 1)" in patterns(None, {"patterns": found})


def test_compressors_are_told_by_text_the_best_first():
    rows = [
        {"mode": "compress", "metric": "perplexity", "method": name, "data": data, "value": value, "baseline": 13.0}
        for name, data, value in (("a", "one", 20.0), ("b", "one", 14.0), ("a", "two", 30.0))
    ]
    told = compression(None, {"effects": table("effects").frame(rows)})
    assert told == "perplexity 13 as it is; b 14 and a 20. On another text: perplexity 13 as it is; a 30."
