"""The modes of attack, each with what it does to k things, and its control: said once, for lists, pages and docs."""

MODES: dict[str, str] = {
    "zero": "the k most massive rows of W_up and W_gate, and their biases, are set to 0 (oh2024)",
    "retain": "all rows of W_up and W_gate but the k most massive are set to 0 (oh2024)",
    "random": "k other rows of W_up and W_gate, drawn at random, are set to 0",
    "super": "the k strongest super weights of W_down are set to 0 (yu2024)",
    "super-random": "k other entries of the same W_down, drawn at random, are set to 0",
    "gain": "gains behind attention and FFN at the k largest features of h are set to the median of their norm",
    "gain-random": "the same at k features drawn at random",
    "activation-zero": "the k largest features of h behind the massive layer are set to 0 at position 0 (sun2024)",
    "activation-random": "k features drawn at random are set to 0 there",
    "activation-mean": "they are set to the mean that they have there over the text (sun2024)",
    "activation-all": "the k largest features of h are set to 0 at position 0 behind every layer",
    "activation-all-random": "the same with k features drawn at random",
    "mask": "the first k positions are masked as keys, in all layers",
    "mask-random": "k later positions, drawn at random, are masked as keys, in all layers",
    "mask-behind": "the first k positions are masked as keys, in the layers behind the massive layer",
    "mask-behind-random": "k later positions, drawn at random, are masked as keys, in these layers",
    "prefix": "the start token is put k times in front of the text",
}

CONTROLS: dict[str, str] = {
    "zero": "random",
    "super": "super-random",
    "gain": "gain-random",
    "activation-zero": "activation-random",
    "activation-all": "activation-all-random",
    "mask": "mask-random",
    "mask-behind": "mask-behind-random",
}
