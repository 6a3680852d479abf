"""The command line: arguments in, a client call or a node, people's words out. Decides nothing."""
