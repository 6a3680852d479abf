"""The worker: a core that decides, a driver that carries out, and a warden that owns the
attempts."""
