"""The one FLOP formula against torch's own counter, which sees every matrix product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minitx.bench import ours, torch_models
from minitx.bench.jobs import Ids, Size
from minitx.bench.measure import count_flops
from minitx.bench.workloads import load_split

CLASSIFIER = Size(d_model=24, n_layers=3, n_heads=2, d_ff=40, dropout=0.0, vocab=50, max_length=17, n_classes=3)
TRANSLATOR = CLASSIFIER.model_copy(update={"task": "translation"})
ROWS = 5


def counted(step: object) -> float:
    """Operations of a forward and backward pass. The plain kernel, because the counter does not know the CPU's fused
    one."""
    assert callable(step)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(step().sum())
    return float(counter.get_total_flops())


@pytest.mark.parametrize("size", [CLASSIFIER, TRANSLATOR], ids=lambda size: size.task)
def test_the_formula_counts_what_our_model_computes(size: Size) -> None:
    split = load_split(size, Ids(source="full", rows=ROWS))
    batch, model = split.batch(np.arange(ROWS), sentences=False), ours.build(size)
    first_only = ours.computes_first_only(model, split)
    lengths = split.src.lengths
    targets = None if split.tgt is None else split.tgt.lengths
    expected = count_flops(size, lengths, targets, first_only=first_only).training
    assert counted(lambda: model.train()(batch)) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("size", [CLASSIFIER, TRANSLATOR], ids=lambda size: size.task)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_formula_counts_what_torch_computes(size: Size) -> None:
    """torch's own layers compute every position."""
    split = load_split(size, Ids(source="full", rows=ROWS))
    src = torch_models.padded(split.src, range(ROWS))
    if split.tgt is None:
        classifier, targets = torch_models.TorchClassifier(size), None
        measured = counted(lambda: classifier(src))
    else:
        translator, targets = torch_models.TorchTranslator(size), split.tgt.lengths
        tgt = torch_models.padded(split.tgt, range(ROWS))
        measured = counted(lambda: translator(src, tgt))
    assert measured == pytest.approx(count_flops(size, split.src.lengths, targets).training, rel=0.03)


def test_the_first_position_alone_costs_less_in_the_last_layer_only() -> None:
    """By hand, D = 2, F = 3, one layer, one row of 5: keys and values of all five, all else once."""
    size = Size(d_model=2, n_layers=1, n_heads=1, d_ff=3, n_classes=4)
    flops = count_flops(size, np.array([5]), first_only=True)
    assert flops.encoder == 2 * (2 * 4 * 5) + 2 * (2 * 4) + 2 * (2 * 2 * 3)
    assert flops.attention == 4 * 1 * 5 * 2
    assert flops.output == 2 * 2 * 4
    assert count_flops(size, np.array([5]), pooler=True).output == flops.output + 2 * 2 * 2


def test_padding_is_never_counted_and_attention_grows_with_the_square() -> None:
    size = CLASSIFIER
    short, long = (count_flops(size, np.array([n])) for n in (10, 20))
    assert long.encoder == 2 * short.encoder and long.attention == 4 * short.attention
    both = count_flops(size, np.array([10, 20]))
    assert both.forward == short.forward + long.forward
