"""Similarity of heads: of their maps by Jensen-Shannon divergence, of their outputs by linear CKA, and their matching.

Maps: a row is a distribution over keys, so two heads' rows are compared by 1 - JSD in bits. It is 1 for equal rows and
0 for rows that share no key, needs no smoothing where one row is 0 (as the Kullback-Leibler divergence would), and does
not, as the cosine does, go by the largest weights alone. (Clark et al. 2019, section 6, cluster heads by it.)

Outputs: linear CKA (Kornblith et al. 2019, eq. 5), which no rotation and no scale of a head's own space changes: a head
is free to write in any basis, for the output projection turns it back.

Letters in shapes: H and G heads, N queries, K keys, A and B features of two sides, W features of one head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from minitx.analysis.head_maps import PerHead, RealQueries

Matrix = npt.NDArray[np.float64]


def map_similarity(p_HNK: Tensor, q_GNK: Tensor) -> Tensor:
    """(H, G): 1 - JSD (base 2) of each pair of rows, summed over the N queries.

    JSD(p, q) = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2.
    """
    entropy_HN, entropy_GN = (torch.special.entr(x).sum(-1) for x in (p_HNK, q_GNK))
    of_head = []
    for p_NK, entropy_N in zip(p_HNK, entropy_HN, strict=True):  # one head at a time: H x G maps would not fit
        between_GN = torch.special.entr((p_NK + q_GNK) / 2).sum(-1) - (entropy_N + entropy_GN) / 2
        of_head.append((1 - between_GN.clamp(min=0) / math.log(2)).sum(-1))
    return torch.stack(of_head)


class Covariance:
    """Of paired rows that come piece by piece, without the rounding that raw sums have where means are large (Chan et
    al. 1979): the deviations' sums of products."""

    def __init__(self) -> None:
        self.n = 0
        self.sum_AB = self.mean_A = self.mean_B = torch.zeros((), dtype=torch.float64)

    def add(self, x_NA: Tensor, y_NB: Tensor) -> None:
        """Take N more rows, at least one."""
        n_more = len(x_NA)
        n_all = self.n + n_more
        mean_x_A, mean_y_B = x_NA.mean(0), y_NB.mean(0)
        moved_A, moved_B = mean_x_A - self.mean_A, mean_y_B - self.mean_B
        between_AB = torch.outer(moved_A, moved_B) * (self.n * n_more / n_all)
        self.sum_AB = self.sum_AB + (x_NA - mean_x_A).T @ (y_NB - mean_y_B) + between_AB
        self.mean_A = self.mean_A + moved_A * (n_more / n_all)
        self.mean_B = self.mean_B + moved_B * (n_more / n_all)
        self.n = n_all


def linear_cka(cross_AB: Tensor, own_AA: Tensor, own_BB: Tensor, n_heads: tuple[int, int]) -> Tensor:
    """(H, G) linear CKA of each head of one side with each of the other, from the covariances of all their features,
    head after head; NaN of a head whose output never changes."""
    squares_HG = _blocks(cross_AB, *n_heads)
    size_H, size_G = (_blocks(own, n, n).diagonal().sqrt() for own, n in zip((own_AA, own_BB), n_heads, strict=True))
    return squares_HG / torch.outer(size_H, size_G)


def _blocks(cross_AB: Tensor, n_rows: int, n_columns: int) -> Tensor:
    """(H, G): the squared Frobenius norm of each pair of heads' block."""
    return cross_AB.reshape(n_rows, -1, n_columns, cross_AB.shape[1] // n_columns).square().sum((1, 3))


def effective_rank(covariance_WW: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli 2007), of the rows that this is the
    covariance of, less their mean: what is the same for every token is no information. NaN where nothing varies."""
    singular_W = torch.linalg.eigvalsh(covariance_WW).clamp(min=0).sqrt()
    return float(torch.special.entr(singular_W / singular_W.sum()).sum().exp())


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Heads against heads, and the best one-to-one matching: the pairs whose similarities have the largest sum.

    Within a layer no head is compared with itself, in the matching too. So `matched` is the largest of its kind on
    either side of a comparison of one layer with matched layers; a mean held against a maximum would decide it.
    """

    similarity: tuple[tuple[float, ...], ...]
    """H x G."""
    mean: float
    """Over all pairs; NaN where there is none."""
    pairs: tuple[tuple[int, int], ...]
    """The matching, by the first head; of the smaller number of heads all have a partner."""
    matched: float
    """Mean over the matching."""

    @classmethod
    def of(cls, similarity_HG: Matrix, *, within: bool) -> Similarity:
        """within: of one layer with itself."""
        allowed = np.eye(len(similarity_HG)) == 0 if within else np.True_
        known = np.isfinite(similarity_HG) & allowed
        # Far below any sum of similarities, which are 0 to 1: taken only where nothing else is left, and then dropped.
        first, second = linear_sum_assignment(np.where(known, similarity_HG, -1e3), maximize=True)
        pairs = tuple((int(h), int(g)) for h, g in zip(first, second, strict=True) if known[h, g])
        return cls(
            similarity=tuple(tuple(row) for row in similarity_HG.tolist()),
            mean=_mean(similarity_HG[known].tolist()),
            pairs=pairs,
            matched=_mean([float(similarity_HG[pair]) for pair in pairs]),
        )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


class SimilaritySums:
    """Of two layers' heads at the same queries, or of one layer's among themselves."""

    def __init__(self, *, within: bool) -> None:
        self.within = within
        self.n, self.n_heads = 0, (0, 0)
        self.maps_HG = torch.zeros((), dtype=torch.float64)
        self.cross = Covariance()
        self.own, self.other = (self.cross, self.cross) if within else (Covariance(), Covariance())

    def add(self, first: RealQueries, second: RealQueries) -> None:
        """Within a layer both are the same."""
        self.n += len(first.position_N)
        self.n_heads = len(first.weights_HNK), len(second.weights_HNK)
        self.maps_HG = self.maps_HG + map_similarity(first.weights_HNK, second.weights_HNK)
        x_NA, y_NB = (side.outputs_HNW.transpose(0, 1).flatten(1) for side in (first, second))
        self.cross.add(x_NA, y_NB)
        if not self.within:
            self.own.add(x_NA, x_NA)
            self.other.add(y_NB, y_NB)

    def maps(self) -> Similarity:
        """Of attention maps: mean of 1 - JSD over the queries."""
        return Similarity.of((self.maps_HG / self.n).cpu().numpy(), within=self.within)

    def outputs(self) -> Similarity:
        """Of outputs: linear CKA."""
        cka_HG = linear_cka(self.cross.sum_AB, self.own.sum_AB, self.other.sum_AB, self.n_heads)
        return Similarity.of(cka_HG.cpu().numpy(), within=self.within)

    def ranks(self) -> tuple[PerHead, float]:
        """Effective rank of what each of the first layer's heads writes, and of all of them side by side."""
        own_AA, n_heads = self.own.sum_AB, self.n_heads[0]
        parts_HWHW = own_AA.view(n_heads, -1, n_heads, len(own_AA) // n_heads)
        return tuple(effective_rank(parts_HWHW[h, :, h]) for h in range(n_heads)), effective_rank(own_AA)
