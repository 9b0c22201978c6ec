"""The masked model: predicts hidden tokens of a text from those around them (Devlin et al. 2019, section 3.1).

Letters in shapes: B rows, S source length, D model width, V vocabulary, N hidden tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import NetConfig
from minitx.nn.classifier import TextReader
from minitx.nn.layers import xavier_linear
from minitx.nn.losses import TokenPredictor


class MaskedModel(TokenPredictor, TextReader):
    """A text with hidden tokens -> the tokens that were there. A classifier can take over all of it but `transform`.

    As in BERT, the states of hidden tokens go through a transform of their own, and the token table is the output
    projection. There is no bias for each token.
    """

    def __init__(self, config: NetConfig, src_vocab: int, max_length: int) -> None:
        super().__init__(config, src_vocab, max_length)
        width = config.d_model
        self.transform = nn.Sequential(xavier_linear(width, width), nn.GELU(), nn.LayerNorm(width))

    def hidden(self, batch: Batch) -> Tensor:
        """(N, D): transformed states of the hidden tokens, in the order of `targets`."""
        assert batch.target_index is not None, "a masked model's batch says which tokens are hidden"
        picked_ND = self.states(batch).flatten(0, 1).index_select(0, batch.target_index)
        hidden: Tensor = self.transform(picked_ND)
        return hidden

    @property
    def output_weight(self) -> Tensor:
        """(V, D): the token table."""
        assert isinstance(self.src_tokens, nn.Embedding), "a table of tokens alone"
        return self.src_tokens.weight
