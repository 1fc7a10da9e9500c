"""What a study feeds: published sentences as printed, BOS where it belongs, and no word lost."""

import pytest

from monadnock import MonadnockError
from monadnock.studying.inputs import KINDS, LENGTHS, SENTENCES, Mark, find_mark, make_inputs
from tests.words import BOS_ID, word_tokenizer

TOKENIZER = word_tokenizer()
BOS = Mark(BOS_ID, "BOS")


def made(kind, prompt=None, bos=None, tokenizer=TOKENIZER, mark=BOS):
    return {each.name: each for each in make_inputs(kind, tokenizer, prompt, bos, mark)}


def words(each):
    return TOKENIZER.convert_ids_to_tokens(list(each.ids))


def test_bos_stands_nowhere_at_the_start_behind_the_first_sentence_and_at_the_end():
    found = made("bos", "w1 w2 w3 . w4 .")
    assert {name: words(each) for name, each in found.items()} == {
        "no BOS": ["w1", "w2", "w3", "<unk>", "w4", "<unk>"],
        "BOS at the start": ["<s>", "w1", "w2", "w3", "<unk>", "w4", "<unk>"],
        "BOS in the middle": ["w1", "w2", "w3", "<unk>", "<s>", "w4", "<unk>"],
        "BOS at the end": ["w1", "w2", "w3", "<unk>", "w4", "<unk>", "<s>"],
    }
    assert [each.inserted for each in found.values()] == [None, 0, 4, 6]
    assert [each.number for each in found.values()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("prompt", "middle"),
    [
        ("w1 w2. w3", 2),
        ("w1 w2! w3. w4", 2),
        ("w1 3.14 w2? w3", 3),
        ('w1 "w2." w3', 2),
        ("w1 w2... w3 w4", 2),
        ("w1 w2 w3 w4", 2),  # no sentence ends: behind half of the tokens
        ("w1 w2 w3 w4 w5.", 2),
        ("w1", 0),
    ],
)
def test_the_middle_is_behind_the_first_sentence(prompt, middle):
    assert made("bos", prompt)["BOS in the middle"].inserted == middle


def test_tokenizers_that_tell_no_places_give_the_same_middle():
    class Slow:
        is_fast, bos_token_id = False, BOS_ID

        def __call__(self, text, **options):
            assert not options.pop("return_offsets_mapping", False)
            return {"input_ids": TOKENIZER(text, **options)["input_ids"]}

    prompt = "w1 w2 w3. w4"
    assert made("bos", prompt, tokenizer=Slow()) == made("bos", prompt)


def test_the_published_sentences_are_exactly_those():
    assert SENTENCES == "Summer is warm. Winter is cold."
    assert list(LENGTHS.values()) == [
        "Summer is warm!",
        "Summer is warm! Winter is cold.",
        "Summer is warm! Winter is cold. Spring is good.",
        "Summer is warm! Winter is cold! Spring is good.",
    ]
    assert {each.prompt for each in made("bos").values()} == {SENTENCES}
    assert [each.prompt for each in made("attention").values()] == [SENTENCES]
    prompts = {name.removesuffix(", no BOS"): each.prompt for name, each in made("length", bos=False).items()}
    assert {name: prompts[name] for name in LENGTHS} == LENGTHS


@pytest.mark.parametrize("count", [8, 16, 32])
def test_longer_texts_go_on_from_the_published_one(count):
    prompt = made("length")[f"{count} sentences, no BOS"].prompt
    assert prompt.startswith(LENGTHS["3 sentences"] + " Autumn")
    assert sum(prompt.count(mark) for mark in ".!") == count
    assert prompt.endswith(".")


def test_lengths_come_without_bos_and_with_it_unless_one_is_asked():
    both, without, front = made("length"), made("length", bos=False), made("length", bos=True)
    assert both == without | front
    assert [each.inserted for each in without.values()] == [None] * 7
    assert [each.ids[0] for each in front.values()] == [BOS_ID] * 7
    assert sorted(each.number for each in both.values()) == list(range(14))
    for name, each in front.items():
        assert each.ids[1:] == without[name.replace("BOS", "no BOS")].ids


def test_attention_takes_one_text_with_bos_in_front_if_there_is_one():
    (one,) = made("attention", "w1 w2").values()
    assert (one.name, words(one), one.inserted) == ("BOS", ["<s>", "w1", "w2"], 0)
    (one,) = made("attention", "w1 w2", bos=False).values()
    assert (one.name, words(one), one.inserted) == ("no BOS", ["w1", "w2"], None)


def test_without_a_bos_token_the_runs_start_token_stands_in_and_is_called_so():
    tokenizer = word_tokenizer(bos=False)
    mark = find_mark(tokenizer, 7)
    found = made("bos", "w1 w2", tokenizer=tokenizer, mark=mark)
    assert list(found) == [
        "no start token",
        *(f"start token {at}" for at in ("at the start", "in the middle", "at the end")),
    ]
    assert found["start token in the middle"].ids[1] == 7
    assert [each.name for each in made("attention", "w1", tokenizer=tokenizer, mark=mark).values()] == ["no BOS"]
    assert len(made("length", tokenizer=tokenizer, mark=mark)) == 7
    assert find_mark(TOKENIZER, 7) == BOS


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("bos", {"bos": True}, "puts BOS in four places itself"),
        ("length", {"prompt": "w1"}, "The study length has its own sentences"),
        (
            "bos",
            {"prompt": "w1 " * 256},
            "The input 'BOS at the start' has 257 tokens, a map of attention has at most 256",
        ),
        ("attention", {"prompt": "w1 " * 300, "bos": False}, "has 300 tokens"),
        ("attention", {"prompt": "\u200b"}, "has no tokens"),
        ("attention", {"bos": True, "tokenizer": word_tokenizer(bos=False)}, "this tokenizer has none; use --no-bos"),
    ],
)
def test_what_cannot_be_fed_is_refused(kind, options, told):
    if options.get("prompt") == "\u200b":
        options = options | {"tokenizer": Silent()}
    with pytest.raises(MonadnockError, match=told):
        made(kind, **options)


class Silent:
    """A tokenizer that drops what it does not know."""

    is_fast, bos_token_id = False, BOS_ID

    def __call__(self, text, **options):
        return {"input_ids": []}


def test_no_more_than_the_model_sees():
    assert len(make_inputs("bos", TOKENIZER, "w1 w2 w3", None, BOS, 4)) == 4
    with pytest.raises(
        MonadnockError, match="'BOS at the start' has 4 tokens, the model sees at most 3; give a shorter"
    ):
        make_inputs("bos", TOKENIZER, "w1 w2 w3", None, BOS, 3)
    with pytest.raises(MonadnockError, match="the model sees at most 100; study bos or attention"):
        make_inputs("length", TOKENIZER, None, None, BOS, 100)


def test_the_longest_inputs_that_fit():
    assert len(made("attention", "w1 " * 255)["BOS"].ids) == 256


def test_every_kind_has_inputs():
    assert set(KINDS) == {"bos", "length", "attention"}
    assert all(made(kind) for kind in KINDS)
