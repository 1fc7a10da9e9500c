"""The sentences on studies: whether BOS or its place matters, and whether sinks move as a text grows."""

import pytest

from monadnock.findings import table
from monadnock.findings.summary import summarise
from monadnock.findings.summary_studies import by_token, kept, listed, next_layer, shown_layer
from tests.report.conftest import manifest  # 6 layers of 4 heads

PLACES = ("at the start", "in the middle", "at the end")


def tables(rows, massive_layer=None, maps=()):
    found = {"inputs": table("inputs").frame(rows), "maps": table("maps").frame(list(maps))}
    if massive_layer is not None:
        found["massive_weights"] = table("massive_weights").frame([{"layer": massive_layer, "rank": 1}])
    return found


def one(name, tokens, massive=(), bos=None, sinks=(), study="bos", layer=2, prompt="p"):
    """Return the rows of an input in one layer; `sinks` has the number of heads for some positions."""
    sinks = dict(sinks)
    return [
        {
            "study": study, "input": name, "prompt": prompt, "layer": layer, "position": place, "token": token,
            "inserted": place == bos, "top1": 5000.0 if place in massive else 1.0, "massive": place in massive,
            "num_sink_heads": sinks.get(place, 0), "attention": 0.5, "uniform": 0.25,
        }
        for place, token in enumerate(tokens)
    ]  # fmt: skip


def said(rows, topic="BOS", **more):
    return dict(summarise(manifest(), tables(rows, **more)).items).get(topic)


def four(*massive):
    """Return the four inputs of the study bos, with the massive positions of each."""
    words = [["a", "."], ["<s>", "a", "."], ["a", "<s>", "."], ["a", ".", "<s>"]]
    names = ["no BOS", *(f"BOS {place}" for place in PLACES)]
    bos = [None, 0, 1, 2]
    return [
        row for name, tokens, at, b in zip(names, words, massive, bos, strict=True) for row in one(name, tokens, at, b)
    ]


@pytest.mark.parametrize(
    ("massive", "verdict"),
    [
        ([[0], [0], [0], [0]], "BOS is massive only at the start. The first token is massive whichever it is."),
        ([[1], [0], [0, 1], [1, 2]], "BOS is massive wherever it stands."),
        ([[0], [0], [0, 1], [0, 2]], "BOS is massive wherever it stands. The first token is massive whichever it is."),
        ([[0], [1], [0], [0]], "BOS is massive nowhere."),
        ([[], [0], [1], []], "BOS is massive only at the start and in the middle."),
        ([[], [], [], [2]], "BOS is massive only at the end."),
    ],
)
def test_whether_it_is_the_token_or_its_place(massive, verdict):
    assert said(four(*massive)).endswith(f". {verdict}")


def test_the_massive_tokens_of_every_input_are_told():
    assert said(four([1], [0], [0, 1], [])) == (
        "massive behind layer 2: no BOS, '.' (|h| 5,000); BOS at the start, '<s>' (|h| 5,000); BOS in the middle, "
        "'a' (|h| 5,000) and '<s>' (|h| 5,000); BOS at the end, none. BOS is massive only at the start and in the "
        "middle."
    )


def test_a_stand_in_is_called_what_it_is():
    rows = [row | {"input": row["input"].replace("BOS", "start token")} for row in four([], [0], [1], [2])]
    assert said(rows).endswith("start token is massive wherever it stands.")


def test_of_several_prompts_the_first_is_told():
    rows = four([], [0], [], []) + [row | {"prompt": "q"} for row in four([], [], [], [])]
    assert said(rows).endswith("BOS is massive only at the start.")


def test_without_studies_nothing_is_told():
    assert said([]) is None
    assert said([], "Length") is None
    assert said(one("BOS", ["a"], study="attention")) is None
    assert said(four([], [], [], []), "Length") is None
    assert said(one("no BOS", ["a"], [0])) == "massive behind layer 2: no BOS, 'a' (|h| 5,000)."


def grown(size, sink, heads, massive, front="no BOS"):
    return one(f"{size}, {front}", ["t"] * size, massive, sinks={sink: heads}, study="length", prompt=str(size))


def test_where_the_strongest_sink_is_as_a_text_grows():
    rows = grown(3, 0, 20, [0]) + grown(10, 4, 9, [0, 4]) + grown(5, 0, 12, [0]) + grown(20, 2, 2, [4])
    assert said(rows, "Length") == (
        "without BOS, from 3 to 20 tokens, the strongest sink is at positions 0 and 4 (20 heads at 3 tokens, 9 heads "
        "at 10 tokens); at 20 tokens there is none; massive behind layer 2: positions 0 and 4."
    )


def test_texts_with_bos_are_told_apart():
    told = said(grown(3, 0, 20, [0]) + grown(4, 0, 1, [], "BOS"), "Length")
    assert told == (
        "without BOS, from 3 to 3 tokens, the strongest sink is at position 0 (20 heads at 3 tokens); massive behind "
        "layer 2: position 0. With BOS in front, from 4 to 4 tokens, no token is a sink of a tenth of the heads; "
        "massive behind layer 2: none."
    )


def test_texts_with_bos_alone():
    assert said(grown(4, 0, 20, [0], "BOS"), "Length").startswith(
        "with BOS in front, from 4 to 4 tokens, the strongest"
    )


def test_the_shown_layer_is_the_middle_one_or_the_massive_one_if_that_is_later():
    assert shown_layer(manifest(), {}) == 2
    assert shown_layer(manifest(), tables([], massive_layer=0)) == 2
    assert shown_layer(manifest(), tables([], massive_layer=4)) == 4
    assert (next_layer(manifest(), 4), next_layer(manifest(), 5)) == (5, 5)


def test_states_are_of_the_shown_layer_attention_of_the_next_and_sinks_of_all():
    rows = [
        row | {"top1": 10.0 * layer, "attention": layer / 10, "massive": layer == 2}
        for layer in range(6)
        for row in one("no BOS", ["a"], sinks={0: layer}, layer=layer)
    ]
    (row,) = by_token(manifest(), tables(rows)).to_dicts()
    assert (row["top1"], row["attention"], row["massive"], row["sinks"]) == (20.0, 0.3, True, 15)


def test_massive_tokens_inserted_ones_and_sinks_of_a_tenth_of_all_heads_are_listed():
    rows = one("BOS at the end", ["a", "b", "c", "d", "<s>"], [1], bos=4, sinks={0: 2, 2: 3})
    found = listed(manifest(), by_token(manifest(), tables(rows)))
    assert found["position"].to_list() == [1, 2, 4]  # 3 of 24 heads are more than a tenth


def test_kept_maps_are_told():
    maps = [{"layer": layer, "head": head} for layer, head in ((0, None), (12, None), (1, None), (12, 3), (12, 3))]
    assert kept(tables([], maps=maps)["maps"]) == "layers 0, 1 and 12, mean over heads; head 3 of layer 12"
    assert kept(tables([])["maps"]) == "none"
