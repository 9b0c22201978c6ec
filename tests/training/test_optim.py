"""The optimiser equals torch's own on the right groups; each schedule equals its formula written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from minitx.config import AverageConfig, OptimConfig, TransformerConfig
from minitx.nn.classifier import Classifier
from minitx.nn.losses import summed_cross_entropy
from minitx.nn.translator import Translator
from minitx.training.optim import WeightAverage, build_optimizer, learning_rate


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 5)
        self.linear = nn.Linear(5, 3)
        self.norm = nn.LayerNorm(3)


def test_only_matrices_decay() -> None:
    model = Small()
    groups = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "table.weight": 0.0, "linear.weight": 0.3, "linear.bias": 0.0, "norm.weight": 0.0, "norm.bias": 0.0,
    }  # fmt: skip


def test_one_step_is_adamw_by_hand() -> None:
    """Loshchilov & Hutter, algorithm 2, first step: m/(1-b1) = g, v/(1-b2) = g^2."""
    model = nn.Linear(3, 2, bias=False).double()
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, OptimConfig(lr=0.05, weight_decay=0.3, eps=1e-9))
    gradient = torch.randn(2, 3, dtype=torch.float64)
    model.weight.grad = gradient.clone()
    optimizer.step()
    expected = before - 0.05 * (gradient / (gradient.abs() + 1e-9) + 0.3 * before)
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("step", [0, 3, 9, 10, 11, 37, 99])
def test_schedules_equal_their_formulas(step: int) -> None:
    def at(schedule: str, **keys: float) -> float:
        config = OptimConfig(lr=0.2, warmup_steps=10, schedule=schedule, **keys)  # type: ignore[arg-type]
        return learning_rate(config, step, total_steps=100)

    warm = 0.2 * (step + 1) / 10
    done = (step + 1 - 10) / 91
    expected = {
        "constant": 0.2,
        "linear": 0.2 * (1 - done),
        "cosine": 0.2 * (1 + math.cos(math.pi * done)) / 2,
        "inverse_sqrt": 0.2 * math.sqrt(10 / (step + 1)),
    }
    for schedule, value in expected.items():
        assert at(schedule) == pytest.approx(warm if step < 10 else value, abs=1e-15)
    assert at("linear") > 0
    if step >= 10:
        assert at("linear", min_lr_ratio=0.25) == pytest.approx(0.2 * (0.25 + 0.75 * (1 - done)))


def test_warmup_is_a_share_of_the_run_unless_given() -> None:
    config = OptimConfig(lr=1.0, warmup_ratio=0.2, schedule="constant")
    assert [learning_rate(config, s, 20) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(config.model_copy(update={"warmup_steps": 0}), 0, 20) == 1.0


def test_loss_is_the_smoothing_table_by_hand() -> None:
    """Szegedy et al.: the target distribution puts eps/C everywhere and 1-eps more on the true class."""
    n, classes, smoothing = 5, 7, 0.3
    logits = torch.randn(n, classes, dtype=torch.float64)
    targets = torch.randint(classes, (n,))
    table = torch.full((n, classes), smoothing / classes, dtype=torch.float64)
    table[torch.arange(n), targets] += 1 - smoothing
    expected = -(table * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(summed_cross_entropy(logits, targets, smoothing), expected, rtol=1e-12, atol=1e-12)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.randn(4096, 3).bfloat16()
    targets = torch.zeros(4096, dtype=torch.int64)
    exact = summed_cross_entropy(logits.double(), targets)
    assert summed_cross_entropy(logits, targets).item() == pytest.approx(exact.item(), rel=1e-5)


def test_ema_equals_the_recursion_and_lends_itself() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, AverageConfig(kind="ema", decay=0.9))
    expected = model.weight.detach().clone()
    for step in range(1, 8):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        average.after_step(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    own = model.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, own)


def test_last_k_is_the_mean_of_the_last_validations_and_survives_a_round_trip() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, AverageConfig(kind="last", k=3))
    seen = []
    for _ in range(5):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.at_validation()
        seen.append(model.weight.detach().clone())
    again = WeightAverage(model, AverageConfig(kind="last", k=3))
    again.load_state(average.state())
    for one in (average, again):
        with one.applied():
            torch.testing.assert_close(model.weight.detach(), torch.stack(seen[-3:]).mean(0))


def test_without_averaging_nothing_is_kept() -> None:
    average = WeightAverage(nn.Linear(3, 2), AverageConfig())
    average.after_step(1)
    average.at_validation()
    assert average.state() == {}


@pytest.mark.parametrize("tied", [True, False])
def test_which_parts_of_a_translator_decay(tied: bool) -> None:
    """Matrices, the output projection among them; no token table, tied or not, no learned position, bias or norm."""
    config = TransformerConfig(d_model=12, n_heads=3, d_ff=7, position="learned", tie_embeddings=tied)
    model = Translator(config, src_vocab=11, tgt_vocab=13, joint=False, max_length=5)
    decays = decaying(model)
    assert {name for name in decays if not name.startswith(("encoder.layers", "decoder.layers"))} == (
        set() if tied else {"output.weight"}
    )
    tables = {n for n, p in model.named_parameters() if p.ndim == 2 and n not in decays}
    assert tables == {
        "src_tokens.weight", "tgt_tokens.weight", "encoder.positions.learned", "decoder.positions.learned"
    }  # fmt: skip


def test_a_classifiers_head_decays_as_an_output_projection_does() -> None:
    model = Classifier(TransformerConfig(d_model=12, n_heads=3, d_ff=7), src_vocab=11, n_classes=5, max_length=7)
    assert "head.weight" in decaying(model) and "head.bias" not in decaying(model)


def decaying(model: nn.Module) -> set[str]:
    """Names of the parameters that have weight decay."""
    groups = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    decay = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    return {name for name, p in model.named_parameters() if id(p) in decay}
