"""The `model.attention` section, and the rules of what may be left out of the projections."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from minitx.config.base import Section, rule, setting

KEY = "model.attention"
PLAIN: dict[str, Any] = {"n_kv_heads": None, "kv_rank": None, "tie_query_key": False, "project_values": True}
"""The keys that can leave weights out, and the values with which they leave none."""


class AttentionConfig(Section):
    """Our multi-head attention. `split` and `grouped` are the same function; their weights convert both ways.

    `n_kv_heads`, `kv_rank`, `tie_query_key` and `project_values` leave weights out, in self-attention and in
    cross-attention alike, and need `heads: split`. The first two go together, and so do the last two.
    """

    heads: Literal["split", "grouped"] = "split"
    """split: one Q, K, V projection cut into heads; grouped: one set of Q, K, V projections per head."""
    n_kv_heads: int | None = setting(None, "size", ge=1)
    """Heads of keys and values, each shared by n_heads / n_kv_heads heads of queries; decoding keeps these alone. 1 is
    multi-query attention (Shazeer 2019, arXiv 1911.02150), more are grouped-query attention (Ainslie et al. 2023, arXiv
    2305.13245); null = n_heads."""
    kv_rank: int | None = setting(None, "size", ge=1)
    """Keys and values of all heads are made from one vector of this width per position, as in multi-head latent
    attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), without its rotary part and query compression; decoding
    keeps the keys and values. null = straight from the states."""
    tie_query_key: bool = setting(False, "size")
    """Queries and keys are one projection. In cross-attention, of the states and of the memory."""
    project_values: bool = setting(True, "size")
    """false: values are the states (in cross-attention the memory's) themselves, cut into heads."""
    span: Literal["global", "window", "sentence"] = "global"
    """What self-attention may read, in every layer: all, +-`window` positions, or its own sentence."""
    window: int = Field(8, ge=0)
    """Positions on each side that `span: window` reads (only earlier ones in a decoder). With 0 a position reads itself
    alone: a model of the same weights in which nothing is mixed."""
    dropout: float = setting(0.0, "noise", ge=0, lt=1)
    """On the attention weights; fast kernels have none on the CPU, so it is apart from `model.dropout`."""
    backend: Literal["auto", "naive", "sdpa"] = "auto"
    """naive: plain matrix products; sdpa: torch's fused kernel; auto picks by device, type and length."""

    @property
    def left_out(self) -> dict[str, Any]:
        """Those of the keys `PLAIN` that are set."""
        return {key: getattr(self, key) for key, value in PLAIN.items() if getattr(self, key) != value}

    @model_validator(mode="after")
    def _combines(self) -> AttentionConfig:
        left_out, remedy = self.left_out, "leave one of them out"
        if left_out and self.heads == "grouped":
            raise rule(f"{KEY}.heads", self.heads, f"be split, because {KEY}.{next(iter(left_out))} is set", remedy)
        for shared in ("n_kv_heads", "kv_rank"):
            why = f"because {KEY}.{shared} is set"
            if shared in left_out and self.tie_query_key:
                raise rule(f"{KEY}.tie_query_key", True, f"be false, {why}", remedy)
            if shared in left_out and not self.project_values:
                raise rule(f"{KEY}.project_values", False, f"be true, {why}", remedy)
        return self

    def check_widths(self, d_model: int, n_heads: int, head_dim: int) -> None:
        """That a model of these widths can leave out what is asked for.

        Raises:
            ConfigError: names the key.
        """
        if self.n_kv_heads is not None and n_heads % self.n_kv_heads:
            divisors = ", ".join(str(n) for n in range(1, n_heads + 1) if n_heads % n == 0)
            raise rule(f"{KEY}.n_kv_heads", self.n_kv_heads, f"divide model.n_heads ({n_heads})", f"use {divisors}")
        if not self.project_values and n_heads * head_dim != d_model:
            widths = f"model.n_heads x model.head_dim ({n_heads} x {head_dim})"
            why = f"because {widths} is not model.d_model ({d_model})"
            raise rule(f"{KEY}.project_values", False, f"be true, {why}", "set model.head_dim=null")
