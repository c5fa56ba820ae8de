"""The example data sets that conf/ names."""
