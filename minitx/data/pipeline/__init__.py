"""From examples as read to token ids: check, group, cut subsets, tokenise, cache."""
