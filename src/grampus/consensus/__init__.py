"""One order of commands for all servers: the durable log, and the replica that applies it."""
