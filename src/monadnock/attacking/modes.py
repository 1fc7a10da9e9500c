"""The modes of attack: what each does to a model with its k foremost targets."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache

import torch

from monadnock import interventions as change
from monadnock.attacking.targets import Aim, Targets
from monadnock.data import Windows
from monadnock.errors import MonadnockError
from monadnock.findings import modes
from monadnock.models import Adapter


@dataclass(frozen=True)
class Setting:
    """What an attack may look at while it is made ready.

    Attributes:
        adapter: the model.
        targets: what can be aimed at.
        windows: the text.
        k: how many targets.
        seed: for what is drawn.
    """

    adapter: Adapter
    targets: Targets
    windows: Windows
    k: int
    seed: int


@dataclass(frozen=True)
class Change:
    """An attack made ready.

    Attributes:
        enter: gives the context manager that changes the model for the time of its block.
        targets: what is changed, in words.
        aim: the layer and expert that are changed, where it is one.
        untouched: how many first layers give what they give in the clean model.
    """

    enter: Callable[[], AbstractContextManager[None]]
    targets: str
    aim: Aim | None = None
    untouched: int = 0


@dataclass(frozen=True)
class Mode:
    """A way to attack.

    Attributes:
        doc: what it does, for lists and docs.
        make: makes an attack ready; refuses what is impossible.
        drawn: whether the seed matters.
        least: smallest k that makes sense.
    """

    doc: str
    make: Callable[[Setting], Change]
    drawn: bool
    least: int


def _rows(setting: Setting, pick: Callable[[Aim], list[int]], *, retain: bool = False) -> Change:
    """Zero the picked rows of every aim, or all others."""
    adapter, aims = setting.adapter, setting.targets.aims
    picked = [(aim, pick(aim)) for aim in aims]
    act = change.retain_rows if retain else change.zero_rows

    def enter() -> AbstractContextManager[None]:
        return _all([act(adapter, aim.layer, rows, expert=aim.expert) for aim, rows in picked])

    said = "; ".join(_place(aim, rows) for aim, rows in picked)
    return Change(enter, said, aims[0] if len(aims) == 1 else None, min(setting.targets.layers))


def _top(setting: Setting) -> Callable[[Aim], list[int]]:
    def pick(aim: Aim) -> list[int]:
        if setting.k > len(aim.rows):
            raise MonadnockError(
                f"k = {setting.k} was asked, but only {len(aim.rows)} rows of layer {aim.layer} are listed; "
                f"name the layer (--layer {aim.layer}) to rank them all."
            )
        return list(aim.rows[: setting.k])

    return pick


def _random(setting: Setting) -> Callable[[Aim], list[int]]:
    width = setting.adapter.intermediate_size
    return lambda aim: change.random_rows(width, setting.k, seed=setting.seed, besides=_top(setting)(aim))


def _entries(setting: Setting, pick: Callable[[Setting, Aim], list[tuple[int, int]]]) -> Change:
    adapter, aim = setting.adapter, _only(setting, "super weights")
    entries = pick(setting, aim)
    said = f"layer {aim.layer}: {' '.join(f'{row},{column}' for row, column in entries)}"
    return Change(lambda: change.scale_weights(adapter, aim.layer, entries, expert=aim.expert), said, aim, aim.layer)


def _super_weights(setting: Setting, aim: Aim) -> list[tuple[int, int]]:
    return _first(setting, list(setting.targets.entries), f"super weights of layer {aim.layer}")


def _other_entries(setting: Setting, aim: Aim) -> list[tuple[int, int]]:
    """Draw entries of W_down, none of which is a listed super weight."""
    width, listed = setting.adapter.intermediate_size, set(setting.targets.entries)
    total = setting.adapter.hidden_size * width
    if setting.k > total - len(listed):
        raise MonadnockError(f"{setting.k} random entries were asked, but W_down of layer {aim.layer} has {total}.")
    random, found = torch.Generator().manual_seed(setting.seed), dict.fromkeys(listed)
    while len(found) < setting.k + len(listed):
        found[divmod(int(torch.randint(total, (), generator=random)), width)] = None
    return list(found)[len(listed) :]


def _gain(setting: Setting, features: list[int]) -> Change:
    adapter = setting.adapter
    norms = gain_norms(adapter)
    said = f"all layers, {' and '.join(norms)}: {' '.join(map(str, features))}"
    return Change(lambda: change.median_gains(adapter, features, norms=norms), said)


def gain_norms(adapter: Adapter) -> list[str]:
    """Return the norms behind attention and FFN; a family without any is a `MonadnockError`."""
    norms = [name for name in ("attn_output", "mlp_output") if name in adapter.family.norms]
    if not norms:
        raise MonadnockError(
            f"Family {adapter.family.model_type} has no norm behind attention or FFN, whose gains could be attacked."
        )
    return norms


def _some_features(setting: Setting) -> list[int]:
    return _first(setting, list(setting.targets.features), "features of h")


def _other_features(setting: Setting) -> list[int]:
    width, listed = setting.adapter.hidden_size, setting.targets.features
    return change.random_rows(width, setting.k, seed=setting.seed, besides=listed)


def _activation(setting: Setting, features: list[int], *, mean: bool = False) -> Change:
    adapter, layer = setting.adapter, _only(setting, "activations").layer

    @cache
    def means() -> dict[int, float]:
        return change.mean_activations(adapter, setting.windows.ids, layer, features)

    def enter() -> AbstractContextManager[None]:
        return change.set_activations(adapter, layer, means() if mean else dict.fromkeys(features, 0.0))

    said = f"layer {layer}, position 0: {' '.join(map(str, features))}"
    if mean:
        said += f" (means over {setting.windows.token_hash[:8]})"
    return Change(enter, said, Aim(layer, None, ()), layer + 1)


def _activation_all(setting: Setting, features: list[int]) -> Change:
    adapter, zeros = setting.adapter, dict.fromkeys(features, 0.0)

    def enter() -> AbstractContextManager[None]:
        return _all([change.set_activations(adapter, layer, zeros) for layer in range(adapter.num_layers)])

    return Change(enter, f"all layers, position 0: {' '.join(map(str, features))}", untouched=1)


def _mask(setting: Setting, *, drawn: bool = False, behind: bool = False) -> Change:
    size, first = setting.windows.ids.shape[1], range(setting.k)
    if setting.k >= size:
        raise MonadnockError(f"k = {setting.k} keys were to be masked, of windows of {size} tokens.")
    positions = change.random_rows(size, setting.k, seed=setting.seed, besides=first) if drawn else list(first)
    adapter, start, where = setting.adapter, 0, "all layers"
    if behind:
        massive = _only(setting, "layers behind").layer
        start, where = massive + 1, f"behind layer {massive}"
        if start == adapter.num_layers:
            raise MonadnockError(f"No layer of {adapter.source.id} lies {where}; masking keys in all is the mode mask.")
    layers = range(start, adapter.num_layers)
    said = f"{where}, positions: {' '.join(map(str, positions))}"
    return Change(lambda: change.mask_keys(adapter, positions, layers=layers), said, untouched=start)


def _prefix(setting: Setting) -> Change:
    adapter, size = setting.adapter, setting.windows.ids.shape[1]
    limit = adapter.context_length
    if limit is not None and setting.k + size > limit:
        raise MonadnockError(
            f"k = {setting.k} tokens in front of windows of {size} are more than the {limit} that "
            f"{adapter.source.id} sees; give a smaller --length."
        )
    tokens = [setting.targets.start_token] * setting.k
    return Change(lambda: change.prefix_tokens(adapter, tokens), f"token ids: {' '.join(map(str, tokens))}")


_MADE: dict[str, tuple[Callable[[Setting], Change], bool, int]] = {  # how, whether the seed matters, least k
    "zero": (lambda s: _rows(s, _top(s)), False, 1),
    "retain": (lambda s: _rows(s, _top(s), retain=True), False, 0),
    "random": (lambda s: _rows(s, _random(s)), True, 1),
    "super": (lambda s: _entries(s, _super_weights), False, 1),
    "super-random": (lambda s: _entries(s, _other_entries), True, 1),
    "gain": (lambda s: _gain(s, _some_features(s)), False, 1),
    "gain-random": (lambda s: _gain(s, _other_features(s)), True, 1),
    "activation-zero": (lambda s: _activation(s, _some_features(s)), False, 1),
    "activation-random": (lambda s: _activation(s, _other_features(s)), True, 1),
    "activation-mean": (lambda s: _activation(s, _some_features(s), mean=True), False, 1),
    "activation-all": (lambda s: _activation_all(s, _some_features(s)), False, 1),
    "activation-all-random": (lambda s: _activation_all(s, _other_features(s)), True, 1),
    "mask": (_mask, False, 1),
    "mask-random": (lambda s: _mask(s, drawn=True), True, 1),
    "mask-behind": (lambda s: _mask(s, behind=True), False, 1),
    "mask-behind-random": (lambda s: _mask(s, drawn=True, behind=True), True, 1),
    "prefix": (_prefix, False, 1),
}
MODES: dict[str, Mode] = {name: Mode(doc, *_MADE[name]) for name, doc in modes.MODES.items()}


def _first(setting: Setting, known: list, what: str) -> list:
    if setting.k > len(known):
        raise MonadnockError(f"k = {setting.k} was asked, but the run lists {len(known)} {what}.")
    return known[: setting.k]


def _only(setting: Setting, what: str) -> Aim:
    if len(setting.targets.aims) > 1:
        raise MonadnockError(f"The {what} of one layer are attacked at a time; name one layer, not several.")
    return setting.targets.aims[0]


def _place(aim: Aim, rows: list[int]) -> str:
    expert = "" if aim.expert is None else f" expert {aim.expert}"
    return f"layer {aim.layer}{expert}: {' '.join(map(str, rows))}"


@contextmanager
def _all(managers: list[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield
