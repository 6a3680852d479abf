"""The master: a scheduler that decides, a driver that commits first and sends then."""
