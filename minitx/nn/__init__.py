"""Attention, positions, blocks, encoder, decoder, and the two models built from them; nothing of data or training."""
