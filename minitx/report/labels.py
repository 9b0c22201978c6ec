"""What measures and the axes of figures are called, in words that a student knows, in English and Chinese."""

from __future__ import annotations

import math
from collections.abc import Mapping

from minitx.report.phrases import Language, spoken

MEASURE_LABELS: Mapping[str, tuple[str, str]] = {
    "test.accuracy": ("test accuracy (higher is better)", "测试准确率（越高越好）"),
    "test.masked_accuracy": ("hidden words guessed (higher is better)", "猜中被遮词的比例（越高越好）"),
    "test.per": ("phoneme error rate (lower is better)", "音素错误率（越低越好）"),
    "loss.test": ("test loss in nats (lower is better)", "测试损失，纳特（越低越好）"),
    "updates.log2_to_0.9": (
        "updates to 90 % accuracy, log2 (lower is sooner)",
        "达到 90% 准确率的更新次数，log2（越低越快）",
    ),
    "fit.mean_gap": ("over-fitting: validation less training loss", "过拟合：验证损失减训练损失"),
    "across.maps_less": (
        "likeness of maps between seeds, less within a layer",
        "注意力图的相似度：不同种子之间减同层之内",
    ),
    "across.outputs_less": (
        "likeness of outputs between seeds, less within a layer",
        "头输出的相似度：不同种子之间减同层之内",
    ),
    "roles.follows_values": ("answers that follow the values", "答案跟随 V 的比例"),
    "builds.difference": ("change of the test loss by rebuilding heads", "重新组装头后测试损失的变化"),
    "cost.mixing_flops": ("operations of attention, counted", "注意力的运算次数（计数）"),
    "cost.mixing_seconds": ("time of mixing positions (s)", "混合各位置所需时间（秒）"),
    "cost.training_seconds": ("time of a training step (s)", "一步训练的时间（秒）"),
    "cost.peak_bytes": ("memory of a training step (bytes)", "一步训练的内存（字节）"),
    "parallel.log_speedup": ("ln of the gain of a wide machine over one thread", "并行机器相对单线程的加速，ln"),
    "compute.gflops_to_0.6": (
        "GFLOP to a validation loss of 0.6 (lower is cheaper)",
        "验证损失降到 0.6 所需 GFLOP（越低越省）",
    ),
    "compute.gflops_to_1.5": (
        "GFLOP to a validation loss of 1.5 (lower is cheaper)",
        "验证损失降到 1.5 所需 GFLOP（越低越省）",
    ),
    "seconds": ("training time (s)", "训练时间（秒）"),
}
AXIS_LABELS: Mapping[str, tuple[str, str]] = {
    "data.train_size": ("training texts", "训练样本数"),
    "model.n_heads": ("heads", "头数"),
    "data.max_length": ("length of the text in tokens", "文本长度（词元）"),
    "data.probe.distance": ("distance between the two marks, in tokens", "两个标记之间的距离（词元）"),
}
_UNITS = {"seconds": "time (s)", "bytes": "memory (bytes)", "speedup": "speed-up"}
_LOG: Mapping[Language, str] = {"en": "{} (log scale)", "zh": "{}（对数刻度）"}


def measure_name(measure: str) -> str:
    """`test.accuracy` -> `test accuracy`, `loss.test` -> `test loss`, `cost.mixing_seconds` -> `mixing time (s)`,
    `parallel.log_speedup` -> `log speed-up`; in Chinese the name of the axis."""
    if spoken() == "zh":
        return MEASURE_LABELS[measure][1].partition("（")[0] if measure in MEASURE_LABELS else measure
    first, _, rest = measure.partition(".")
    if first == "loss" and rest:
        return f"{rest} loss"
    words = measure.replace(".", " ").replace("_", " ").split()
    if not words or words[-1] not in _UNITS:
        return " ".join(words)
    return " ".join([*words[1 if rest else 0 : -1], _UNITS[words[-1]]])


def axis_name(axis: str | None) -> str:
    """`data.train_size` -> `train_size`; in Chinese as below a figure."""
    if spoken() == "zh" and axis is not None and axis in AXIS_LABELS:
        return AXIS_LABELS[axis][1]
    return "" if axis is None else axis.rsplit(".", 1)[-1]


def in_words(name: str) -> str:
    """`fixed_width` -> `fixed width`."""
    return name.replace("_", " ").strip() or name


def measure_label(measure: str, language: Language = "en") -> str:
    """`test.per` -> `phoneme error rate (lower is better)`; another measure by its name."""
    return MEASURE_LABELS.get(measure, (measure_name(measure),) * 2)[language == "zh"]


def axis_label(axis: str | None, log: bool, language: Language = "en") -> str:
    """`model.n_heads` -> `heads (log scale)`; another key by its last part."""
    label = AXIS_LABELS.get(axis or "", (axis_name(axis),) * 2)[language == "zh"]
    return _LOG[language].format(label) if log else label


WORDS: Mapping[str, tuple[str, str]] = {
    "chance": ("chance", "随机猜测"),
    "power": ("{}, power {}", "{}，{} 次方"),
    "effects axis": (
        "effect, in multiples of the smallest effect worth naming",
        "效应（以值得一提的最小效应为单位）",
    ),
    "predicted": ("predicted: {}", "预测：{}"),
    "found": ("found: {}", "结果：{}"),
    "above": ("right of the band", "在阴影带右侧"),
    "flat": ("within the band", "在阴影带之内"),
    "no_better": ("not right of the band", "不在阴影带右侧"),
    "exact": ("equal, up to rounding", "完全相等（舍入误差之内）"),
    "percent above the best": ("{}, % above the best", "{}比最好值高出的百分比"),
    "smaller is better": ("{} (lower is better)", "{}（越低越好）"),
    "error": ("wrong answers", "错误率"),
    "loss": ("loss", "损失"),
    "per": ("phoneme errors", "音素错误率"),
    "width per head": ("width of each head (log scale)", "每个头的宽度（对数刻度）"),
    "by heads": ("By number of heads", "按头数"),
    "by width": ("By width of each head", "按每个头的宽度"),
    "Vaswani": ("Vaswani et al. 2017, single runs (perplexity)", "Vaswani 等 2017，单次运行（困惑度）"),
}
"""What figures say beside measures and axes."""
ACCURACIES = ("accuracy", "masked_accuracy")
_SHARES = (*ACCURACIES, "macro_f1", "f1", "ece", "follows_values")
_NEVER_NEGATIVE = ("per", "wer", "loss", "seconds", "bytes", "flops")


def word(name: str, language: Language = "en") -> str:
    """One of WORDS."""
    return WORDS[name][language == "zh"]


def is_accuracy(measure: str) -> bool:
    """Whether the measure is a share of right answers, so that guessing has one too."""
    return _last(measure) in ACCURACIES


def possible_range(measure: str) -> tuple[float, float]:
    """What a measure can be at all: 0 to 1 for a share, 0 and more for an error rate, a loss, a time or a size."""
    last = _last(measure)
    if last in _SHARES:
        return 0.0, 1.0
    positive = measure.startswith("loss.") or last.rpartition("_")[2] in _NEVER_NEGATIVE or last.startswith("gflops_to")
    return (0.0 if positive else -math.inf), math.inf


def is_cost(measure: str) -> bool:
    """Whether the measure is a time or a size, which are compared by ratios."""
    return _last(measure).rpartition("_")[2] in ("seconds", "bytes", "flops")


def _last(measure: str) -> str:
    """`compute.gflops_to_1.5` -> `gflops_to_1.5`"""
    first, _, rest = measure.partition(".")
    return rest or first
