"""Headless Chromium for the tests of the web page, and the page as a user starts it."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import ROOT, environment

CONTRASTS = """() => {
  const parse = (text) => {
    const n = text.match(/[\\d.]+/g).map(Number);
    const full = text.startsWith('color(') ? 255 : 1;
    return [n[0] * full, n[1] * full, n[2] * full, n[3] ?? 1];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const background = (element, x, y) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const box = e.getBoundingClientRect();  // a label may hang outside of what it belongs to
      if (box.left <= x && x <= box.right && box.top <= y && y <= box.bottom)
        layers.push(parse(getComputedStyle(e).backgroundColor));
    }
    return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255, 1]);
  };
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255;
    return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const opacity = (element) => {
    let product = 1;
    for (let e = element; e; e = e.parentElement) product *= Number(getComputedStyle(e).opacity);
    return product;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement, box = element.getBoundingClientRect();
    if (box.top < 0 || box.bottom > innerHeight) continue;
    if (!node.textContent.trim() || box.width < 3 || box.height < 3 || !element.checkVisibility()) continue;
    if (element.closest('[data-testid="stSkeleton"], [disabled], .heard-only, style, script')) continue;
    const under = background(element, box.left + box.width / 2, box.top + box.height / 2);
    const ink = parse(getComputedStyle(element).color);
    ink[3] *= opacity(element);
    if (!ink[3]) continue;
    const [a, b] = [luminance(over(ink, under)), luminance(under)].sort((x, y) => y - x);
    found.push([node.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""
"""Every text in the window with its contrast ratio (WCAG 2.2); colours and opacities of all layers count."""


def require_chromium() -> str:
    """Its path; skips where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return path


@contextlib.contextmanager
def chromium() -> Iterator:
    """A headless Chromium that reaches nothing but this machine."""
    path = require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def running_page(workspace: Path, *words: str, **extra: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """`python app.py` with its own port and workspace: its address and its process, ended by SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    workspace.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), "--port", str(port), *words],
        env=environment(workspace, **{"STREAMLIT_SERVER_HEADLESS": "true"} | extra),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=workspace, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5)
                break
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end, "the page did not come up"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
