"""The command line of tokens: ``python -m serving.tokens``."""
