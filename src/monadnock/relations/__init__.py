"""How the findings of a run, or of several, hang together: tables made from tables, without torch."""
