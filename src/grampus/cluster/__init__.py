"""The metadata center: keys with revisions, sessions, locks and watches."""
