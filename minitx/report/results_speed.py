"""Lines of outputs/reference/README.md on speed on a CPU: training, several processes, and the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from minitx.report.results_ledger import Json, header, row

SPEED_PARTS = {
    "classification": "training, classification: width 256, 4 layers, 256 tokens, 32 rows",
    "translation": "training, translation: width 128, 4 + 4 layers, 4,096 padded tokens",
}
INFERENCE_PARTS = {
    "classification": "inference, the same classifier",
    "translation": "inference, greedy decoding by the same translator",
}


def speed_table(bench: Json) -> Iterator[str]:
    """Each opponent's speed, and how many times as fast minitx was: median and range of rounds."""
    machine, parts = bench["machine"], bench["parts"]
    yield f"`minitx bench`: {machine['cpu']}, {machine['threads']} threads, float32, dropout 0.1."
    yield ""
    yield from header("", "minitx", "torch's modules", "transformers' Trainer, length-grouped")
    for part, what in SPEED_PARTS.items():
        speed = parts[part]["medians"]["tokens_per_second"]
        share = f"{100 * parts[part]['medians']['mfu']['minitx']:.0f} % of peak"
        yield row(what, f"{speed['minitx']:,.0f} tokens/s, {share}", *opponents(speed, parts[part]["ratios"]))
    for task, what in INFERENCE_PARTS.items():
        found = parts["inference"][task]
        speed, ratios = (
            {label.removeprefix(f"{task} "): value for label, value in found[key].items()}
            for key in ("medians", "ratios")
        )
        yield row(what, f"{speed['minitx']:,.0f} {found['unit']}", *opponents(speed, ratios))


def opponents(speed: Mapping[str, float], ratios: Json) -> list[str]:
    cells = []
    for name in ("torch", "transformers"):
        if name not in speed:
            cells.append("–")
            continue
        ratio = ratios[name]
        cells.append(f"{speed[name]:,.0f}: {ratio['median']:.2f} × [{ratio['min']:.2f}, {ratio['max']:.2f}]")
    return cells


def growth_lines(bench: Json) -> Iterator[str]:
    parts = bench["parts"]
    each = ", ".join(
        f"{name} {parts['memory']['exponents'][name]:.2f} and {parts['cost']['exponents'][name]:.2f}"
        for name in ("sdpa", "naive", "window")
    )
    yield from ("", "![Memory of one training step against the length](bench_cpu_memory.png)", "")
    yield f"One row, two layers of width 128; exponents of memory and time: {each}."


def processes_lines(found: Json) -> Iterator[str]:
    """One run by two processes of a thread each against one process of two threads, in turns."""
    yield f"`{found['two']}` against"
    yield f"`{found['one']}`, in turns, tokens/s; {found['cpu']}, {found['cores']} cores."
    yield ""
    yield from header("the cores are", "one process of two threads", "two processes of one thread", "ratio")
    for name, speed in found["tokens_per_second"].items():
        one, two = (sum(speed[key]) / len(speed[key]) for key in ("one", "two"))
        yield row(name, f"{one:,.0f}", f"{two:,.0f}", f"{two / one:.2f}")


def serve_lines(serve: Json) -> Iterator[str]:
    """What `python -m minitx.serve.load_test` found."""
    machine, memory = serve["machine"], serve["memory_mib"]
    yield f"`{serve['command']}`: {machine['cpu']}, {machine['usable_cores']} cores, load average"
    yield f"{machine['load_average'][0]:.1f} meanwhile; a {serve['run']['model']} on {serve['run']['data']}."
    yield f"Of {serve['requests']:,} requests of {serve['clients']} clients {serve['unanswered']} were unanswered,"
    yield f"{serve['wrong_status']} answered with another status than is right, {serve['tracebacks']} with a traceback;"
    yield f"memory {memory['after once']:,.0f} MiB before and {memory['after twice']:,.0f} MiB after them."
    yield ""
    yield from header("requests", "number", "answers by status", "median, ms", "longest, ms")
    for name, found in serve["kinds"].items():
        statuses = ", ".join(f"{status}: {n}" for status, n in found["statuses"].items())
        times = (f"{found[key]:,.0f}" for key in ("median_ms", "most_ms"))
        yield row(name.replace("_", " "), str(found["requests"]), statuses, *times)
    yield ""
    yield from header(f"{serve['texts']} texts, one a request", "texts/s", "processor time a text, ms")
    for name, speed in serve["speed"].items():
        yield row(name, f"{speed['texts_per_second']:,.0f}", f"{speed['cpu_ms_per_text']:.1f}")
