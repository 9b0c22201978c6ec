"""A translator as two programs: the encoder, once for a text, and one step of the decoder for each token written.

    encoder: ids, mask [, sentence]      -> memory ..., cache ...
    step:    token, mask, memory, cache  -> logits of the next token, cache ...

Memory and cache are lists of tensors whose meaning only the programs know: who decodes hands the cache that a step gave
to the next one. The encoder gives the first cache. Of a Transformer that is keys and values of no positions, of an LSTM
its first states.

Letters in shapes: B rows, S source tokens, T target tokens decoded before, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from minitx.batch import BOS, EOS, SPECIAL_TOKENS, Batch
from minitx.decoding.greedy import greedy
from minitx.decoding.inference import full_logits
from minitx.errors import RunError
from minitx.export.programs import (
    EXAMPLE,
    TOLERANCE,
    ProgramForm,
    Run,
    check_close,
    check_length,
    source_axes,
    source_example,
    source_shapes,
    source_signature,
    trace,
    write_program,
)
from minitx.nn.attention.cache import DecoderCache, KeyValueCache, LstmCache
from minitx.nn.baselines.lstm import LstmDecoder
from minitx.nn.transformer import Decoder
from minitx.nn.translator import SPARE_TOKENS, Translator
from minitx.predictor import Predictor

Axes = dict[int, Any]
Lists = tuple[list[Tensor], list[Tensor]]
"""Memory and cache."""
CHECKED_STEPS = 12
"""Tokens of each row that are compared with the run."""


class Kept(Protocol):
    """What one kind of decoder keeps between steps, as lists of tensors."""

    def first(self, memory: Tensor, mask: Tensor) -> Lists:
        """From the encoder's states."""
        ...

    def hidden(self, token: Tensor, mask: Tensor, memory: list[Tensor], cache: list[Tensor]) -> Lists:
        """[the state (B, 1, D) of the next token], and the cache after it."""
        ...

    def axes(self, rows: Any, source: Any, past: Any) -> tuple[list[Axes], list[Axes]]:
        """Which axes of memory and cache vary."""
        ...


class KeptKeys:
    """Of a Transformer: keys and values (B, H, S, K) of each layer, of the memory and of the target so far."""

    def __init__(self, model: Translator, decoder: Decoder) -> None:
        self.model, self.decoder = model, decoder

    def first(self, memory: Tensor, mask: Tensor) -> Lists:
        pairs = [attention.project.keys_values(memory) for attention in self.decoder.cross_attentions()]
        kept = [tensor for pair in pairs for tensor in pair]
        # As many heads as the layers' own attention has: both are made from one configuration.
        return kept, [tensor[:, :, :0].clone() for tensor in kept]

    def hidden(self, token: Tensor, mask: Tensor, memory: list[Tensor], cache: list[Tensor]) -> Lists:
        state = DecoderCache(0)
        state.cross, state.own = _key_values(memory), _key_values(cache)
        # Of the memory only its shape is read: its keys and values are kept.
        hidden = self.model.decode(token, mask[..., None], mask, state)
        return [hidden], [tensor for kept in state.own for tensor in kept.read()]

    def axes(self, rows: Any, source: Any, past: Any) -> tuple[list[Axes], list[Axes]]:
        n = 2 * len(self.decoder.layers)
        return [{0: rows, 2: source}] * n, [{0: rows, 2: past}] * n


class ConcatenatedCache(KeyValueCache):
    """A `KeyValueCache` without room to spare: a program has no place to write into."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self._keys, self._values, self.length = keys, values, keys.shape[2]

    def append(self, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        assert self._keys is not None and self._values is not None
        self._keys, self._values = torch.cat([self._keys, k_BHTK], 2), torch.cat([self._values, v_BHTK], 2)
        self.length = self.length + k_BHTK.shape[2]
        return self._keys, self._values

    def read(self) -> tuple[Tensor, Tensor]:
        assert self._keys is not None and self._values is not None
        return self._keys, self._values


def _key_values(tensors: Sequence[Tensor]) -> list[KeyValueCache]:
    return [ConcatenatedCache(keys, values) for keys, values in zip(tensors[::2], tensors[1::2], strict=True)]


class KeptStates:
    """Of an LSTM: the memory (B, S, D) and its keys (B, S, A); h and cell (1, B, H) of each layer."""

    def __init__(self, model: Translator, decoder: LstmDecoder) -> None:
        self.model, self.decoder = model, decoder

    def first(self, memory: Tensor, mask: Tensor) -> Lists:
        states = self.decoder.first_states(memory, mask, memory.shape[0])
        return [memory, self.decoder.attention.keys(memory)], [tensor for state in states for tensor in state]

    def hidden(self, token: Tensor, mask: Tensor, memory: list[Tensor], cache: list[Tensor]) -> Lists:
        states, keys = memory
        kept = LstmCache(keys)
        kept.states = list(zip(cache[::2], cache[1::2], strict=True))
        hidden = self.model.decode(token, states, mask, kept)
        return [hidden], [tensor for state in kept.states for tensor in state]

    def axes(self, rows: Any, source: Any, past: Any) -> tuple[list[Axes], list[Axes]]:
        return [{0: rows, 1: source}] * 2, [{1: rows}] * (2 * len(self.decoder.layers))


class EncoderProgram(nn.Module):
    """Source ids (B, S) int64, their mask (B, S) bool, True = real token, and sentence numbers where they are read ->
    memory and the first cache."""

    def __init__(self, model: Translator, kept: Kept) -> None:
        super().__init__()
        self.model, self._kept = model, kept

    def forward(self, ids: Tensor, mask: Tensor, sentence: Tensor | None = None) -> Lists:
        return self._kept.first(self.model.encode(ids, mask, sentence), mask)


class StepProgram(nn.Module):
    """The last token (B, 1) int64, BOS at first, with mask, memory and cache -> logits (B, V) float32 of the next one,
    and the cache."""

    def __init__(self, model: Translator, kept: Kept) -> None:
        super().__init__()
        self.model, self._kept = model, kept

    def forward(
        self, token: Tensor, mask: Tensor, memory: list[Tensor], cache: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        [hidden], cache = self._kept.hidden(token, mask, memory, cache)
        return full_logits(self.model, hidden[:, -1]).float(), cache


def export_translator(model: Translator, predictor: Predictor, folder: Path, form: ProgramForm) -> dict[str, Any]:
    """Write the two programs and compare them with the run; returns how they are called.

    Raises:
        ConfigError: texts are too short for a program of any length.
        RunError: the programs do not say what the run says.
    """
    check_length(predictor)
    model = model.float().cpu()
    decoder = model.decoder
    assert isinstance(decoder, Decoder | LstmDecoder)
    kept: Kept = KeptKeys(model, decoder) if isinstance(decoder, Decoder) else KeptStates(model, decoder)
    encoder, step = EncoderProgram(model, kept).eval(), StepProgram(model, kept).eval()
    rows, source = source_axes(predictor)
    past = torch.export.Dim("past", min=0, max=decoder.max_length - 1)
    example = source_example(predictor, *EXAMPLE)
    memory, cache = _after_steps(encoder, step, example, 3)
    token = torch.full((EXAMPLE[0], 1), BOS)
    whole = {0: rows, 1: source}
    programs = {
        "encoder": trace(encoder, example, tuple(whole for _ in example)),
        "step": trace(step, (token, example[1], memory, cache), ({0: rows}, whole, *kept.axes(rows, source, past))),
    }
    runs = {name: write_program(program, folder, name, form) for name, program in programs.items()}
    for n_rows, length in source_shapes(predictor):
        _compare(model, runs["encoder"], runs["step"], source_example(predictor, n_rows, length, seed=1), len(memory))
    return _signature(model, predictor, len(memory))


@torch.no_grad()
def _after_steps(encoder: EncoderProgram, step: StepProgram, example: tuple[Tensor, ...], n: int) -> Lists:
    """Memory and the cache after n steps: one with positions in it, because a size of 0 or 1 would be taken for
    fixed."""
    memory, cache = encoder(*example)
    for _ in range(n):
        _, cache = step(torch.full((EXAMPLE[0], 1), BOS), example[1], memory, cache)
    return memory, cache


@torch.no_grad()
def _compare(model: Translator, encoder: Run, step: Run, source: tuple[Tensor, ...], n_memory: int) -> None:
    """That the programs write what the run writes greedily, the run's own output before each token.

    Raises:
        RunError: a token, or a probability of one, is another. Where the two likeliest are as good as equal either is
            right.
    """
    ids, mask, *sentence = source
    nothing = ids[:0, 0]
    batch = Batch(rows=nothing, src=ids, src_mask=mask, sentence=sentence[0] if sentence else None, targets=nothing)
    where, n_steps = f"{ids.shape[0]} rows of {ids.shape[1]} tokens", min(CHECKED_STEPS, model.decoder.max_length)
    written_BT = np.full((len(ids), n_steps), EOS)
    for row, tokens in enumerate(greedy(model, batch, n_steps)):
        written_BT[row, : len(tokens)] = tokens
    fed_BT = torch.from_numpy(np.concatenate([np.full((len(ids), 1), BOS), written_BT[:, :-1]], axis=1))
    memory_BSD = model.encode(ids, mask, batch.sentence)
    wanted_BTV = full_logits(model, model.decode(fed_BT, memory_BSD, mask)).float().softmax(-1)
    kept = encoder(*source)
    memory, cache = kept[:n_memory], kept[n_memory:]
    for t in range(n_steps):
        logits_BV, *cache = step(fed_BT[:, t : t + 1], mask, memory, cache)
        found_BV = logits_BV.softmax(-1)
        check_close(found_BV, wanted_BTV[:, t], f"token {t + 1} of {where}")
        _check_tokens(found_BV, torch.from_numpy(written_BT[:, t]), fed_BT[:, : t + 1], f"token {t + 1} of {where}")


def _check_tokens(found_BV: Tensor, written_B: Tensor, fed_BT: Tensor, where: str) -> None:
    """That the likeliest tokens are those that the run wrote, in rows that have not ended."""
    going_B = (fed_BT != EOS).all(1)
    short_B = found_BV.amax(1) - found_BV.gather(1, written_B[:, None])[:, 0]
    if bool((going_B & (short_B > 2 * TOLERANCE)).any()):
        raise RunError(f"the exported program writes another {where} than the run; please report it")


def _signature(model: Translator, predictor: Predictor, n_memory: int) -> dict[str, Any]:
    source = source_signature(predictor)
    return {
        **source,
        "encoder": {"inputs": source.pop("inputs"), "outputs": f"memory ({n_memory} tensors), then the first cache"},
        "step": {
            "inputs": "token int64 (rows, 1), mask, memory, cache",
            "outputs": "logits float32 (rows, vocabulary) of the next token, then the cache for the next step",
        },
        "n_memory": n_memory,
        "bos_id": BOS,
        "eos_id": EOS,
        "n_special": len(SPECIAL_TOKENS),
        "output_limit": {"most": model.decoder.max_length, "per_source_token": model.expansion, "spare": SPARE_TOKENS},
        "no_space_between": predictor.processor.output_tokenizer.no_space_between,
    }
