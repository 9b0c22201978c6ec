"""TensorBoard: scalars, tables, figures, curves, the projector and HParams, in the one run of its folder; and what a
run logs.

TensorBoard shows tags by their first part in the order of the alphabet: `train`, `validation`, then `view_*` (attention
maps, heads) and `whole_*` (the best weights on all rows, at the end). Its page of custom scalars has what one looks at
first: both losses in one chart, the scores, the learning rate and the speed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minitx.training.run_folder import MetricsLog, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OVERVIEW = {
    "loss": ("train/loss", "train_evaluated/loss", "validation/loss"),
    "scores on validation": (r"validation/(?!loss).*",),
    "learning rate": ("train/lr",),
    "tokens per second": ("train/tokens_per_second",),
}
"""Title of a chart -> the tags that it shows."""


class Board:
    """Writes event files under a run's `tensorboard/`; a resumed run purges what lies after its checkpoint."""

    def __init__(self, folder: Path, start_step: int = 0) -> None:
        if start_step == 0:  # what lies here is of an attempt that left no checkpoint
            shutil.rmtree(folder, ignore_errors=True)
        from torch.utils.tensorboard import SummaryWriter  # half a second of imports, not before a run begins

        self._folder = folder
        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None, flush_secs=20)

    def overview(self) -> None:
        """The charts of the page of custom scalars, by regular expressions of tags."""
        charts = {title: ["Multiline", list(tags)] for title, tags in OVERVIEW.items()}
        self._writer.add_custom_scalars({"overview": charts})

    def scalars(self, prefix: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def table(self, tag: str, rows: Sequence[Sequence[str]], header: Sequence[str], step: int) -> None:
        """A Markdown table; the texts are data, so their markup is taken out."""
        lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in rows]
        self._writer.add_text(tag, "\n".join(lines), step)

    def precision_recall(
        self, tag: str, is_class_N: npt.NDArray[np.bool_], p_N: npt.NDArray[np.floating[Any]], step: int
    ) -> None:
        """The curve of one class. is_class: True = an example of it; p: its probability."""
        self._writer.add_pr_curve(tag, is_class_N, p_N, step)

    def embedding(
        self, tag: str, rows_ND: npt.NDArray[np.floating[Any]], labels: Sequence[Sequence[str]], header: Sequence[str]
    ) -> None:
        """Points of the projector, of which a later call with the same tag takes the place. labels: of each row, as
        many as the header has."""
        shutil.rmtree(self._folder / "00000" / tag, ignore_errors=True)
        cells = [[_LINE_ENDS.sub(" ", cell) for cell in of_row] for of_row in labels]
        points_ND = np.round(rows_ND.astype(np.float64), 4)  # more digits make long files
        self._writer.add_embedding(points_ND, cells, metadata_header=list(header), tag=tag)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self._writer.add_figure(tag, figure, step, close=False)

    def hparams(self, hparams: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """HParams beside the scalars (`SummaryWriter.add_hparams` would open a second, stray run)."""
        from torch.utils.tensorboard.summary import hparams as summaries

        plain = {
            k: v if isinstance(v, int | float | str) and not isinstance(v, bool) else str(v) for k, v in hparams.items()
        }
        writer: Any = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in summaries(plain, dict(metrics)):  # type: ignore[no-untyped-call]
            writer.add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


_LINE_ENDS = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


def _plain(text: str, limit: int = 200) -> str:
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+!|<>~" else c for c in cut.replace("\n", " "))


class RunLog:
    """Numbers of a run, to metrics.jsonl and to TensorBoard alike."""

    def __init__(self, folder: RunFolder, start_step: int = 0, size: int = 0) -> None:
        """start_step, size: the step of the checkpoint to go on from, and the bytes of metrics.jsonl up to there;
        later lines are removed."""
        self._metrics = MetricsLog(folder.metrics_file)
        self._metrics.cut(size)
        self.board = Board(folder.tensorboard, start_step)
        self.board.overview()

    def record(self, record: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl; what it measured is shown as `<split>/<name>` at its step."""
        self._metrics.write(record)
        values = {key: value for key, value in record.items() if key not in ("step", "epoch", "split", "seconds")}
        self.board.scalars(record["split"], values, record["step"])
