"""`spectrafuse profile`: what takes the time of a run on a user's own data, and what limits it."""

from spectrafuse.cli.profile.command import profile

__all__ = ["profile"]
