"""A next version of Grampus, for tests: apply version 2, with a new column, a new table, a new
command, and a handler that does something else than in version 1."""
