"""The bounds of prescriptions, each with its source; to be read beside docs/prescribe.md."""

KEEP_RATIO = 5.0  # ours: a module stands out if rounding costs this many times that of the median matrix
KEEP_SHARE = 0.05  # ours: at most this share of the weights of the blocks is kept in 16 bits
PER_ROW_RATIO = 2.0  # ours: one scale per row is called for if one per tensor has this many times its error
GAUSSIAN_RATIO = 2.0  # ours: a rotation of weights is called for if rounding costs this many times a Gaussian's
ROTATE_SHARE = 0.1  # ours: a rotation is called for if this share of the places has outlying features, not one place
SINK_PREFIX = 16  # ours: a fixed prefix is at most this long; xiao2024 (StreamingLLM) keeps 4, hooper2024 (KVQuant) 1
GAIN = 0.1  # ours: keeping something helps if it takes back this share of what rounding costs in perplexity
LOSS_SEEN = 0.01  # ours: a compressor that costs less than this share of perplexity leaves nothing to win back
