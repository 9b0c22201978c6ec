"""A source text and the target so far to logits of the next target token.

Letters in shapes: B rows, T target length, S source length, D model width, V vocabulary, N real targets.
"""

from __future__ import annotations

from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import LstmConfig, TransformerConfig
from minitx.nn.attention.cache import StepCache
from minitx.nn.encoders import TextDecoder, make_decoder, make_encoder
from minitx.nn.layers import output_projection, token_table
from minitx.nn.losses import TokenPredictor

LEAST_EXPANSION = 8
"""Room for words that are read whole and written letter by letter."""
SPARE_TOKENS = 32
"""Room that an output has whatever its source's length."""


class Translator(TokenPredictor, nn.Module):
    """A source text and the target so far -> logits of the next target token.

    tie_embeddings: the decoder's token table is the output projection, and with a joint vocabulary the encoder's too.
    A table that serves twice is held once: then `tgt_tokens` or `output` is None, and no weight has two names.
    """

    def __init__(
        self,
        config: TransformerConfig | LstmConfig,
        src_vocab: int,
        tgt_vocab: int,
        joint: bool,
        max_length: int,
        expansion: int = LEAST_EXPANSION,
    ) -> None:
        """max_length: tokens of the longest text of either side. expansion: see `output_limit`."""
        super().__init__()
        self.expansion = expansion
        tied = config.tie_embeddings
        self.src_tokens = token_table(src_vocab, config.d_model)
        self.tgt_tokens = None if tied and joint else token_table(tgt_vocab, config.d_model)
        self.encoder = make_encoder(config, max_length)
        self.decoder: TextDecoder = make_decoder(config, max_length)
        self.output = None if tied else output_projection(tgt_vocab, config.d_model)

    def hidden(self, batch: Batch) -> Tensor:
        """(N, D): the decoder's states at the real targets, in their order."""
        assert batch.tgt_in is not None and batch.target_index is not None, "a translator's batch has targets"
        memory = self.encode(batch.src, batch.src_mask, batch.sentence)
        hidden = self.decode(batch.tgt_in, memory, batch.src_mask)
        return hidden.flatten(0, 1).index_select(0, batch.target_index)

    def encode(self, src: Tensor, src_mask: Tensor | None = None, sentence: Tensor | None = None) -> Tensor:
        """(B, S) ids -> memory (B, S, D). src_mask: (B, S) bool, True = real token, None = none is padded."""
        memory: Tensor = self.encoder(self.src_tokens(src), src_mask, sentence)
        return memory

    def decode(
        self, tgt_in: Tensor, memory: Tensor, src_mask: Tensor | None = None, cache: StepCache | None = None
    ) -> Tensor:
        """(B, T) ids -> hidden states (B, T, D).

        cache: from `new_cache`; tgt_in then holds only the tokens after those already decoded. Without gradients.
        Padded targets need no mask: they stand on the right, where a causal decoder never looks from a real token.
        """
        tokens = (self.tgt_tokens or self.src_tokens)(tgt_in)
        hidden: Tensor = self.decoder(tokens, memory, src_mask, cache)
        return hidden

    @property
    def output_weight(self) -> Tensor:
        """(V, D): of the output projection, which is the decoder's token table where they are tied."""
        return (self.output or self.tgt_tokens or self.src_tokens).weight

    def output_limit(self, src_length: int) -> int:
        """Tokens that an output may have, the end included: what the model was built for, and less for a short source.

        A model that has not yet learned to end would otherwise write to the limit for every row.
        """
        return min(self.decoder.max_length, self.expansion * src_length + SPARE_TOKENS)

    def new_cache(self, memory: Tensor) -> StepCache:
        """For decoding token by token: `cache.select` keeps rows; select `memory` and `src_mask` alike."""
        return self.decoder.new_cache(memory)
