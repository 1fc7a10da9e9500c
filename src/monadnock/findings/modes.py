"""The modes of attack, each with what it does to k things: said once, for lists, pages and docs."""

MODES: dict[str, str] = {
    "zero": "the k most massive rows of W_up and W_gate, and their biases, are set to 0 (oh2024)",
    "retain": "all rows of W_up and W_gate but the k most massive are set to 0 (oh2024)",
    "random": "k other rows of W_up and W_gate, drawn at random, are set to 0",
    "super": "the k strongest super weights of W_down are set to 0 (yu2024)",
    "gain": "gains behind attention and FFN at the k largest features of h are set to the median of their norm",
    "gain-random": "the same at k features drawn at random",
    "activation-zero": "the k largest features of h behind the massive layer are set to 0 at position 0 (sun2024)",
    "activation-mean": "they are set to the mean that they have there over the text (sun2024)",
    "mask": "the first k positions are masked as keys, in all layers",
    "prefix": "the start token is put k times in front of the text",
}
