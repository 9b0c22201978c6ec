"""The `model` section: one class for each `model=` there is, chosen by `model.kind`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from minitx.config.attention import AttentionConfig
from minitx.config.base import Section, rule, setting
from minitx.errors import ConfigError

Activation = Literal["relu", "gelu"]
PoolingKind = Literal["cls", "last", "mean", "max", "attention", "additive"]


class NetConfig(Section):
    """What all nets share: a token table, an encoder of their own, a pooling and a linear head."""

    INNER: ClassVar[str | None] = None
    """The key of the width inside the encoder, which `minitx match` varies; None where there is none."""

    d_model: int = setting(128, "size", ge=1)
    """Width of token embeddings, and of the states that the head reads."""
    dropout: float = setting(0.1, "noise", ge=0, lt=1)
    """On embeddings and on every sub-layer's output."""
    token_dropout: float = setting(0.0, "noise", ge=0, lt=1)
    """Share of source tokens that are read as [UNK] in training."""
    word_dropout: float = setting(0.0, "noise", ge=0, lt=1)
    """The same for whole words, with all their tokens."""
    pooling: PoolingKind = setting("mean", "head")
    """Classification: from the states of a text to one vector. The mean or the maximum over real tokens; or a weighted
    mean, by scaled dot products with a learned query (attention) or by a small net (additive: the classic attention of
    Bahdanau et al. 2015, with a learned query as in Yang et al. 2016). cls (transformer): the first token's state;
    last (lstm): both directions' last states."""
    chunk: int | None = Field(None, ge=1)
    """Classification: texts are read in chunks of this many tokens, each by itself, and the pooling reads all of them;
    null = whole."""

    @property
    def inner_width(self) -> int | None:
        """The value of the key that INNER names, `null` resolved."""
        return None

    @property
    def depth(self) -> int:
        """Encoder layers."""
        return int(getattr(self, "n_layers", 0))

    @property
    def reads_sentences(self) -> bool:
        """Whether the model asks for sentence numbers."""
        return False


class TransformerConfig(NetConfig):
    """Encoder with a classification head, or encoder-decoder, as the task asks (Vaswani et al. 2017)."""

    INNER: ClassVar[str | None] = "d_ff"

    kind: Literal["transformer"] = "transformer"
    n_layers: int = setting(2, "size", ge=1)
    """Encoder layers."""
    n_decoder_layers: int | None = setting(None, "size", ge=1)
    """Decoder layers of a translator; null = n_layers."""
    n_heads: int = setting(4, "size", ge=1)
    head_dim: int | None = setting(None, "size", ge=1)
    """Width of one head; null = d_model / n_heads, any other value is allowed."""
    d_ff: int | None = setting(None, "size", ge=1)
    """Width of the feed-forward layer; null = 4 d_model."""
    activation: Activation = "relu"
    position: Literal["sinusoidal", "learned", "rotary", "none"] = setting("sinusoidal", "size")
    norm: Literal["pre", "post"] = setting("pre", "size")
    """Layer norm before each sub-layer (with one at the end), or after the residual sum as in the 2017 paper."""
    pooling: Literal["cls", "mean", "max", "attention", "additive"] = setting("mean", "head")
    tie_embeddings: bool = setting(True, "head")
    """Translation: decoder embedding = output projection, and = encoder embedding when the vocabulary is joint."""
    attention: AttentionConfig = AttentionConfig()

    @property
    def inner_width(self) -> int:
        return self.ff_dim

    @property
    def reads_sentences(self) -> bool:
        return self.attention.span == "sentence"

    @property
    def k_dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.d_model // self.n_heads

    @property
    def ff_dim(self) -> int:
        return self.d_ff or 4 * self.d_model

    @property
    def decoder_layers(self) -> int:
        return self.n_decoder_layers or self.n_layers

    @model_validator(mode="after")
    def _fits(self) -> TransformerConfig:
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ConfigError(
                f"model.d_model ({self.d_model}) must be divisible by model.n_heads ({self.n_heads}); "
                f"change one of them or set model.head_dim (any width is allowed)"
            )
        self.attention.check_widths(self.d_model, self.n_heads, self.k_dim)
        if self.position == "rotary" and self.k_dim % 2:
            raise rule("model.head_dim", self.k_dim, "be even, because model.position is rotary", "use an even width")
        if self.position == "sinusoidal" and self.d_model % 2:
            raise rule("model.d_model", self.d_model, "be even, because model.position is sinusoidal")
        if self.pooling == "cls" and self.attention.span != "global":
            raise rule(
                "model.pooling",
                "cls",
                f"not be cls, because model.attention.span is {self.attention.span}",
                "the first token would read its neighbourhood alone; use mean or attention",
            )
        if self.pooling == "cls" and self.chunk is not None:
            raise rule(
                "model.pooling", "cls", "not be cls, because model.chunk is set", "it would read one chunk alone"
            )
        return self


class CnnConfig(NetConfig):
    """Residual blocks of dilated one-dimensional convolutions (Kim 2014 for text; Bai et al. 2018, arXiv 1803.01271,
    for the dilated stack). Classification only."""

    INNER: ClassVar[str | None] = "channels"

    kind: Literal["cnn"] = "cnn"
    n_layers: int = setting(3, "size", ge=1)
    kernel: int = setting(3, "size", ge=1)
    """Neighbouring positions that one convolution reads, itself in the middle: odd."""
    dilation: int = Field(1, ge=1)
    """Layer i reads every dilation**i-th position (i from 0): 2 lets the field grow exponentially with depth."""
    channels: int | None = setting(None, "size", ge=1)
    """Filters of each convolution; null = d_model."""
    activation: Activation = "relu"
    pooling: Literal["mean", "max", "attention", "additive"] = setting("max", "head")

    @property
    def inner_width(self) -> int:
        return self.channels or self.d_model

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of each layer."""
        return tuple(self.dilation**i for i in range(self.n_layers))

    @property
    def receptive_field(self) -> int:
        """Positions that the state of one position depends on."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    @model_validator(mode="after")
    def _centred(self) -> CnnConfig:
        if self.kernel % 2 == 0:
            raise rule("model.kernel", self.kernel, "be odd", "a convolution reads as far to the left as to the right")
        return self


class LstmConfig(NetConfig):
    """Bidirectional LSTM (Hochreiter & Schmidhuber 1997; Graves & Schmidhuber 2005). As a translator: the same encoder
    and an LSTM decoder with additive attention to it (Bahdanau et al. 2015)."""

    INNER: ClassVar[str | None] = "hidden"

    kind: Literal["lstm"] = "lstm"
    n_layers: int = setting(1, "size", ge=1)
    n_decoder_layers: int | None = setting(None, "size", ge=1)
    """Decoder layers of a translator; null = n_layers."""
    hidden: int | None = setting(None, "size", ge=1)
    """State of one direction; null = d_model. The decoder has one direction of the same width."""
    pooling: Literal["last", "mean", "max", "attention", "additive"] = setting("additive", "head")
    tie_embeddings: bool = setting(True, "head")
    """As of the transformer."""

    @property
    def inner_width(self) -> int:
        return self.hidden or self.d_model

    @property
    def decoder_layers(self) -> int:
        return self.n_decoder_layers or self.n_layers

    @model_validator(mode="after")
    def _reads_all(self) -> LstmConfig:
        if self.pooling == "last" and self.chunk is not None:
            raise rule("model.pooling", "last", "not be last, because model.chunk is set", "use mean or additive")
        return self


class BagConfig(NetConfig):
    """Averaged embeddings of tokens and n-grams, as fastText has them (Joulin et al. 2017). Classification only.

    It is meant for words: data.tokenizer.kind=word.
    """

    kind: Literal["bag"] = "bag"
    d_model: int = setting(32, "size", ge=1)
    """Width of the embeddings, which is all there is: the head reads their mean."""
    ngrams: int = Field(2, ge=1, le=5)
    """Longest n-gram of tokens with an embedding; 1 = tokens alone."""
    buckets: int = Field(1 << 17, ge=1)
    """Rows of the table that n-grams share, by a hash."""
    pooling: Literal["mean", "max", "attention", "additive"] = setting("mean", "head")


class LinearConfig(Section):
    """TF-IDF of words and word n-grams with logistic regression, by scikit-learn. Classification only.

    It reads the texts themselves, whole and lower-cased: words of two letters or digits and more. It has no use for
    `optim`, `trainer` limits, tokeniser or `data.max_length`, and `seed` changes nothing: equal data give equal bits.
    """

    kind: Literal["linear"] = "linear"
    ngrams: int = Field(2, ge=1, le=5)
    """Longest n-gram of words."""
    min_count: int = Field(1, ge=1)
    """Training texts that an n-gram must occur in."""
    sublinear: bool = True
    """1 + log(count) instead of the count."""
    c: float | None = Field(None, gt=0)
    """Inverse strength of the L2 penalty; null = the best on validation of 1, 3, 10, 30, 100."""
    refit: bool = False
    """Fit once more on training and validation texts together, with the `c` that was chosen. The other models never
    train on validation texts, so a comparison with them leaves this off."""

    @property
    def depth(self) -> int:
        return 0


def _kind_of(value: Any) -> Any:
    """A model is a transformer where nothing else is said."""
    return value.get("kind", "transformer") if isinstance(value, dict) else getattr(value, "kind", None)


ModelConfig = Annotated[
    Annotated[TransformerConfig, Tag("transformer")]
    | Annotated[CnnConfig, Tag("cnn")]
    | Annotated[LstmConfig, Tag("lstm")]
    | Annotated[BagConfig, Tag("bag")]
    | Annotated[LinearConfig, Tag("linear")],
    Discriminator(_kind_of),
]
MODELS: dict[str, type[NetConfig] | type[LinearConfig]] = {
    "transformer": TransformerConfig,
    "cnn": CnnConfig,
    "lstm": LstmConfig,
    "bag": BagConfig,
    "linear": LinearConfig,
}
"""`model=` -> its section."""
