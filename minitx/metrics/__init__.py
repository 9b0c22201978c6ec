"""Scores with intervals: one pass over a split, comparisons of two runs, classes in detail."""
