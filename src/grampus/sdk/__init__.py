"""What users write with: declaring workflows in Python and YAML, and the client of a server."""
