"""Where a token stands: sinusoids, learned vectors, rotation of queries and keys, or nothing.

Letters in shapes: B rows, H heads, T positions, D model width, K head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

PositionKind = Literal["sinusoidal", "learned", "rotary", "none"]


@dataclass(frozen=True, eq=False)
class Rotation:
    """The cosine and sine, (T, K) each, by which `rotate` turns the queries or keys of T positions.

    Pair i is (a, b), elements i and i + K / 2; it becomes (a cos - b sin, b cos + a sin). So a row holds its cosines
    twice, and its sines twice, negative in the first half.
    """

    cos: Tensor
    sin: Tensor

    def first(self, n: int | None) -> Rotation:
        """That of the first n positions; None = all."""
        return self if n is None else Rotation(self.cos[:n], self.sin[:n])


class Positions(nn.Module):
    """What a stack of layers needs to know about position, whichever kind it is.

    Sinusoids and rotation are tables of `max_length` rows, extended on the fly for a longer text; learned positions end
    at `max_length`, and a longer text is a ValueError.
    """

    def __init__(self, kind: PositionKind, d_model: int, head_dim: int, max_length: int) -> None:
        super().__init__()
        self.kind, self.max_length = kind, max_length
        self.scale = math.sqrt(d_model)
        self.width = head_dim if kind == "rotary" else d_model
        self.learned: nn.Parameter | None = None
        if kind == "learned":
            # As loud as the sinusoids, whose mean square is 1/2.
            self.learned = nn.Parameter(torch.randn(max_length, d_model) * 0.5**0.5)
        table = sinusoids(max_length, self.width) if kind in ("sinusoidal", "rotary") else None
        self.register_buffer("table", table, persistent=False)

    def embed(self, tokens_BTD: Tensor, offset: int = 0) -> Tensor:
        """sqrt(D) times the token embeddings (Vaswani et al. 2017, section 3.4), plus their positions from `offset`."""
        if self.kind in ("rotary", "none"):
            return tokens_BTD * self.scale
        return torch.add(self._rows(tokens_BTD.shape[1], offset), tokens_BTD, alpha=self.scale)

    def rotation(self, length: int, offset: int = 0) -> Rotation | None:
        """The rotation of positions offset .. offset + length; None unless the kind is rotary."""
        if self.kind != "rotary":
            return None
        sin, cos = torch.unflatten(self._rows(length, offset), -1, (-1, 2)).unbind(-1)
        return Rotation(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))

    def _rows(self, length: int, offset: int) -> Tensor:
        end = offset + length
        if self.learned is not None:
            if end > self.max_length:
                raise ValueError(
                    f"a text of {end} tokens is longer than the {self.max_length} learned positions; "
                    f"cut it, or train with a larger data.max_length or another model.position"
                )
            return self.learned[offset:end]
        table = self.get_buffer("table")
        if end > table.shape[0]:
            table = sinusoids(end, self.width).to(table)
        return table[offset:end]


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width): sin at even and cos at odd columns, of position / 10000^(2i / width) (Vaswani 2017, 3.5)."""
    rate = torch.pow(10000.0, -torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(torch.get_default_dtype())


def rotate(x_BHTK: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of a query's or key's elements by its position (RoFormer, arXiv 2104.09864, section 3.2).

    Afterwards q . k depends on position by the distance of the two alone. Pairs are (i, i + K/2), the paper's
    (2i, 2i + 1) up to a fixed reordering of the elements, because halves are cheaper to exchange than every other
    element. In bfloat16 it is computed in the table's float32, backwards too.
    """
    x = x_BHTK.to(torch.promote_types(x_BHTK.dtype, rotation.cos.dtype))
    partner = torch.roll(x, x.shape[-1] // 2, dims=-1)
    turned = x * rotation.cos + partner * rotation.sin
    return turned.to(x_BHTK.dtype, memory_format=torch.contiguous_format)  # as matrix products read it
