"""The ledger: well-known claims about self-attention, in our own words, and the study that tests each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One line of the ledger."""

    id: str
    says: str
    study: str
    """`python train.py -m study=...`"""


_LEDGER = (
    Claim("C7", "Self-attention does poorly on small data and needs much", "data_size"),
    Claim("C8a", "More heads raise quality, up to a point: four beat one, sixteen add nothing", "head_count"),
    Claim("C8b", "Heads look at different things", "head_diversity"),
    Claim("C8c", "Heads reduce over-fitting", "head_overfit"),
    Claim("C9", "Two ways to build heads: a set of Q, K, V for each, or one set cut into heads", "two_builds"),
    Claim("C5", "Cost grows with the square of the length", "cost"),
    Claim("C4", "Any two positions are one step apart, so far dependencies are learnt better", "distance"),
    Claim("C1", "Reading the whole at once beats reading it piece by piece when the answer lies in the whole", "span"),
    Claim(
        "C2", "Convolution catches local detail and lacks the whole; self-attention the other way round", "local_global"
    ),
    Claim(
        "C3", "Classic attention asks from outside; self-attention rewrites every element from all", "classic_vs_self"
    ),
    Claim("C6", "Every position is computed in parallel, so GPUs speed it up", "parallel"),
    Claim("C10", "Better algorithms cut the compute that attention needs", "cheaper"),
)
CLAIMS = {claim.id: claim for claim in _LEDGER}
