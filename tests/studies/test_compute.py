"""Operations of a step are those that its products have, by hand; to a loss they go by the steps that it took."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from study_helpers import composer
from tiny import ROOT

from minitx.batch import Batch
from minitx.config import ConfigError, LstmConfig, NetConfig, OptimConfig, TransformerConfig
from minitx.data import load_data
from minitx.data.batching import BatchStream
from minitx.nn.build import build_model
from minitx.nn.sizes import ModelShape
from minitx.studies.measures import BATCHES, LEVELS, at_level, count_flops, flops_per_step, losses_of
from minitx.sweeps.cells import MEASURES, add_measures, read_measures
from minitx.training.run import run

B, T, D, H, K, F, L, C = 3, 97, 10, 6, 4, 17, 2, 5
W, N = H * K, B * T  # all heads side by side; positions of a batch


def flops(config: NetConfig, **loss: Any) -> int:
    """Of one batch of B texts, one of them padded."""
    model = build_model(config, ModelShape("classification", 29, n_classes=C, max_length=T)).double()
    real = torch.arange(T) < torch.tensor([[T], [T], [41]])
    src, rows = torch.randint(5, 29, (B, T)), torch.arange(B)
    batch = Batch(rows=rows, src=src, src_mask=real, sentence=None, targets=rows)
    return count_flops(model, batch, OptimConfig(**loss))


def transformer(**attention: Any) -> TransformerConfig:
    return TransformerConfig(
        d_model=D, n_layers=L, n_heads=H, head_dim=K, d_ff=F, attention={"backend": "naive", **attention}
    )  # type: ignore[arg-type]


def expected(keys_values: int, pairs: int = T * T) -> int:
    """keys_values: multiplications that make them, for one position. pairs: of a query and a key, for one text."""
    per_position = D * W + keys_values + W * D + 2 * D * F
    forward = L * (N * per_position + 2 * B * pairs * W) + B * D * C
    return 3 * 2 * forward  # a product and a sum each; backwards there are two products for one


@pytest.mark.parametrize(
    ("attention", "keys_values"),
    [
        pytest.param({}, 2 * D * W, id="all"),
        pytest.param({"n_kv_heads": 2}, 2 * D * 2 * K, id="shared"),
        pytest.param({"kv_rank": 7}, D * 7 + 2 * 7 * W, id="low-rank"),
        pytest.param({"n_kv_heads": 3, "kv_rank": 7}, D * 7 + 2 * 7 * 3 * K, id="shared-of-rank"),
        pytest.param({"tie_query_key": True}, D * W, id="tied"),
    ],
)
def test_a_transformer_takes_what_its_products_have(attention: dict[str, Any], keys_values: int) -> None:
    assert flops(transformer(**attention)) == expected(keys_values)


def test_a_window_is_counted_in_its_blocks() -> None:
    blocks, size, keys = 4, 32, 32 + 2 * 5  # 97 positions need a fourth block of 32
    assert flops(transformer(span="window", window=5)) == expected(2 * D * W, blocks * size * keys)


def test_a_second_pass_of_r_drop_counts() -> None:
    assert flops(transformer(), r_drop=1.0) == 2 * flops(transformer())


def test_a_recurrence_is_counted() -> None:
    hidden = 7
    gates = N * 4 * hidden * (D + hidden)
    first = B * 4 * hidden * hidden  # the state before the first position is no weight's doing: it has no gradient
    forward = 2 * gates + N * 2 * hidden * D + B * D * C
    assert flops(LstmConfig(d_model=D, hidden=hidden, pooling="mean")) == 3 * 2 * forward - 2 * 2 * first


def test_a_level_is_reached_between_two_points_in_proportion() -> None:
    curve = [(2.0, 10.0), (1.0, 20.0), (1.4, 30.0), (0.5, 40.0)]
    assert at_level(curve, 1.5) == 15.0 and at_level(curve, 1.0) == 20.0
    assert at_level(curve, 0.95) == pytest.approx(30 + 10 * 0.45 / 0.9)
    assert at_level(curve, 2.0) is None and at_level(curve, 0.4) is None and at_level([], 1.0) is None


def test_a_run_is_counted_on_its_own_batches(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    config = composer(tiny_classes)(["trainer.accumulate=2", "trainer.eval_every=2", "trainer.max_steps=8"])
    run(config, tmp_path, quiet=True)
    add_measures(tmp_path, [MEASURES["compute"]])
    found = read_measures(tmp_path)

    assert isinstance(config.model, TransformerConfig)
    data, net = load_data(config.data), config.model
    split, n_classes = data.splits["train"], len(data.label_names or ())
    stream, total = BatchStream(split.lengths, config.trainer.batch_tokens, config.seed, config.trainer.batch_rows), 0
    for _ in range(BATCHES):
        n_rows, length = split.batch(stream.next()).src.shape
        positions = n_rows * length * (4 * net.d_model * net.d_model + 2 * net.d_model * net.ff_dim)
        pairs = 2 * n_rows * length**2 * net.d_model
        total += 6 * (net.n_layers * (positions + pairs) + n_rows * net.d_model * n_classes)
    assert found["compute.flops_per_step"] == 2 * total / BATCHES
    assert found["compute.gflops"] == pytest.approx(8 * found["compute.flops_per_step"] / 1e9)

    losses = losses_of(tmp_path, "validation")
    assert [*losses] == [2, 4, 6, 8]
    levels = {float(key.partition("_to_")[2]) for key in found if "_to_" in key}
    assert levels == {level for level in LEVELS if min(losses.values()) <= level < losses[2]}


def test_levels_are_read_from_the_log(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    run(composer(tiny_classes)(["trainer.max_steps=3"]), tmp_path, quiet=True)
    lines = [{"split": "validation", "step": s, "loss": loss} for s, loss in ((10, 1.1), (20, 0.9), (30, 0.65))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    add_measures(tmp_path, [MEASURES["compute"]])
    found = read_measures(tmp_path)
    steps = {k.removeprefix("compute."): v * 1e9 / found["compute.flops_per_step"] for k, v in found.items()}
    del steps["flops_per_step"]
    assert steps == pytest.approx({"gflops": 30, "gflops_to_1": 15, "gflops_to_0.8": 24, "gflops_to_0.7": 28})


def test_what_is_not_counted_is_refused(tiny_classes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="because the study counts operations"):
        flops_per_step(composer(tiny_classes)(["pretrain.kind=masked"]))


def test_studies_ask_for_levels_that_are_counted() -> None:
    asked = set()
    for path in (ROOT / "conf" / "study").glob("*.yaml"):
        asked |= set(re.findall(r"compute\.gflops_to_[\d.]+", path.read_text(encoding="utf-8")))
    assert asked and asked <= {f"compute.gflops_to_{level:g}" for level in LEVELS}
