"""What a task can be: one module per kind, and the way from a declaration to a process and back."""
