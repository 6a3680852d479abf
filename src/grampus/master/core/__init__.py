"""The scheduler: pure. Facts in, a `Turn` out; no I/O, no clock."""
