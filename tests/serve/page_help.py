"""What the tests of the page need beside a browser: a service in a process of its own, and questions to a page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hashlgn

ORIGINS: set[str] = set()  # the services of these tests

# Visible texts whose contrast with what is behind them is under 4.5.
CONTRAST = """() => {
  const light = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const level = ([r, g, b]) => [r, g, b].map(v => light(v / 255))
    .reduce((sum, v, place) => sum + v * [.2126, .7152, .0722][place], 0);
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = numbers(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest('.sr')) continue;
    const [a, b] = [level(numbers(getComputedStyle(element).color)), level(ground(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push([element.innerText, (a + .05) / (b + .05)]);
  }
  return low;
}"""
# Visible controls without a name.
UNNAMED = """() => [...document.querySelectorAll('button, input, select, canvas, a')]
  .filter(one => one.checkVisibility())
  .filter(one => !(one.innerText?.trim() || one.ariaLabel || one.labels?.length)).map(one => one.outerHTML)"""


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """The address of a service in a process of its own."""
    command = [sys.executable, "-c", "from hashlgn.cli.main import main; main()", "serve", "first.safetensors"]
    environment = os.environ | {"PYTHONPATH": str(Path(hashlgn.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *options, "--port", "0", "--threads", "1"], cwd=folder, env=environment, stderr=log
        )
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"http://[\d.:]+", (folder / "log").read_text())):
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        ORIGINS.add(f"{found[0]}/")
        yield f"{found[0]}/"
    finally:
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM)
