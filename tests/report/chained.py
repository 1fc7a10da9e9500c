"""Rows of the table `chain`: of a model much like SmolLM2, and as nobody writes them."""

import math

from hypothesis import strategies as st

from monadnock.findings.chain_links import LINKS

DATA = "topics, 2 x 1024, BOS, 0d10bddf"
WORDS = {
    "super": "the 4 super weights of layer 11 zeroed",
    "zero": "the 2 massive rows of layer 11 zeroed",
    "gain": "the gains at feature 3 set to their median",
    "activation-zero": "h zeroed behind layer 11",
    "activation-all": "h zeroed behind every layer",
    "mask": "key 0 masked in all layers",
    "mask-behind": "key 0 masked behind layer 11",
}
SIZE, SHARE = 24832.0, 0.4815


def row(link, mode, metric, values, data=DATA, **more):
    """Return a row; values are before, after, and the smallest and largest of the controls."""
    step = next(place for place, each in enumerate(LINKS) if each.name == link)
    if mode is None:
        return {"step": step, "link": link, "data": data} | more
    before, after, low, high = values
    control = None if low is None or high is None else (low + high) / 2
    return {
        "step": step, "link": link, "intervention": WORDS[mode], "mode": mode, "k": 2, "targets": f"layer 11: {mode}",
        "metric": metric, "data": data, "before": before, "after": after, "control": control, "control_min": low,
        "control_max": high, "num_controls": 3,
    } | more  # fmt: skip


def chain_rows():
    """Return the chain of a model in which some links hold, one in part, and one cut did not take."""
    activation, sinks = "massive activation -> sinks", "sinks -> predictions"
    return [
        row("super weights -> massive activation", "super", "start_h", (SIZE, 988.0, SIZE, SIZE),
            note="feature 507 of the start token is still at 18,073 behind layer 28"),
        row("super weights -> massive activation", "super", "top1_h", (24926.0, 18073.0, 24926.0, 24926.0)),
        row("massive rows -> massive activation", "zero", "start_h", (SIZE, 187.0, 24000.0, 25000.0)),
        row(activation, "activation-zero", "start_h", (SIZE, 987.0, SIZE, SIZE)),
        row(activation, "activation-zero", "sink_share", (SHARE, 0.3667, SHARE, SHARE),
            note="massive activations also sit elsewhere"),
        row(activation, "activation-zero", "implicit_scaling", (0.763, 0.747, 0.763, 0.764)),
        row(activation, "activation-all", "start_h", (SIZE, 543.0, SIZE, SIZE)),
        row(activation, "activation-all", "sink_share", (SHARE, 0.5111, SHARE, SHARE),
            note="massive activations also sit elsewhere"),
        row(sinks, "mask", "sink_share", (SHARE, 0.4778, SHARE, SHARE)),
        row(sinks, "mask", "perplexity", (11.758, 11.771, 11.802, 11.989)),
        row(sinks, "mask-behind", "sink_share", (SHARE, 0.0, SHARE, SHARE)),
        row(sinks, "mask-behind", "perplexity", (11.758, 14.0, 11.8, 11.9)),
        row("super weights -> predictions", "super", "perplexity", (11.758, 8122129.0, 11.758, 11.758)),
        row("massive rows -> sinks", "zero", "sink_share", (SHARE, 0.0111, SHARE, SHARE)),
        row("massive rows -> predictions", "zero", "perplexity", (11.758, 11.5, 11.757, 11.759)),
    ]  # fmt: skip


def any_chain():
    """Return a strategy of lists of rows as no explanation writes them."""
    real = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 0.5, 1e308, -1e308, math.inf]))
    modes = [None, "", "odd", *WORDS]
    metrics = [None, "", "odd", "start_h", "top1_h", "sink_share", "implicit_scaling", "perplexity"]
    whole = st.sampled_from([None, 0, 1, 5])
    found = {
        "step": whole,
        "link": st.sampled_from([None, "", "odd", *(link.name for link in LINKS)]),
        "intervention": st.sampled_from([None, "", "a thing done"]),
        "mode": st.sampled_from(modes),
        "k": whole,
        "targets": st.sampled_from([None, "", "layer 3: 5"]),
        "metric": st.sampled_from(metrics),
        "data": st.sampled_from([None, "", "topics", DATA]),
        "num_controls": whole,
        "note": st.sampled_from([None, "", "a note", "another"]),
    }
    found |= dict.fromkeys(("before", "after", "control", "control_min", "control_max"), real)
    return st.lists(st.fixed_dictionaries(found), max_size=10)
