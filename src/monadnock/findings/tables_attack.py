"""The tables in which an attack writes down what the model does: columns, types, and one line of meaning for each."""

from monadnock.findings.columns import INT, REAL, TEXT, Table

# What an attack was; the same columns in every table of attacks.
ATTACK = (
    ("mode", TEXT, "what was done: none (the clean model), zero, retain, random, ...: docs/attack.md; or compress"),
    ("layer", INT, "0-based layer that was changed; null for none, and where several were (see targets)"),
    ("expert", INT, "0-based expert that was changed; null in dense layers"),
    ("k", INT, "how many rows, weights, features or positions were changed (retain: kept), in each layer"),
    ("seed", INT, "what the control was drawn with; null where nothing is drawn"),
    ("targets", TEXT, "what exactly was changed (retain: kept), as `layer 11: 1229 1487`"),
)


ATTACKS: tuple[Table, ...] = (
    Table(
        "effects",
        "One row per attack and metric: what the model does while something in it is changed.",
        (
            *ATTACK,
            ("metric", TEXT, "perplexity, kl, top1_agreement, top1_h, sink_share, implicit_scaling, or a task's own"),
            ("data", TEXT, "the text as `source, windows x length, BOS, first digits of its hash`, or the task"),
            ("value", REAL, "the metric under the attack"),
            ("baseline", REAL, "the same of the clean model"),
            ("error", REAL, "standard error of the value; null where the metric comes without one"),
            ("method", TEXT, "the compressor with its settings, where mode is compress; null for attacks"),
        ),
        verb="attack",
    ),
    Table(
        "generations",
        "One row per attack and prompt: what the model writes, greedily, while something in it is changed.",
        (
            *ATTACK,
            ("prompt", TEXT, "what was given"),
            ("text", TEXT, "what the model went on with"),
            ("same_tokens", INT, "how many first tokens equal those of the clean model"),
            ("num_tokens", INT, "how many tokens were written"),
        ),
        verb="attack",
    ),
)
