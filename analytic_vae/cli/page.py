"""A report as one HTML file that can be sent: pictures and style are in it, nothing is run, nothing is fetched."""

import base64
from html import escape
from typing import Any

from .figures import QUESTIONS
from .tables import Table, summary, tables

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222; }
h1, h2 { font-weight: 600; line-height: 1.2; }
figure { margin: 0 0 2em; }
figcaption { max-width: 46em; }
img { max-width: 100%; height: auto; display: block; margin-top: 0.5em; }
p { max-width: 46em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2em 0.7em; text-align: right; border-bottom: 1px solid #ddd; }
th { font-weight: 600; vertical-align: bottom; }
.short { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd; } th, td { border-color: #444; } img { background: #fff; }
}
"""

# A browser that reads this loads nothing, whatever else the page may say.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

CAPTIONS = {
    "right": "Half violins: the law of each output, learnt at the left, sampled at the right, in the same cells. "
    "Dots and bars: mean and one spread (standard deviation) to either side.",
    "where": "A dot for each neuron of each layer: how far its mean and its spread are off, in standard errors of the "
    "samples; a line from the median to the worst; of correlations these two alone. In the grey part samples cannot "
    "tell the model from the network. The axis at the right says what an error of a mean is in spreads of its neuron.",
    "features": "Each row is a feature of the output's model, with its share of the variance: what one spread of it "
    "adds to every output.",
}


def page(report: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """The report, with pictures (PNG, by the name of their question) if there are any."""
    parts = ["<h1>What was learnt</h1>", *(_paragraph(line) for line in report.get("about", []))]
    parts += [_paragraph(line, "short") for line in summary(report)]
    if not pictures:
        parts.append(_paragraph("Without pictures: these need matplotlib, pip install 'analytic_vae[plots]'."))
    parts += [_figure(name, picture) for name, picture in pictures.items()]
    parts += [_table(one) for one in tables(report)]
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What was learnt</title>\n<style>{STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def _figure(name: str, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    question, caption = escape(QUESTIONS[name]), escape(CAPTIONS[name])
    return (
        f"<figure>\n<h2>{question}</h2>\n<figcaption>{caption}</figcaption>\n"
        f'<img alt="{question}" src="data:image/png;base64,{data}">\n</figure>'
    )


def _table(one: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in one.columns)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in one.rows)
    said, after = (_paragraph(text.replace("*", "").replace("`", "")) if text else "" for text in (one.said, one.after))
    return (
        f'<h2>{escape(one.title)}</h2>\n{said}\n<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>\n{after}"
    )
