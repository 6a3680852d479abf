"""A server, a worker and its warden in virtual time, with faults: the drivers and cores are the
real ones, the event loop's time, the wires, the durable log and the attempts are models."""
