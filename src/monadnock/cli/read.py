"""`monadnock read`: read a model's weights and states with its own token vectors, and tell what came out."""

from typing import Annotated

import typer

from monadnock.cli import options
from monadnock.cli.console import near, print_summary
from monadnock.findings.summary import Summary
from monadnock.findings.summary_read import TOPICS

NEXT = {"tokens": "nearest_words", "heads": "readings", "layers": "state_similarity", "outliers": "readings"}


def command(
    model: options.Model,
    out: options.AddTo = None,
    what: Annotated[str, typer.Option(help="comma-separated")] = "tokens,heads,layers,outliers",
    words: Annotated[str | None, typer.Option(help="words to compare, single tokens, comma-separated")] = None,
    layer: Annotated[str, typer.Option(help="layers of which every row of W_q and W_k is read")] = "0",
    text: options.Text = None,
    dataset: options.Dataset = None,
    tokens: Annotated[int | None, typer.Option(help="tokens in all  [default: 4096]")] = None,
    length: options.Length = None,
    bos: options.Bos = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
) -> None:
    """Read in a model's own words what its dictionaries, heads, layers and outliers say."""
    from monadnock.preparing import fresh_path  # here, so that other verbs start without torch
    from monadnock.reading import read
    from monadnock.reading.running import WORDS

    out = fresh_path(model) if out is None else out
    with options.can_go_on(out):
        run = read(
            model,
            out=out,
            what=options.names(what),
            words=WORDS if words is None else options.names(words),
            row_layers=options.numbers("layer", layer) or (),
            text=text,
            dataset=dataset,
            tokens=tokens,
            length=length,
            bos=bos,
            **options.loading(dtype, device),
        )
    print_summary(Summary(tuple(item for item in run.summary().items if item[0] in TOPICS)))
    print(f"Report: {near(run.report())}")
    print(f"Next:   monadnock show {near(run.path)} {NEXT[options.names(what)[0]]}")
