"""Thresholds that several places share, each named after its source; a run's manifest states all that were used."""

AN2025_RATIO = 1000.0  # tau: an outlier is above AN2025_RATIO times the mean magnitude
SUN2024_RATIO = 1000.0  # a massive activation is above SUN2024_RATIO times the median magnitude ...
SUN2024_MAGNITUDE = 100.0  # ... and above SUN2024_MAGNITUDE
GU2025_SINK_MASS = 0.3  # alpha: a head has a sink if a key gets more than this of the attention of those that see it
ALIVE_RATIO = 100.0  # ours: a feature lives where |value| > SUN2024_MAGNITUDE and > ALIVE_RATIO times the median
OFFSET_RADIUS = 3.0  # ours: an offset feature has this radius at least, relative to the mean of its head ...
OFFSET_CONCENTRATION = 0.9  # ... in queries and keys, which point this much in one direction
COLUMN_RATIO = 100.0  # ours: a weight outlier of W_down is this many times the mean of its column
