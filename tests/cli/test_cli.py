"""`minitx predict | evaluate` and `minitx.load`, on one tiny trained run."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import ROOT, TINY_MODEL, TINY_TRAINER, lines_of

import minitx
from minitx.cli import main
from minitx.config.load import load
from minitx.decoding.text import Answer
from minitx.predictor import Predictor
from minitx.training.run import run
from minitx.training.run_folder import RunFolder


def stdin(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def test_predict_arguments_and_lines_agree_and_keep_their_order(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["bad", "a", "abcdefgabcdef", "", "xyz", "bad"]
    main(["predict", str(trained), *words])
    by_argument = capsys.readouterr().out.split("\n")[:-1]
    monkeypatch.setattr("sys.stdin", stdin("\r\n".join(words) + "\n"))
    main(["predict", str(trained)])
    assert capsys.readouterr().out.split("\n")[:-1] == by_argument == minitx.load(str(trained)).predict(words)
    assert len(by_argument) == len(words) and by_argument[0] == by_argument[5]


def test_evaluate_repeats_the_results_of_the_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((trained / "results.json").read_text())
    for split in ("test", "validation"):
        evaluation = minitx.load(str(trained)).evaluate(split)
        assert {n: i.to_json() for n, i in evaluation.metrics.items()} == results["metrics"][split]
    main(["evaluate", str(trained)])
    out = capsys.readouterr().out
    assert f"{100 * results['metrics']['test']['per']['value']:.2f} %" in out


def test_a_translator_has_no_report(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="a translator has no classes"):
        minitx.load(str(trained)).report()
    out = "\n".join(lines_of(capsys, "evaluate", trained))
    assert "calibration" not in out and not (trained / "evaluation.json").exists()


def test_n_best_and_beam(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bad", "dab", "", "cabbage"]
    predictor = minitx.load(str(trained))
    best = lines_of(capsys, "predict", trained, "--beam", 4, "--length-penalty", 0, *words)
    assert best == predictor.with_decoding(beam=4, length_penalty=0).predict(words)
    rows = [line.split("\t") for line in lines_of(capsys, "predict", trained, "--n-best", 3, *words)]
    assert [number for number, _, _ in rows] == ["1"] * 3 + ["2"] * 3 + ["4"] * 3  # nothing for the blank line
    found = predictor.with_decoding(beam=3).n_best(words, 3)
    assert [[s, t] for _, s, t in rows] == [[f"{c.score:.4f}", c.text] for candidates in found for c in candidates]


def test_score_of_arguments_and_lines(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [("bad", "B AE D"), ("cab", "K AE B"), ("", "B")]
    [alone] = lines_of(capsys, "score", trained, *pairs[0])
    monkeypatch.setattr("sys.stdin", stdin("".join(f"{a}\t{b}\r\n" for a, b in pairs)))
    together = lines_of(capsys, "score", trained)
    assert together[0] == alone and len(together) == 3
    log_prob, n_tokens = alone.split("\t")
    assert float(log_prob) < 0 and int(n_tokens) == 4


def test_an_ensemble_of_a_run_with_itself_is_that_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = lines_of(capsys, "predict", trained, "bad", "cabbage", "--beam", 3)
    assert (
        lines_of(
            capsys, "predict", trained, "bad", "cabbage", "--beam", 3, "--ensemble", trained, "--ensemble", trained
        )
        == once
    )
    one, two = (minitx.load(str(trained)).evaluate(), Predictor.from_run(trained, ensemble=[trained]).evaluate())
    assert one.metrics == two.metrics and one.loss == pytest.approx(two.loss, rel=1e-5)


def test_evaluate_against_itself_finds_no_difference(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = "\n".join(lines_of(capsys, "evaluate", trained, "--against", trained, "--beam", 2))
    assert out.count("+0.00 [+0.00, +0.00]") == 2 and out.count("1.0000") == 2 and out.count("beam 2") == 2


def test_each_compared_run_says_how_it_wrote(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = tmp_path / "wide"
    shutil.copytree(trained, wide, symlinks=True)
    raw = yaml.safe_load((wide / "config.yaml").read_text())
    RunFolder(wide).write_config(load({**raw, "decode": {"beam": 3, "length_penalty": 0.5}}))
    lines = lines_of(capsys, "evaluate", trained, "--against", wide)
    assert [line for line in lines if line.startswith(("A: ", "B: "))] == [
        f"A: {trained}, best checkpoint, greedy", f"B: {wide}, best checkpoint, beam 3, length penalty 0.5",
    ]  # fmt: skip


def test_decoding_settings_add_up(trained: Path) -> None:
    predictor = minitx.load(str(trained)).with_decoding(beam=5).with_decoding(length_penalty=0.5)
    assert (predictor.decode.beam, predictor.decode.length_penalty) == (5, 0.5)


def test_a_tab_within_an_argument_is_text(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [shown] = lines_of(capsys, "score", trained, "b\tad", "B AE D")
    assert float(shown.split("\t")[0]) == pytest.approx(
        minitx.load(str(trained)).score(["b\tad"], ["B AE D"])[0].log_prob, abs=1e-5
    )


def test_blank_lines_have_no_candidates(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", stdin("\n \n"))
    main(["predict", str(trained), "--n-best", "2"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("more", [["- a", "--beam", "2"], ["--beam", "2", "- a"], ["--beam", "2", "--", "-a"]])
def test_a_text_may_begin_with_a_dash(trained: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = "-a" if "--" in more else "- a"
    wanted = minitx.load(str(trained)).with_decoding(beam=2).predict([text])
    assert lines_of(capsys, "predict", trained, *more) == wanted
    with pytest.raises(SystemExit):
        main(["predict", str(trained), "a", "--beam", "2", "--bean"])


@pytest.mark.parametrize("locale", ["C.UTF-8", "en_US.UTF-8"])
def test_a_line_that_is_no_utf_8_is_named(trained: Path, locale: str) -> None:
    """In a process of its own: under C.UTF-8 Python reads such bytes without an error."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": locale}
    command = [sys.executable, "-m", "minitx.cli", "predict", str(trained)]
    done = subprocess.run(command, input=b"bad\ncaf\xe9\n", capture_output=True, env=environment, timeout=120)
    assert done.returncode == 2 and done.stderr.decode().startswith("line 2 of standard input must be UTF-8 text; ")


def test_evaluate_against_another_run_evaluates_both_on_the_same_rows(
    trained: Path, tmp_path: Path, tiny_data: dict[str, Any]
) -> None:
    """The other run has other data, of which only its vocabulary is used."""
    other = tmp_path / "other"
    data = {**tiny_data, "train_size": 0.5}
    run(load({"data": data, "model": TINY_MODEL, "trainer": TINY_TRAINER, "seed": 1}), other, quiet=True)
    a, b = minitx.load(str(trained)), minitx.load(str(other))
    mine, theirs, differences = a.compare(b)
    assert mine.metrics == a.evaluate().metrics and (mine.rows == theirs.rows).all()
    for name, difference in differences.items():
        assert difference.difference == pytest.approx(mine.metrics[name].value - theirs.metrics[name].value)
        assert difference.low <= difference.difference <= difference.high


def test_a_long_line_is_cut_with_a_warning(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", str(trained), "a" * 5000, "bad"])
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 2
    assert shown.err.startswith("warning: 1 of 2 texts are longer than data.max_length (")
    assert "tokens); of them the first tokens were read\n" in shown.err


def test_progress_goes_to_the_error_stream(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.cli.shared.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("minitx.cli.shared.CHUNK_LINES", 2)
    monkeypatch.setattr("minitx.cli.shared.MIN_CHUNK_LINES", 2)
    monkeypatch.setattr("sys.stdin", stdin("bad\ncab\ndab\n"))
    main(["predict", str(trained)])
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 3
    assert [line.split(",")[0] for line in shown.err.splitlines()[:2]] == ["2 lines answered", "3 lines answered"]


def test_a_run_of_a_gpu_is_used_on_a_cpu(trained: Path, tmp_path: Path) -> None:
    """How it was trained does not prevent a prediction."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy, symlinks=True)
    raw = yaml.safe_load((copy / "config.yaml").read_text())
    raw["trainer"] |= {"device": "cuda", "cuda_graphs": "on"}
    RunFolder(copy).write_config(load(raw))
    predictor = minitx.load(str(copy), device="cpu")
    assert predictor.predict(["bad"]) == minitx.load(str(trained)).predict(["bad"])


def test_last_checkpoint_can_be_asked_for(trained: Path) -> None:
    assert Predictor.from_run(trained, checkpoint="last").predict(["word"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["predict", "no/run", "x"],
            "run (no/run) must be a run folder with a config.yaml; see outputs/runs for yours; nor is it on the hub",
        ),
        (
            ["evaluate", "RUN", "model.n_heads=1"],
            "model.n_heads=1 must be a data.* key, because the run's model is fixed; ",
        ),
        (["evaluate", "RUN", "data.pth=x"], "unknown key 'data.pth'; did you mean 'data.path'?\n"),
        (
            ["inspect", "RUN", "x", "-o", "no/folder/x.html"],
            "--output (no/folder/x.html) must be a file that can be written",
        ),
        (["inspect", "RUN"], "inspect must be given a text, or --heads, or both\n"),
        (
            ["inspect", "RUN", "--heads", "--against", "RUN"],
            "--against must be given with a text, because only maps of ",
        ),
        (["inspect", "RUN", "--heads", "-o", "no/folder/x.html"], "--output (no/folder/x.html) must be a file that "),
        (["score", "RUN", "one"], "score (1 texts) must be given a text and its translation; quote each\n"),
        (["score", "RUN", "a", "b " * 500], "data.max_length ("),
        (["score", "CLASSIFIER", "a", "b"], "RUN ("),
        (["predict", "CLASSIFIER", "a", "--beam", "2"], "--beam (2) must be left out, because "),
        (["predict", "RUN", "a", "--length-penalty", "99"], "decode.length_penalty (99.0) must "),
        (["predict", "RUN", "a", "--ensemble", "CLASSIFIER"], "--ensemble ("),
        (["evaluate", "RUN", "--against", "CLASSIFIER"], "--against ("),
        (["evaluate", "RUN", "--hardest", "2"], "--hardest (2) must be left out, because "),
        (["evaluate", "RUN", "--per-class"], "--per-class must be left out, because "),
        (["evaluate", "CLASSIFIER", "--against", "CLASSIFIER", "-o", "x"], "--output (x) must be left out with "),
        (["evaluate", "CLASSIFIER", "-o", "/dev/null/x"], "--output (/dev/null/x) must be a folder that can be "),
    ],
)
def test_mistakes_are_one_line(
    trained: Path, classifier: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([str({"RUN": trained, "CLASSIFIER": classifier}.get(a, a)) for a in arguments])
    err = capsys.readouterr().err
    assert left.value.code == 2 and err.startswith(line) and err.count("\n") == 1


def test_a_damaged_best_is_one_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(trained, copy, symlinks=True)
    (copy / "checkpoints" / "best" / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(SystemExit) as left:
        main(["predict", str(copy), "x"])
    err = capsys.readouterr().err
    assert left.value.code == 1 and "is corrupt: model.safetensors has changed" in err and err.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_error(trained: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"yes word | head -5000 | {sys.executable} -m minitx.cli predict {trained} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stderr == "" and done.stdout.count("\n") == 1


@pytest.mark.parametrize("command", ["predict", "score", "evaluate", "inspect", "match", "report", "bench"])
def test_help_of_a_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example:\n  minitx {command} " in capsys.readouterr().out


def test_help_starts_at_once() -> None:
    """Heavy modules are imported by the command that needs them; seconds themselves are not asserted."""
    script = (
        "import sys; from minitx.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: assert not {'torch', 'pydantic', 'numpy', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True)


def test_an_answer_with_a_line_break_stays_one_line(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["two\nlines", "one\r"]
    monkeypatch.setattr(Predictor, "answers", lambda self, texts: [Answer(text=answer) for answer in answers])
    assert lines_of(capsys, "predict", trained, "a", "b") == ["two\\nlines", "one\\r"]
    as_json = lines_of(capsys, "predict", trained, "--json", "a", "b")
    assert [json.loads(line) for line in as_json] == [{"text": answer} for answer in answers]


def test_candidates_as_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = lines_of(capsys, "predict", trained, "--n-best", 2, "bad", "cab")
    found = [json.loads(line) for line in lines_of(capsys, "predict", trained, "--n-best", 2, "--json", "bad", "cab")]
    assert [f"{one['line']}\t{one['score']:.4f}\t{one['text']}" for one in found] == plain


def test_a_byte_order_mark_is_no_part_of_the_first_line(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", stdin("\ufeffbad\ncab\n"))
    main(["predict", str(trained)])
    assert capsys.readouterr().out.splitlines() == minitx.load(str(trained)).predict(["bad", "cab"])


def test_a_third_column_is_no_part_of_a_translation(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", stdin("bad\tB AE D\nbad\tB\tAE\n"))
    with pytest.raises(SystemExit):
        main(["score", str(trained)])
    assert "line 2 (bad\tB\tAE) must be a text, a tab and its translation, and nothing more" in capsys.readouterr().err
