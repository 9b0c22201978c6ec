"""Looking inside: attention maps, statistics of heads, receptive fields, and the inspect page."""
