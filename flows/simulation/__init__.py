"""What the simulated cohort is made of: one file for each table of a drop."""
