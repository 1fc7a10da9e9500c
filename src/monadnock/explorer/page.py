"""Puts a map's page together and writes it in one step."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monadnock.errors import MonadnockError
from monadnock.explorer import colours, marks, words
from monadnock.explorer.pools import OVERVIEW, as_bytes, finest
from monadnock.explorer.tiles import SIDE, bits_for, packed, tiles
from monadnock.explorer.weights import LEVELS, Weights, read_weights
from monadnock.findings.pages import write_file
from monadnock.findings.run import Run
from monadnock.findings.words import printable

ROOM = 98_000_000  # bytes that a page may have for weights to keep more bits
LARGE = 100_000_000  # bytes of a page from which on browsers are slow to open it
_ARRAYS, _TILES = "<!--arrays-->", "<!--tiles-->"  # where they belong in the template; no escaped text holds either


def write_map(run: Run, name: str, path: str | Path | None = None) -> Path:
    """Write the page of one map, by default to `maps/NAME.html` in the run folder, and return its path.

    The page holds all it needs, and opens from disk without a network. It appears whole or not at all.

    Args:
        run: with the map, as `monadnock sensitivity --map` writes it.
        name: of the map, as map-011-o.
        path: file to write.

    Raises:
        MonadnockError: if there is no such map, it is damaged, or the page cannot be written.

    Example:
        >>> write_map(Run.open("demo"), "map-011-o")  # doctest: +SKIP
        PosixPath('demo/maps/map-011-o.html')
    """
    weights, facts = read_weights(run, name)
    path = run.path / "maps" / f"{name}.html" if path is None else Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MonadnockError(f"The map could not be written to {path}: {error.strerror or error}.") from error
    return write_file(path, _page(run, weights, facts), what="map", verb="map")


def _page(run: Run, weights: Weights, facts: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the page piece by piece: what is seen first, then the tiles."""
    pools = {each: as_bytes(values) for each, values in finest(weights).items()}
    arrays = {
        f"pool-{each}-{side}": packed(codes.tobytes())
        for each, found in pools.items()
        for side, codes in found.levels.items()
    }
    for each in ("step", "scale", "zero", "plain", "compensated"):
        arrays[f"array-{each}"] = packed(getattr(weights, each).astype("<f4").tobytes())
    bits = bits_for(weights.codes, ROOM - sum(map(len, arrays.values())))
    about = {
        "shape": weights.codes.shape,
        "side": SIDE,
        "overview": OVERVIEW,
        "bits": weights.bits,
        "group": weights.group,
        "codeBits": bits,
        "codeStep": LEVELS / (2**bits - 1),
        "pools": {each: {"low": found.low, "high": found.high} for each, found in pools.items()},
        "sides": sorted(pools["plain"].levels),
        "palette": colours.palette(),
        "scales": {each: {"all": colours.FIXED[each], "one": colours.fitted(found)} for each, found in pools.items()},
        "heads": marks.heads(facts),
    }
    front, _, rest = _render(run, weights, facts, about).partition(_ARRAYS)
    between, _, end = rest.partition(_TILES)
    yield front.encode()
    yield from (_element(key, data) for key, data in arrays.items())
    yield between.encode()
    yield from (_element(f"tile-{row}-{column}", data) for (row, column), data in tiles(weights.codes, bits))
    yield end.encode()


def _element(key: str, data: bytes) -> bytes:
    """Return data that the page's script looks up by its key; base64 has no character that HTML knows."""
    return b'<script type="text/plain" id="%b">%b</script>\n' % (key.encode(), data)


def _render(run: Run, weights: Weights, facts: Mapping[str, str], about: dict[str, Any]) -> str:
    """Return the page without its arrays and tiles."""
    environment = Environment(
        loader=PackageLoader("monadnock.explorer", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = Markup(environment.get_template("map.js.j2").render())
    found = marks.patterns(run, facts, weights.codes.shape)
    groups: dict[str, list[tuple[int, marks.Pattern]]] = {}
    for place, pattern in enumerate(found or ()):
        groups.setdefault(pattern.title, []).append((place, pattern))
    about["places"] = [{"box": each.box, "kind": each.kind, "lines": each.lines} for each in found or ()]
    return environment.get_template("map.html.j2").render(
        title=words.title(facts),
        facts=words.told(run.manifest, weights, facts, about["codeBits"]),
        bits=weights.bits,
        heads=about["heads"],
        looked=found is not None,
        groups=groups,
        about=_island(about),
        script=script,
        allowed=f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
    )


def _island(data: dict[str, Any]) -> Markup:
    """Return JSON that may stand in a script element: nothing in it can end the element or start another."""
    dump = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        dump = dump.replace(char, f"\\u{ord(char):04x}")
    return Markup(dump)
