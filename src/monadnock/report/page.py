"""Puts the page together from a run and writes it in one step."""

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import polars as pl
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.plotting import figure
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monadnock.errors import MonadnockError
from monadnock.findings.manifest import Manifest
from monadnock.findings.pages import write_file
from monadnock.findings.run import Run
from monadnock.findings.schema import TABLES
from monadnock.report import (
    charts_activations,
    charts_attacks,
    charts_attention,
    charts_bands,
    charts_chain,
    charts_compress,
    charts_consistency,
    charts_depth,
    charts_first_token,
    charts_judged,
    charts_lens,
    charts_life,
    charts_massive,
    charts_patterns,
    charts_prescribe,
    charts_pretrain,
    charts_readings,
    charts_rotary,
    charts_router,
    charts_selecting,
    charts_sensitivity,
    charts_similarity,
    charts_sinks,
    charts_studies,
    charts_texts,
    charts_tokens,
    charts_trace,
    charts_train,
    charts_weights,
    facts,
    text,
)
from monadnock.report.parts import Block, Findings, Section
from monadnock.report.picker import Picker, as_json

SECTIONS: tuple[Section, ...] = (
    *charts_activations.SECTIONS,
    *charts_massive.SECTIONS,
    *charts_trace.SECTIONS,
    *charts_life.SECTIONS,
    *charts_chain.SECTIONS,
    *charts_attacks.SECTIONS,
    *charts_texts.SECTIONS,
    *charts_attention.SECTIONS,
    *charts_sinks.SECTIONS,
    *charts_bands.SECTIONS,
    *charts_rotary.SECTIONS,
    *charts_selecting.SECTIONS,
    *charts_consistency.SECTIONS,
    *charts_studies.SECTIONS,
    *charts_lens.SECTIONS,
    *charts_first_token.SECTIONS,
    *charts_readings.SECTIONS,
    *charts_tokens.SECTIONS,
    *charts_similarity.SECTIONS,
    *charts_router.SECTIONS,
    *charts_weights.SECTIONS,
    *charts_depth.SECTIONS,
    *charts_sensitivity.SECTIONS,
    *charts_patterns.SECTIONS,
    *charts_compress.SECTIONS,
    *charts_prescribe.SECTIONS,
    *charts_train.SECTIONS,
    *charts_pretrain.SECTIONS,
    *charts_judged.SECTIONS,
)


def write_report(run: Run, path: str | Path | None = None) -> Path:
    """Write a run's report, by default to `report.html` in the run folder, and return its path.

    The page holds all it needs, and opens from disk without a network. It appears whole or not at all.

    Raises:
        MonadnockError: if the page cannot be written; the run is whole all the same.

    Example:
        >>> write_report(Run.open("demo"))  # doctest: +SKIP
        PosixPath('demo/report.html')
    """
    place = Path(path) if path is not None else run.path / "report.html"
    page = render(run).encode()
    try:
        return write_file(place, [page], what="report", verb="report")
    except MonadnockError as error:
        if path is not None or not isinstance(error.__cause__, OSError):  # who gave a file knows of --out
            raise
        raise MonadnockError(
            f"{str(error).rstrip('.')}; the run itself is there, and `monadnock report {shlex.quote(str(run.path))} "
            "--out FILE` writes the page elsewhere."
        ) from error


def render(run: Run) -> str:
    """Return the page of a run as HTML."""
    findings = Findings(run.manifest, {name: run.table(name) for name in run.heights() if name in TABLES})
    measured = [section for section in SECTIONS if _measured(section, findings)]
    present = [section for section in measured if section.empty or not _empty(section, findings)]
    return fill(
        [(section, _drawn(section, findings)) for section in present],
        run.manifest,
        verb="report",
        title=run.manifest.model.id,
        facts=facts.facts(run.manifest),
        provenance=facts.provenance(run.manifest),
        alarm="NaN or infinity was met",
        so="Numbers that depend on these places cannot be trusted.",
        warnings=facts.warnings(findings),
        sentences=run.summary().items,
        missing=[section.title for section in SECTIONS if section not in measured],
    )


def fill(sections: Iterable[tuple[Any, list[Block]]], manifest: Manifest, **told: Any) -> str:
    """Return a page with these sections as HTML.

    Args:
        sections: what has a key, title, sentence (`says`) and another for no blocks (`empty`), each with its blocks.
        manifest: where the thresholds are taken from that definitions cite.
        **told: what the template says besides: verb, title, facts, provenance, sentences, missing, and warnings under
            the heading `alarm` with the sentence `so`.
    """
    environment = Environment(
        loader=PackageLoader("monadnock.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: text.printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data: dict[str, list[dict[str, Any]]] = {"charts": [], "pickers": []}
    drawn = [
        {"about": about, "blocks": [_block(each, manifest, data) for each in blocks]} for about, blocks in sections
    ]
    scripts = [Markup("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw))]
    own = ("picker.js.j2", "page.js.j2") if data["pickers"] else ("page.js.j2",)
    scripts += [Markup(environment.get_template(name).render()) for name in own]
    return environment.get_template("page.html.j2").render(
        sections=drawn,
        sources=facts.SOURCES,
        charts=_island(data["charts"]),
        pickers=_island(data["pickers"]) if data["pickers"] else "",
        scripts=scripts,
        allowed=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        **told,
    )


def _measured(section: Section, findings: Findings) -> bool:
    return any(name in findings.tables for name in section.tables) and section.when(findings)


def _empty(section: Section, findings: Findings) -> bool:
    return all(findings[name].is_empty() for name in section.tables)


def _drawn(section: Section, findings: Findings) -> list[Block]:
    return [] if _empty(section, findings) else section.draw(findings)


def _block(block: Block, manifest: Manifest, data: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what the template needs of a block; a chart or picker goes to `data` and leaves its name."""
    seen: dict[str, Any] = {"about": block, "cited": facts.cited(block.notes, manifest)}
    if isinstance(block.body, pl.DataFrame):
        seen["heads"] = [(name.replace("_", " "), dtype.is_numeric()) for name, dtype in block.body.schema.items()]
        seen["rows"] = [["" if value is None else text.cell(value) for value in row] for row in block.body.rows()]
    elif block.kind == "chart":
        seen["chart"] = f"chart-{len(data['charts'])}"
        data["charts"].append(dict(json_item(cast(figure, block.body), ID(seen["chart"]))))
    elif isinstance(block.body, Picker):
        seen["picker"] = f"picker-{len(data['pickers'])}"
        data["pickers"].append({"id": seen["picker"], **as_json(block.body)})
    return seen


def _island(data: list[dict[str, Any]]) -> Markup:
    """Return JSON that may stand in a script element: nothing in it can end the element or start another."""
    dump = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        dump = dump.replace(char, f"\\u{ord(char):04x}")
    return Markup(dump)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
