"""Pages in headless Chromium, where there is one: what a script inside a page finds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def with_script(page: str, script: str) -> str:
    """The page with the body of an asynchronous function at its end, whose result `found_by` returns."""
    ending = f"""<script>addEventListener("load", async () => {{ const found = await (async () => {{ {script} }})();
        document.body.dataset.found = encodeURIComponent(JSON.stringify(found)); }});</script></body>"""
    return page.replace("</body>", ending)


def found_by(url: str, folder: Path, width: int = 1280) -> dict[str, Any]:
    """What the script of `with_script` found in the page. Its clock runs ahead whenever nothing is under way, so that
    waiting costs no time."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    out = subprocess.run(
        [*command, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom", url],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    found = re.search(r'data-found="([^"]*)"', out)
    assert found, out[-2000:]
    answer: dict[str, Any] = json.loads(unquote(found[1]))
    return answer
