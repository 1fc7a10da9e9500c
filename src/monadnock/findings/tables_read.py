"""The tables of what weights and states say in words: columns, types, and one line of meaning for each."""

from monadnock.findings.columns import FLAG, INT, LAYER, RANK, REAL, TEXT, TOKEN, TOKEN_ID, Table

DICTIONARY = (
    "dictionary",
    TEXT,
    "input (embedding rows), output (unembedding rows) or middle (what two layers make of a token)",
)
PROMPT = ("prompt", TEXT, "the text that was read")
BOS = ("bos", FLAG, "whether BOS stands in front of it")
DATA = ("data", TEXT, "the text in words, with the first digits of its hash")
PLACE = ("position", INT, "0-based position in the prompt, BOS counted where it stands in front")
WORD_ID = ("word_id", INT, "id of the token that is read")
WORD = ("word", TEXT, "decoded text of the token that is read")
HEAD = ("head", INT, "0-based query head")

READ: tuple[Table, ...] = (
    Table(
        "lens",
        "One row per token that stands out when the state at a position behind a layer is read by a dictionary.",
        (
            PROMPT,
            BOS,
            PLACE,
            TOKEN_ID,
            TOKEN,
            DICTIONARY,
            ("layer", INT, "0-based decoder layer behind which the state stands; -1: what enters the first layer"),
            RANK,
            WORD_ID,
            WORD,
            (
                "amplitude",
                REAL,
                "inner product of the L2-normalised state and the token's row (output: behind the final norm)",
            ),
            ("noise", REAL, "largest amplitude of random Gaussian states read the same way, mean over states"),
            ("rows", TEXT, "normalised (the amplitude is a cosine) or raw: the token's row as it was multiplied"),
            ("words", TEXT, "all, or prompt: which tokens could be read"),
        ),
        verb="lens",
    ),
    Table(
        "first_token",
        "One row per layer, query head and position of a prompt: how much attention the first token gets from there.",
        (
            PROMPT,
            BOS,
            LAYER,
            HEAD,
            PLACE,
            TOKEN_ID,
            TOKEN,
            ("mass", REAL, "A[position, 0]"),
            ("ends_sentence", FLAG, "whether a sentence ends with this token"),
        ),
        verb="lens",
    ),
    Table(
        "dictionaries",
        "One row per dictionary: how its token vectors lie to each other, and what can be told apart in a state.",
        (
            DICTIONARY,
            ("tied", FLAG, "whether input and output dictionary are one matrix"),
            ("num_tokens", INT, "rows of the dictionary"),
            ("width", INT, "D, entries of a row"),
            ("mean_norm", REAL, "mean L2 norm of the rows"),
            (
                "positive_share",
                REAL,
                "share of pairs of different tokens with a positive inner product: a seeded sample with all others",
            ),
            ("positive_error", REAL, "standard error of that share over the sampled tokens"),
            ("mean_similarity", REAL, "mean normalised inner product of the same pairs"),
            (
                "effective_rank",
                REAL,
                "exp of the entropy of the singular values over their sum (roy2007)",
            ),
            ("stable_rank", REAL, "sum of squared singular values over the largest squared"),
            (
                "own_correlation",
                REAL,
                "mean Pearson correlation of a token's row here with its row in the input dictionary",
            ),
            ("noise_floor", REAL, "F: the smallest amplitude with D (1 - erf(F sqrt(D / 2))) < 1 (wray2023)"),
            ("capacity", REAL, "1 / F^2: how many words of that amplitude fit into one state"),
            (
                "noise_largest",
                REAL,
                "largest amplitude that random Gaussian states have with any normalised row, mean over states",
            ),
        ),
        verb="read",
    ),
    Table(
        "singular_values",
        "One row per singular value of a dictionary, largest first.",
        (DICTIONARY, RANK, ("value", REAL, "singular value of the matrix of raw rows")),
        verb="read",
    ),
    Table(
        "word_similarity",
        "One row per dictionary and pair of the words that were asked for.",
        (
            DICTIONARY,
            ("word_a", TEXT, "first word: one token"),
            ("word_b", TEXT, "second word: one token"),
            ("similarity", REAL, "normalised inner product of their rows"),
        ),
        verb="read",
    ),
    Table(
        "nearest_words",
        "One row per word that was asked for and token near it.",
        (
            (
                "relation",
                TEXT,
                "input, output: nearest in that dictionary; continuation: its input row read by the output dictionary",
            ),
            ("asked", TEXT, "the word that was asked for: one token"),
            RANK,
            WORD_ID,
            WORD,
            ("similarity", REAL, "normalised inner product; for continuation behind the final norm"),
        ),
        verb="read",
    ),
    Table(
        "continuations",
        "One row: do raw input embeddings, read by the output dictionary, suggest the tokens that come next in a text?",
        (
            DATA,
            ("pairs", INT, "different pairs of neighbouring tokens that were taken from the text"),
            ("rank", REAL, "median rank of the second token among all but the first, 1 for the largest amplitude"),
            ("control_rank", REAL, "the same with the second tokens dealt out anew among the pairs"),
            ("top_share", REAL, "share of pairs whose second token is among the first 10"),
            ("control_share", REAL, "the same with the second tokens dealt out anew"),
            (
                "better_share",
                REAL,
                "share of pairs whose second token ranks before the one dealt out; one half by chance",
            ),
        ),
        verb="read",
    ),
    Table(
        "circuits",
        "One row per query head and pair of matrices that act as one: what it is like, and whether words tell it.",
        (
            LAYER,
            HEAD,
            (
                "circuit",
                TEXT,
                "qk: W_q^T W_k, without rotary; ov: W_o W_v; norm gains folded in on the sides that read h",
            ),
            ("singular_value", REAL, "the largest singular value"),
            ("effective_rank", REAL, "exp of the entropy of the singular values over their sum"),
            (
                "offset_mass",
                REAL,
                "mean attention of the query itself or the token before it, whichever gets more, over a text",
            ),
            ("offset", INT, "0 the query itself, 1 the token before; null the last 8 keys together"),
            (
                "position_driven",
                FLAG,
                "offset_mass > 0.3: position tells what the head attends to; its qk is not decoded",
            ),
        ),
        verb="read",
    ),
    Table(
        "readings",
        "One row per token that stands out when a vector of weights is read by a dictionary.",
        (
            (
                "kind",
                TEXT,
                "q_row, k_row, qk, ov (of heads); feature, up_row, gate_row, down_column (of outliers)",
            ),
            LAYER,
            ("head", INT, "0-based query head; null where the vector belongs to none"),
            ("index", INT, "row, rank of the singular pair, feature or neuron, 0-based"),
            ("side", TEXT, "reads (what it looks for: query, key or value side) or writes; for qk: query or key"),
            ("strength", REAL, "norm of the vector, or the singular value of its pair"),
            DICTIONARY,
            ("sign", INT, "1 for the tokens with the largest amplitudes, -1 for those with the smallest"),
            RANK,
            WORD_ID,
            WORD,
            ("amplitude", REAL, "normalised inner product of the vector and the token's row"),
        ),
        verb="read",
    ),
    Table(
        "state_similarity",
        "One row per layer and relation: how alike states are, along the layers or within one.",
        (
            DATA,
            (
                "layer",
                INT,
                "0-based decoder layer behind which the first state stands; -1: what enters the first layer",
            ),
            (
                "relation",
                TEXT,
                "later (the same token some layers later), neighbours, next neighbours, or all pairs (of one layer)",
            ),
            ("gap", INT, "layers between the two; 0 within a layer"),
            ("mean", REAL, "mean normalised inner product, first positions of windows left out"),
            ("deviation", REAL, "standard deviation over pairs; null for all pairs"),
            ("predicted", REAL, "product of the mean similarities of each layer with the next; null within a layer"),
        ),
        verb="read",
    ),
    Table(
        "first_sentence",
        "One row per layer, and one for all: does attention to the first token fall where a sentence ends?",
        (
            DATA,
            LAYER,
            ("sentence", INT, "which sentence of a text ends: 1, 2 or 3"),
            ("num_texts", INT, "texts that count"),
            ("num_heads", INT, "query heads of the layer, or of all"),
            ("before", REAL, "mean A[i, 0] over heads and the 4 queries in front of the end"),
            ("after", REAL, "the same over the 4 queries behind it"),
            ("fall", REAL, "before - after, mean over texts"),
            ("control_fall", REAL, "the same fall at the same positions of texts in which no sentence ends there"),
            ("effect", REAL, "fall - control_fall, mean over texts"),
            ("effect_error", REAL, "its standard error over texts"),
        ),
        verb="read",
    ),
)
