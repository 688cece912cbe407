"""The report in a real browser: the charts are drawn, nothing is fetched, and no data runs."""

import html
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from analysis.runs import CURVES, write_run

from phalanx.analysis.report import write_report

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
)

# Appended to a copy of the page: writes what a reader sees into attributes, once the charts are drawn.
PROBE = """<script>
const timer = setInterval(() => {
  const root = document.documentElement;
  if (!root.dataset.plots && !root.dataset.error) return;
  clearInterval(timer);
  const seen = (node) => getComputedStyle(node);
  root.dataset.overflow = root.scrollWidth - root.clientWidth;
  root.dataset.width = root.clientWidth;
  root.dataset.page = seen(document.body).backgroundColor;
  root.dataset.ink = seen(document.body).color;
  const line = document.querySelector('.js-line');
  root.dataset.line = line ? seen(line).stroke : '';
  const plots = [...document.querySelectorAll('.plot')];
  root.dataset.drawn = plots.filter((node) => node.querySelector('.js-line[d]')).length;
  root.dataset.clipped = plots.filter((node) => node.scrollWidth > node.clientWidth + 1).length;
  if (parent !== window) Object.assign(parent.document.documentElement.dataset, root.dataset);
}, 50);
</script>"""


@dataclass(frozen=True)
class View:
    """What the browser made of a page."""

    attributes: dict[str, str]
    dom: str
    console: list[str]
    requests: list[str]


def view(chromium: str, page: Path, scratch: Path, *flags: str) -> View:
    text, copy = page.read_text(), scratch / "copy.html"
    copy.write_text(text if "<iframe" in text else text.replace("</body>", PROBE + "</body>"))
    netlog = scratch / "net.json"
    own = [f"--user-data-dir={scratch / 'profile'}", f"--log-net-log={netlog}", "--dump-dom", *flags]
    done = subprocess.run(
        [chromium, *FLAGS, *own, copy.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    root = re.search(r"<html[^>]*>", done.stdout)
    assert root, done.stdout[:500] + done.stderr
    attributes = dict(re.findall(r'data-([a-z]+)="([^"]*)"', root[0]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # Requests of the page itself; the browser's own (a proxy look-up, say) have no initiator.
    events = json.loads(netlog.read_text())["events"]
    params = [event.get("params", {}) for event in events]
    urls = [p["url"] for p in params if "url" in p and p.get("initiator", "not an origin") != "not an origin"]
    return View(
        attributes,
        done.stdout,
        console,
        [url for url in urls if not url.startswith(("file:", "data:", "blob:"))],
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("runs") / "run"))


def brightness(color: str) -> float:
    return sum(float(part) for part in re.findall(r"[\d.]+", color)[:3]) / 3


def luminance(color: str) -> float:
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("scheme", "code"), [("light", 1), ("dark", 0)])
def test_desktop(chromium: str, page: Path, tmp_path: Path, scheme: str, code: int) -> None:
    seen = view(
        chromium, page, tmp_path, "--window-size=1280,900", f"--blink-settings=preferredColorScheme={code}"
    )
    assert seen.attributes["plots"] == seen.attributes["drawn"] == str(CURVES + 1)
    assert "error" not in seen.attributes and seen.console == [] and seen.requests == []
    assert (brightness(seen.attributes["page"]) > 128) == (scheme == "light")
    assert contrast(seen.attributes["page"], seen.attributes["ink"]) > 7  # WCAG 2.2, 1.4.6
    assert contrast(seen.attributes["page"], seen.attributes["line"]) > 3  # WCAG 2.2, 1.4.11
    assert (seen.attributes["overflow"], seen.attributes["clipped"]) == ("0", "0")
    assert "&lt;script&gt;boom()" in seen.dom  # data stays text
    assert "<script>boom" not in seen.dom and "<img" not in seen.dom


def test_phone(chromium: str, page: Path, tmp_path: Path) -> None:
    # A headless window is 500 pixels wide at least, a frame may be narrower.
    inner = html.escape(page.read_text().replace("</body>", PROBE + "</body>"))
    frame = tmp_path / "frame.html"
    frame.write_text(f'<html><body><iframe width="360" height="800" srcdoc="{inner}"></iframe></body></html>')
    seen = view(chromium, frame, tmp_path)
    assert int(seen.attributes["width"]) <= 360
    assert seen.attributes["drawn"] == str(CURVES + 1)
    assert (seen.attributes["overflow"], seen.attributes["clipped"]) == ("0", "0")
    assert seen.console == []


def test_the_browser_reports_what_the_checks_look_for(chromium: str, page: Path, tmp_path: Path) -> None:
    """A page that errs, logs, fetches and overflows is seen to do so: the checks above can fail."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    bad = tmp_path / "bad.html"
    harm = "<script>console.error('seen'); fetch('http://127.0.0.1:9/x').catch(() => 0);</script>"
    wide = '<div style="width:3000px">wide</div>'
    bad.write_text(text.replace("<body>", f"<body>{harm}{wide}").replace('"type":"scatter"', '"type":"none"'))
    seen = view(chromium, bad, tmp_path)
    assert any("seen" in line for line in seen.console)
    assert seen.requests == ["http://127.0.0.1:9/x"] * len(seen.requests) != []
    assert int(seen.attributes["overflow"]) > 1000


def test_the_page_forbids_itself_to_fetch(chromium: str, page: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(page.read_text().replace("<body>", "<body><img src='http://127.0.0.1:9/x'>"))
    seen = view(chromium, bad, tmp_path)
    assert seen.requests == []
    assert any("Content Security Policy" in line for line in seen.console)


def test_an_unevaluated_run(chromium: str, tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run", iterations=1, f1=None))
    seen = view(chromium, page, tmp_path)
    assert seen.attributes["drawn"] == str(CURVES)
    assert seen.console == [] and "Not evaluated yet" in seen.dom
