"""The run store: commands that ask, `apply` that decides, events that tell, queries that show."""
