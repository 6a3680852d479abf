"""Plain values: what was declared (workflow) and what happened (run). No I/O, no clock."""
