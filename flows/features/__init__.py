"""What is computed of landed rows: one file per feature group, plain Polars functions.

Every function takes `moments` (anonymized_id, as_of: the midnight at which a row of features
stands) and landed tables of the same individuals, uses only what is dated before `as_of`,
and gives one row per moment for which there is anything to say, stamped by `stamp_rows`.
"""
