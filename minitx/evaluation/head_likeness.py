"""How alike the heads of a layer are, or those of two models' layers, over some texts; and the rank of what they write.

Sums are kept, batch after batch, and no maps or outputs.

Letters in shapes: H and G heads, N real queries of a batch, A and B features of all heads, W features of one.
"""

from __future__ import annotations

import torch

from minitx.evaluation.head_maps import Numbers, RealQueries
from minitx.evaluation.similarity import Covariance, Likeness, effective_rank, linear_cka, map_likeness


class LikenessSums:
    """Of two layers' heads at the same queries, or of one layer's among themselves."""

    def __init__(self, *, within: bool) -> None:
        self.within = within
        self.n, self.n_heads = 0, (0, 0)
        self.maps_HG = torch.zeros((), dtype=torch.float64)
        self.cross = Covariance()
        self.own, self.other = (self.cross, self.cross) if within else (Covariance(), Covariance())

    def add(self, first: RealQueries, second: RealQueries) -> None:
        """Within a layer both are the same."""
        self.n += len(first.place_N)
        self.n_heads = len(first.weights_HNK), len(second.weights_HNK)
        self.maps_HG = self.maps_HG + map_likeness(first.weights_HNK, second.weights_HNK)
        x_NA, y_NB = (side.outputs_HNW.transpose(0, 1).flatten(1) for side in (first, second))
        self.cross.add(x_NA, y_NB)
        if not self.within:
            self.own.add(x_NA, x_NA)
            self.other.add(y_NB, y_NB)

    def maps(self) -> Likeness:
        return Likeness.of((self.maps_HG / self.n).cpu().numpy(), within=self.within)

    def outputs(self) -> Likeness:
        cka_HG = linear_cka(self.cross.sum_AB, self.own.sum_AB, self.other.sum_AB, self.n_heads)
        return Likeness.of(cka_HG.cpu().numpy(), within=self.within)

    def ranks(self) -> tuple[Numbers, float]:
        """Effective rank of what each of the first layer's heads writes, and of all of them side by side."""
        own_AA, n_heads = self.own.sum_AB, self.n_heads[0]
        parts_HWHW = own_AA.view(n_heads, -1, n_heads, len(own_AA) // n_heads)
        return tuple(effective_rank(parts_HWHW[h, :, h]) for h in range(n_heads)), effective_rank(own_AA)
