"""Attention, positions, blocks, encoder, decoder, and the two models built from them. Knows nothing of data or training."""
