"""The gate: recordings, a baseline and budgets in, a verdict out. Pure: no files, no printing, no clock."""
