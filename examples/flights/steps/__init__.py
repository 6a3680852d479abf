"""What the tasks of the flights workflow do: plain functions on data frames and files.

Rule: nothing here knows Grampus. `flights.py` says what is a task and in which order; every
function here can be called, tested and debugged without a server.
"""
