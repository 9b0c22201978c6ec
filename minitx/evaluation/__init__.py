"""Judging and looking: metrics with intervals, decoding, prediction, comparison, and the attention lens."""
