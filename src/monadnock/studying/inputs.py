"""What each study feeds: published sentences exactly as printed, and BOS put where it never stands in a text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from monadnock.data.sentences import END_OF_SENTENCE
from monadnock.errors import MonadnockError

SENTENCES = "Summer is warm. Winter is cold."  # oh2024, figure 2
LENGTHS = {  # an2025, appendix D.3
    "1 sentence": "Summer is warm!",
    "2 sentences": "Summer is warm! Winter is cold.",
    "3 sentences": "Summer is warm! Winter is cold. Spring is good.",
    "3 sentences, modified": "Summer is warm! Winter is cold! Spring is good.",
}
LONGER = (8, 16, 32)  # sentences of our own, behind the third of these
MORE = (
    "Autumn is wet. The rain falls on the hills. A farmer brings in the hay. Birds leave for the south. "
    "The river is high. Children walk to school. We light a fire at home. The nights grow long. Snow covers the road. "
    "A fox looks for food. The lake is frozen. People wear warm coats. In March the ice melts. The first flowers open. "
    "Bees fly over the fields. It is light until late. The market is full of fruit. Our neighbour paints his door. "
    "A boat lies on the sand. The sea is calm. Clouds come from the west. At noon it is hot. Nobody is in the street. "
    "The dog sleeps under a tree. Toward evening the wind turns. We hear thunder far away. Then the storm is here. "
    "After it the air is clear. A new year begins."
)
LONGEST = 256  # tokens: a map has a row for each pair of them


@dataclass(frozen=True)
class Input:
    """One input of a study.

    Attributes:
        study: the kind of study.
        name: what is told apart, as `BOS in the middle`.
        prompt: its text, without what the study puts between.
        ids: token ids.
        inserted: position of BOS; None where there is none.
        number: its place among the inputs of its study.
    """

    study: str
    name: str
    prompt: str
    ids: tuple[int, ...]
    inserted: int | None
    number: int


@dataclass(frozen=True)
class Mark:
    """The token that a study puts in front of a text or into it: BOS, or what stands in for it."""

    token_id: int
    name: str


def find_mark(tokenizer: Any, start_token_id: int | None) -> Mark:
    """Return BOS; where the tokenizer has none, the run's start token, which is then called so in the inputs' names.

    Args:
        tokenizer: the model's tokenizer.
        start_token_id: the run's start token; None if that is not known yet.
    """
    if tokenizer.bos_token_id is not None:
        return Mark(tokenizer.bos_token_id, "BOS")
    return Mark(0 if start_token_id is None else start_token_id, "start token")


def _bos(tokenizer: Any, prompt: str | None, bos: bool | None, mark: Mark) -> list[Input]:
    """Put BOS nowhere, at the start, behind the first sentence, at the end (oh2024, figure 2 and appendix C)."""
    if bos is not None:
        raise MonadnockError("The study bos puts BOS in four places itself; leave --bos and --no-bos out.")
    prompt = SENTENCES if prompt is None else prompt
    ids, middle = _tokens(tokenizer, prompt)
    places = {"at the start": 0, "in the middle": middle, "at the end": len(ids)}
    found = [Input("bos", f"no {mark.name}", prompt, ids, None, 0)]
    for number, (where, place) in enumerate(places.items(), 1):
        given = (*ids[:place], mark.token_id, *ids[place:])
        found.append(Input("bos", f"{mark.name} {where}", prompt, given, place, number))
    return found


def _length(tokenizer: Any, prompt: str | None, bos: bool | None, mark: Mark) -> list[Input]:
    """Make the text longer (an2025, appendix D.3), without BOS and with it."""
    if prompt is not None:
        raise MonadnockError("The study length has its own sentences; leave --prompt out, or study bos or attention.")
    longer = [LENGTHS["3 sentences"], *MORE.replace(". ", ".\n").splitlines()]
    prompts = LENGTHS | {f"{count} sentences": " ".join(longer[: count - 2]) for count in LONGER}
    fronts = [False, True][: 1 + (tokenizer.bos_token_id is not None)] if bos is None else [_front(tokenizer, bos)]
    return [
        _fronted("length", f"{name}, ", tokenizer, text, mark if front else None, number + front * len(prompts))
        for front in fronts
        for number, (name, text) in enumerate(prompts.items())
    ]


def _attention(tokenizer: Any, prompt: str | None, bos: bool | None, mark: Mark) -> list[Input]:
    """Take one text, with BOS in front if the tokenizer has one."""
    front = _front(tokenizer, bos)
    prompt = SENTENCES if prompt is None else prompt
    return [_fronted("attention", "", tokenizer, prompt, mark if front else None, int(front))]


Maker = Callable[[Any, str | None, bool | None, Mark], list[Input]]
KINDS: dict[str, Maker] = {"bos": _bos, "length": _length, "attention": _attention}


def make_inputs(
    kind: str, tokenizer: Any, prompt: str | None, bos: bool | None, mark: Mark, limit: int | None = None
) -> list[Input]:
    """Make the inputs of a kind of study.

    Args:
        kind: bos, length or attention.
        tokenizer: the model's tokenizer.
        prompt: a text in place of the published one.
        bos: whether BOS stands in front, where the kind leaves that open.
        mark: what is put in as BOS.
        limit: how many tokens the model sees, if that is known.

    Raises:
        MonadnockError: if the kind takes no such prompt or BOS, or an input has no token, more than 256, or more than
            the model sees.
    """
    inputs = KINDS[kind](tokenizer, prompt, bos, mark)
    longest = max(inputs, key=lambda each: len(each.ids))
    for what, most in (("a map of attention has at most", LONGEST), ("the model sees at most", limit or LONGEST)):
        if len(longest.ids) > most:
            do = "study bos or attention" if kind == "length" else "give a shorter prompt"
            raise MonadnockError(f"The input {longest.name!r} has {len(longest.ids)} tokens, {what} {most}; {do}.")
    return inputs


def check_prompt(prompt: str | None) -> None:
    """Refuse a prompt without a word in it, or that is no Unicode text, before anything slow happens."""
    if prompt is None:
        return
    if not prompt.strip():
        raise MonadnockError("The prompt is empty; give one sentence or more.")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MonadnockError("The prompt is not UTF-8 text; give it as UTF-8.") from error


def _front(tokenizer: Any, bos: bool | None) -> bool:
    has_one = tokenizer.bos_token_id is not None
    if bos and not has_one:
        raise MonadnockError("A BOS token was asked, but this tokenizer has none; use --no-bos.")
    return has_one if bos is None else bos


def _fronted(study: str, name: str, tokenizer: Any, prompt: str, mark: Mark | None, number: int) -> Input:
    ids, _ = _tokens(tokenizer, prompt)
    if mark is None:
        return Input(study, f"{name}no BOS", prompt, ids, None, number)
    return Input(study, f"{name}BOS", prompt, (mark.token_id, *ids), 0, number)


def _tokens(tokenizer: Any, prompt: str) -> tuple[tuple[int, ...], int]:
    """Return the token ids of a prompt, and how many of them its first sentence has; of a single one, a half.

    The prompt is tokenised once, so that the tokens of all inputs are the same but for BOS.
    """
    given = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False)
    ids = tuple(given["input_ids"])
    if not ids:
        raise MonadnockError(f"The prompt {prompt!r} has no tokens; give one sentence or more.")
    end = END_OF_SENTENCE.search(prompt)
    if end is None or not prompt[end.end() :].strip():
        return ids, len(ids) // 2
    if tokenizer.is_fast:
        return ids, sum(start < end.end() for start, _ in given["offset_mapping"])
    first = tokenizer(prompt[: end.end()], add_special_tokens=False, verbose=False)["input_ids"]
    return ids, min(len(first), len(ids))
