"""The tables of pretraining: columns, types, and one line of meaning for each."""

from monadnock.findings.columns import INT, REAL, TEXT, Table

NAME = ("name", TEXT, "the training, as llama sigmoid, seed 0")

PRETRAINED: tuple[Table, ...] = (
    Table(
        "pretrainings",
        "One row per pretraining: the model, the data, what it learned, and what rounding and pruning leave of it.",
        (
            NAME,
            ("architecture", TEXT, "gpt2 or llama"),
            ("variant", TEXT, "of attention, see `monadnock ls variants`"),
            ("seed", INT, "of the first weights and of the order of the data"),
            ("recipe", TEXT, "its name, with the first digits of the hash of what it says"),
            ("data", TEXT, "in words"),
            ("steps", INT, "of the optimizer"),
            ("sequences", INT, "of a step: batch x accumulation x processes"),
            ("dtype", TEXT, "in which it was computed: float32, or bfloat16 autocast"),
            ("parameters", INT, "of the model"),
            ("added", INT, "of these that the variant adds to the default"),
            ("loss", REAL, "of the sequences held back, mean over counted tokens (nats)"),
            ("perplexity", REAL, "exp of that"),
            ("absmax", REAL, "perplexity with all linear layers of the blocks rounded to 8 bits, one scale a tensor"),
            ("pruned", REAL, "perplexity with the smaller half of the weights of each of these set to 0"),
            ("steps_per_second", REAL, "forward, backward and optimizer alone"),
            ("watching", REAL, "time that looking at outliers took, relative to that of the steps"),
            ("model", TEXT, "where the model is in the run's folder"),
        ),
        verb="pretrain",
    ),
    Table(
        "training_steps",
        "One row per logged step of a training.",
        (
            NAME,
            ("step", INT, "1-based step of the optimizer, the last of those that the row is about"),
            ("loss", REAL, "mean over the steps since the row before (nats)"),
            ("learning_rate", REAL, "of the step"),
            ("grad_norm", REAL, "of the step, before it is clipped"),
        ),
        verb="pretrain",
    ),
    Table(
        "training_outliers",
        "One row per look at a model in training, and layer: its largest activations and its sinks.",
        (
            NAME,
            ("step", INT, "steps of the optimizer done by then; 0: none"),
            ("planned", INT, "steps that the training is to have; its last look is there if it came to its end"),
            ("layer", INT, "0-based decoder layer"),
            ("top_1", REAL, "largest |h| of a sequence, mean over the sequences that are looked at"),
            ("top_2", REAL, "the second"),
            ("top_3", REAL, "the third"),
            ("median", REAL, "median |h| of a sequence, mean over sequences"),
            ("start", REAL, "largest |h| at position 0, mean over sequences"),
            ("kurtosis", REAL, "of h: fourth central moment over the squared variance"),
            ("sinks", INT, "heads with a sink: a key that gets over 0.3 of the attention of the queries that see it"),
            ("heads", INT, "of the layer"),
            ("largest_sink", REAL, "what the strongest key of a head gets of the queries that see it, largest head"),
            ("gated_sink", REAL, "the same of gate times attention; null where nothing gates"),
            ("x_down", REAL, "largest |x_down| of all sequences"),
        ),
        verb="pretrain",
    ),
)
