"""Encrypted backups of all that cannot be made again, and their restore."""
