"""The one attention of this project, front to back: masks, projections, kernels, positions, cache, conversion."""
