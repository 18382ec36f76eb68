"""The model families: one file each with `fit`, and what turns them into a release."""
