"""The cores of the metadata center: pure."""
