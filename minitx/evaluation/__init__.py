"""Judging and looking: metrics with intervals, greedy decoding, prediction, and the attention lens."""
