"""How good a release is, for whom, and how sure we are of it."""
