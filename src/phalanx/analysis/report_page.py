"""The look of the report: one page that needs no network, in light and dark, for phones and desktops."""

import base64
import gzip
import json
from functools import lru_cache
from html import escape

from phalanx.analysis.report_figures import Figure

__all__ = ["figure_card", "page", "table"]

# Nothing may be fetched, whatever the data says.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

# Hues after Okabe and Ito (2008), darkened or lightened to a contrast of 3:1 and more on their background.
_STYLE = """
:root { color-scheme: light dark;
  --page:#f5f6f8; --surface:#ffffff; --ink:#17202c; --muted:#5d6876; --line:#dde2e8; --grid:#e9ecf0;
  --mean:#0b62a8; --mean-soft:rgba(11,98,168,.16); --allow:#4c7fb0; --allow-soft:rgba(76,127,176,.18);
  --alert:#a97400; --alert-soft:rgba(169,116,0,.18); --block:#c44e00; --block-soft:rgba(196,78,0,.16);
  --quarantine:#9a3a7f; --quarantine-soft:rgba(154,58,127,.16); --good:#00704f; --bad:#b3261e; --warn:#8a5a00; }
@media (prefers-color-scheme: dark) { :root {
  --page:#11161d; --surface:#1a212b; --ink:#e8edf3; --muted:#9ba8b7; --line:#303a47; --grid:#28313d;
  --mean:#6cb6f5; --mean-soft:rgba(108,182,245,.20); --allow:#8fb3d9; --allow-soft:rgba(143,179,217,.18);
  --alert:#f0b93a; --alert-soft:rgba(240,185,58,.18); --block:#ff8a4c; --block-soft:rgba(255,138,76,.18);
  --quarantine:#e39acb; --quarantine-soft:rgba(227,154,203,.18); --good:#4fcf9f; --bad:#ff8f85; --warn:#f0b93a; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); -webkit-text-size-adjust:100%;
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif; }
main { max-width:1200px; margin:0 auto; padding:24px 20px 48px; }
h1,h2,h3,p { margin:0; } h1 { font-size:26px; line-height:1.25; overflow-wrap:anywhere; }
h2 { font-size:19px; margin:40px 0 4px; } h3 { font-size:15px; line-height:1.35; }
.eyebrow { color:var(--muted); font-size:13px; letter-spacing:.02em; }
.outcome { font-size:18px; line-height:1.45; max-width:70ch; margin:14px 0 0; padding-left:14px;
  border-left:4px solid var(--muted); }
.outcome.good { border-color:var(--good); } .outcome.warn { border-color:var(--warn); }
.outcome.bad { border-color:var(--bad); } .outcome b { display:block; }
.good b { color:var(--good); } .warn b { color:var(--warn); } .bad b { color:var(--bad); }
.muted,.sub { color:var(--muted); } .sub { font-size:13px; margin-top:2px; } h2+.sub { margin-bottom:12px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fill,minmax(138px,1fr)); gap:12px;
  margin:22px 0 0; padding:0; }
.tile { background:var(--surface); border:1px solid var(--line); border-radius:10px; padding:12px 14px; }
.tile dt { color:var(--muted); font-size:13px; } .tile dd { margin:2px 0 0; font-size:23px; font-weight:600;
  font-variant-numeric:tabular-nums; line-height:1.2; } .tile small { display:block; color:var(--muted); font-size:12px;
  font-weight:400; margin-top:3px; }
.grid { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(100%,350px),1fr)); gap:16px; margin-top:12px; }
.pair { display:grid; grid-template-columns:minmax(0,2fr) minmax(0,1fr); gap:16px; margin-top:12px; align-items:start; }
@media (max-width:820px) { .pair { grid-template-columns:minmax(0,1fr); } main { padding:18px 14px 40px; }
  h1 { font-size:22px; } .outcome { font-size:16px; } }
.card { background:var(--surface); border:1px solid var(--line); border-radius:10px; padding:14px 16px; margin:0;
  min-width:0; }
.plot { min-height:258px; margin:8px -6px -4px; } .scroll { overflow-x:auto; margin-top:6px; }
figure.card { display:flex; flex-direction:column; } figure.card .plot { margin-top:auto; padding-top:8px; }
.small { max-width:680px; margin-top:12px; } .none { color:var(--muted); font-weight:400; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; font-size:14px; }
th,td { padding:7px 10px; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap; }
th { color:var(--muted); font-weight:500; } tbody th { color:var(--ink); }
thead th { vertical-align:bottom; white-space:pre; line-height:1.25; }
th:first-child,td:first-child { text-align:left; padding-left:0; position:sticky; left:0;
  background:var(--surface); } tbody tr:last-child>* { border-bottom:0; }
tr.own>* { font-weight:650; } tr.total>* { background:var(--page); } .best { color:var(--good); font-weight:650; }
.dense th,.dense td { padding:6px 7px; font-size:13px; } .dense th:first-child { padding-left:0; }
.wrap td { white-space:normal; overflow-wrap:anywhere; text-align:left; }
.matrix { table-layout:fixed; } .matrix td { white-space:normal;
  border:2px solid var(--surface); text-align:center; padding:12px 6px; border-radius:8px; }
.matrix th { border:0; white-space:normal; } .matrix thead th { text-align:center; }
.matrix td b { display:block; font-size:18px; } .matrix td small { color:var(--muted); }
.right { background:color-mix(in srgb,var(--good) 15%,transparent); }
.wrong { background:color-mix(in srgb,var(--bad) 13%,transparent); }
.alert { margin-top:16px; border-left:4px solid var(--warn); } .alert ul { margin:4px 0 0; padding-left:20px; }
details { margin-top:12px; } summary { cursor:pointer; }
footer { margin-top:40px; color:var(--muted); font-size:13px; }
:focus-visible { outline:2px solid var(--mean); outline-offset:2px; }
@media print { .card { break-inside:avoid; } body { background:#fff; } }
"""

_SCRIPT = """
(async () => {
  const plots = [...document.querySelectorAll('.plot')];
  const root = document.documentElement;
  const tell = (text) => plots.forEach((node) => { node.textContent = text; });
  const read = (id) => document.getElementById(id).textContent;
  try {
    if (!plots.length) { root.dataset.plots = '0'; return; }
    if (typeof DecompressionStream === 'undefined') {
      return tell('This browser is too old to draw the charts (it needs DecompressionStream).');
    }
    const bytes = Uint8Array.from(atob(read('library')), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    const script = document.createElement('script');
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    script.remove();
    const figures = JSON.parse(read('figures'));
    const color = (name) => getComputedStyle(root).getPropertyValue('--' + name).trim();
    const paint = (value, key) => {
      if (Array.isArray(value)) return key === 'x' || key === 'y' ? value : value.map((v) => paint(v, key));
      if (value && typeof value === 'object') {
        return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, k)]));
      }
      const named = typeof value === 'string' && /color$/.test(key) && value[0] === '$';
      return named ? color(value.slice(1)) : value;
    };
    const axis = () => ({ gridcolor: color('grid'), linecolor: color('line'), zerolinecolor: color('line'),
      tickcolor: color('line'), automargin: true, nticks: 6, title: { font: { size: 12 }, standoff: 8 } });
    const merge = (base, more) => {
      for (const [key, value] of Object.entries(more)) {
        const both = value && typeof value === 'object' && !Array.isArray(value) && base[key];
        base[key] = both ? merge(base[key], value) : value;
      }
      return base;
    };
    const draw = () => Promise.all(plots.map((node) => {
      const figure = figures[node.dataset.figure];
      const layout = merge({ height: 250, margin: { l: 8, r: 10, t: 8, b: 8 }, hovermode: 'x unified',
        dragmode: false, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', xaxis: axis(), yaxis: axis(),
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color('muted') },
        hoverlabel: { bgcolor: color('surface'), bordercolor: color('line'), font: { color: color('ink') } },
        legend: { orientation: 'h', font: { size: 11 }, x: 0, y: 1.02, yanchor: 'bottom', itemsizing: 'constant' },
      }, paint(figure.layout, ''));
      return Plotly.react(node, paint(figure.data, ''), layout,
        { responsive: true, displayModeBar: false, displaylogo: false });
    }));
    plots.forEach((node) => { node.textContent = ''; });
    await draw();
    root.dataset.plots = String(plots.length);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  } catch (error) {
    root.dataset.error = String(error);
    tell('The chart could not be drawn: ' + error);
  }
})();
"""


@lru_cache(maxsize=1)
def _library() -> str:
    """plotly.js, packed: it leaves the page a third of its size and no address in its text."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii")


def _embedded(value: object) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure_card(figure: Figure) -> str:
    """A figure with its message above; without data the message stands alone."""
    plot = ""
    if figure.data:
        label = escape(f"{figure.title}. {figure.subtitle}")
        plot = f'<div class="plot" data-figure="{escape(figure.name)}" role="img" aria-label="{label}"></div>'
    head = f'<h3>{escape(figure.title)}</h3><p class="sub">{escape(figure.subtitle)}</p>'
    return f'<figure class="card">{head}{plot}</figure>'


def table(label: str, head: list[str], rows: list[tuple[str, list[str]]], css: str = "") -> str:
    """A table that scrolls by itself on narrow screens.

    Args:
        label: what it holds, for screen readers.
        head: names of the columns; a line feed breaks the line.
        rows: class of each row and its cells as *escaped* HTML, the row's name first.
        css: class of the table.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{cells[0]}</th>{"".join(f"<td>{cell}</td>" for cell in cells[1:])}</tr>'
        for kind, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="{css}">'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def page(title: str, body: str, figures: list[Figure]) -> str:
    """The whole document.

    Args:
        title: plain text.
        body: HTML, escaped where it holds data.
        figures: those that ``body`` has cards of.
    """
    drawn = {
        figure.name: {"data": figure.data, "layout": dict(figure.layout)} for figure in figures if figure.data
    }
    scripts = ""
    if drawn:
        scripts = (
            f'<script type="application/json" id="figures">{_embedded(drawn)}</script>\n'
            f'<script type="application/octet-stream" id="library">{_library()}</script>\n'
        )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n"
        "<noscript><p>The charts need JavaScript; tables and words do not.</p></noscript>\n"
        "<footer>Written by phalanx. Charts drawn by plotly.js (MIT licence), packed into this page; "
        "nothing is loaded from a network.</footer>\n"
        f"</main>\n{scripts}<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
