"""Performance of a release, overall and by group, with its uncertainty."""
