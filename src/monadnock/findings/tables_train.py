"""The tables of fine-tuning: columns, types, and one line of meaning for each."""

from monadnock.findings.columns import INT, REAL, TEXT, Table

NAME = ("name", TEXT, "the fine-tuning with its settings, as lora, macdrop step 0.8, seed 0")
HOW = (
    NAME,
    ("method", TEXT, "adapter: lora or dora"),
    ("macdrop", TEXT, "dropout on massive weights: its schedule, probability and scope in words; null without"),
    ("schedule", TEXT, "how the probability falls: step, epoch-before, epoch-after, exp or constant; null without"),
    ("p0", REAL, "probability at the beginning; null without"),
    ("scope", TEXT, "what is dropped: massive, all or others; null without"),
    ("seed", INT, "of the adapter's start, the order of examples, the masks, and which examples are held back"),
    ("data", TEXT, "the examples in words, with the first digits of their hash"),
)

TRAINED: tuple[Table, ...] = (
    Table(
        "finetunings",
        "One row per fine-tuning: its settings, and the loss on examples that were held back, before and after.",
        (
            *HOW,
            ("examples", INT, "that were trained on"),
            ("too_long", INT, "examples left out, whose answer begins behind the last token that is used"),
            ("steps", INT, "of the optimizer"),
            ("epochs", REAL, "times that every example was seen"),
            ("trainable", INT, "parameters of the adapter"),
            ("before", REAL, "loss of the answers held back, mean over tokens, of the model as it is (nats)"),
            ("after", REAL, "the same after fine-tuning"),
            ("adapter", TEXT, "where the adapter is in the run's folder"),
        ),
        verb="finetune",
    ),
    Table(
        "finetuning_steps",
        "One row per step of a fine-tuning.",
        (
            NAME,
            ("step", INT, "1-based step of the optimizer"),
            ("loss", REAL, "mean over the answers' tokens of the step (nats)"),
            ("learning_rate", REAL, "of the step"),
            ("p", REAL, "probability with which a massive weight was dropped; null without MacDrop"),
            ("dropped", REAL, "share of them that was"),
        ),
        verb="finetune",
    ),
    Table(
        "robustness",
        "One row per fine-tuning, number of massive rows set to zero, and metric: what is left (oh2024, table 4).",
        (
            *HOW,
            ("zeroed", INT, "massive rows of W_up and W_gate set to zero; 0: none"),
            ("order", TEXT, "merged: adapter first, then zeros; base: zeros in the base, then the adapter; null: none"),
            ("metric", TEXT, "answer_loss (examples held back), perplexity (text), or task:metric of lm-eval"),
            ("text", TEXT, "what it was measured on"),
            ("value", REAL, "with the adapter"),
            ("base", REAL, "of the model without adapter, the same rows set to zero"),
        ),
        verb="finetune",
    ),
    Table(
        "answers",
        "One row per fine-tuning, question and turn: the answer, and what a judge says of it (oh2024, table 9).",
        (
            ("name", TEXT, "the fine-tuning; null for the model without adapter"),
            ("questions", TEXT, "the file in words, with the first digits of their hash"),
            ("question", TEXT, "its id in the file"),
            ("category", TEXT, "of the question, as writing or translation"),
            ("column", TEXT, "MT-1 and MT-2 for the turns of MT-bench's categories, else the category"),
            ("turn", INT, "1-based"),
            ("asked", TEXT, "the text of the turn"),
            ("answer", TEXT, "greedy, through the chat template"),
            ("tokens", INT, "of the answer"),
            ("judge", TEXT, "the model that judged"),
            ("feedback", TEXT, "what it wrote"),
            ("score", INT, "1 to 5; null where it wrote none"),
        ),
        verb="judge",
    ),
)
