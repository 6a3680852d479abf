"""Typed messages over TCP: frames, envelopes, connections. Knows no message by name."""
