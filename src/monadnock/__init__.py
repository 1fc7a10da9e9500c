"""monadnock finds the systematic outliers of a language model and shows how they hang together."""
