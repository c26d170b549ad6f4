"""The report of the command: its numbers, its tables, its page."""

import html
import sys
from html.parser import HTMLParser

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm

import analytic_vae as av
from analytic_vae.cli import figures
from analytic_vae.cli.page import page
from analytic_vae.cli.report import SHOWN, compare, laws_of_outputs
from analytic_vae.cli.tables import MOST, WIDTH, short, tables
from analytic_vae.samples import counts_in_cells

NAME = "<script src='https://example.com/x.js'>alert(1)</script> & \"me\""


def layer(index=0, neurons=3, **changes):
    off = {"means": [0.5] * neurons, "spreads": [7.0] * neurons, "correlations": [1.0, 2.0], "left_out": 0}
    numbers = dict(layer=index, neurons=neurons, how="in closed form", loss=-12345.678, explained=0.5, seconds=1234.5)
    numbers |= dict(mean_error=1.2e-3, mean_error_se=123456.0, spread_error=12.0, spread_error_se=1e9)
    numbers |= dict(error_estimate=1e-5, error_bound=None, rate=1.0, distortion=2.0, worst_neuron=1, off=off)
    return numbers | changes


def report(outputs=3, layers=1, laws=True):
    law = {"edges": [-1.0, 0.0, 1.0], "masses": [0.25, 0.75], "sampled": [0.3, 0.7]}
    numbers = dict(mean=0.0, sampled_mean=0.1, standard_error=0.01, spread=1.0, sampled_spread=1.1)
    kept = range(min(outputs, SHOWN))
    return {
        "samples": 1000,
        "layers": [layer(i) for i in range(layers)],
        "outputs": [{"output": i} | numbers for i in range(outputs)],
        "classes": {"model": [1 / outputs] * outputs, "sampled": [1 / outputs] * outputs},
        "features": {"numbers": [4, 2], "shares": [0.6, 0.1], "directions": [[1.0, 2.0]] * outputs, "left_out": 5},
        "about": [f"Source: {NAME}"],
    } | ({"laws": [{"output": i} | law for i in kept]} if laws else {})


class Page(HTMLParser):
    """What a page holds; tags must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.words, self.rows = [], [], [], [], 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize(("outputs", "layers"), [(3, 1), (1, 2), (200, 12)])
def test_the_page_holds_all_and_fetches_nothing(outputs, layers):
    given = report(outputs, layers)
    text = page(given, figures.pictures(given))
    found = Page(text)
    assert len(found.links) == 3 and all(link.startswith("data:image/png;base64,") for link in found.links)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "http" not in text.replace(html.escape(NAME), "").replace("http-equiv", "") and "@import" not in text
    assert f"Source: {NAME}" in "".join(found.words)
    assert found.tags.count("table") == (4 if outputs > 1 else 3)  # one output has no classes
    assert found.tags.count("tr") == sum(1 + len(one.rows) for one in tables(given))


def test_without_matplotlib_the_page_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert figures.figure(report()) is None and figures.pictures(report()) == {}
    found = Page(page(report(), {}))
    assert not found.links and "pip install 'analytic_vae[plots]'" in "".join(found.words)


@pytest.mark.parametrize(("outputs", "layers", "laws"), [(3, 1, True), (1, 1, False), (200, 14, True)])
def test_three_pictures_whatever_the_size(outputs, layers, laws):
    given = report(outputs, layers, laws)
    assert figures.figure(given).startswith(b"\x89PNG")
    drawn = dict(figures._drawn(given))
    axes = dict(zip(drawn, plt.subplots(1, 3)[1], strict=True))
    for name, draw in drawn.items():
        draw(axes[name])
    assert len(axes["right"].get_xticks()) == min(outputs, SHOWN)
    if outputs > SHOWN:
        assert axes["right"].get_title() == "16 of 200 outputs, those furthest off"
    dots = [line for line in axes["where"].lines if len(line.get_ydata()) == 3]
    assert len(dots) == 2 * layers  # means and spreads of three neurons each
    assert axes["features"].get_title() == "the largest 2 of 7 features"
    plt.close("all")


def test_reports_of_before_have_the_pictures_that_they_can():
    old = report(laws=False)
    del old["features"], old["layers"][0]["off"]
    assert list(dict(figures._drawn(old))) == ["right"]
    assert figures.figure(old).startswith(b"\x89PNG")


def test_the_short_table_fits_a_terminal():
    lines = short(report(layers=3)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    header = next(line for line in lines if line.lstrip().startswith("layer"))
    assert len([name for name in header.split("  ") if name]) <= 8
    many = short(report(layers=MOST + 7))
    assert (
        f"Layers {MOST // 2} to {MOST // 2 + 6} of {MOST + 7} are left out" in many
        and many.count("closed form") == MOST
    )


def test_doubtful_losses_are_named():
    given = report(layers=2)
    given["layers"][1]["error_estimate"] = 0.5
    assert "Too coarse in layers 1" in short(given)


def test_laws_of_outputs_and_samples_agree():
    """Exact here: one linear layer. Where there are many outputs, those furthest off."""
    source = av.FeatureModel(av.Prior.bernoulli([0.3]), [[1.0]], 0.5)
    network = av.Network([av.LinearLayer(np.linspace(1, 2, 20)[:, None])])
    trajectory = av.learn(source, network, samples=0)
    found = compare(trajectory, samples=20_000, key=jax.random.key(0))
    found["outputs"][19]["mean"] += 0.5
    laws = laws_of_outputs(trajectory, found, key=jax.random.key(1))
    chosen = [law["output"] for law in laws]
    assert len(chosen) == SHOWN and 19 in chosen and chosen == sorted(chosen)
    for law in (laws[0], laws[-1]):
        edges, scale = np.array(law["edges"]), 1 + law["output"] / 19
        exact = np.diff(0.7 * norm.cdf(edges, 0, 0.5 * scale) + 0.3 * norm.cdf(edges, scale, 0.5 * scale))
        np.testing.assert_allclose(law["masses"], exact, atol=1e-8)
        assert np.all(np.abs(law["sampled"] - exact) < 5 * np.sqrt(exact / 20_000) + 1e-3)
    shares = source.main_directions().shares
    np.testing.assert_allclose(found["features"]["shares"], shares)  # all outputs are multiples of the input


def test_samples_are_counted_in_cells_closed_above():
    still = av.FeatureModel(av.Prior.bernoulli([0.25]), [[1.0]], 0.0)
    network = av.Network([av.LinearLayer([[1.0], [2.0]])])
    edges = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 1.5]])
    first, second = counts_in_cells(still, network, 40_000, np.array([0, 1]), edges, jax.random.key(0))
    assert first.sum() == 40_000 and abs(first[1] - 10_000) < 400  # 0 is in the first, 1 in the second
    assert second.sum() == 0  # 0 is not in the first, 2 beyond the last
