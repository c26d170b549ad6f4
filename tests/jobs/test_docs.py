"""The examples of README, docs/ and the docstrings run as they stand.

Blocks of a page share one namespace, in order; ```python blocks run, ```py and ```sh blocks do not. An example of a
docstring has the names below, and what it prints is compared only where it says what that is.
"""

import doctest
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_stand_ins
from sklearn.neural_network import MLPRegressor

import analytic_vae as av

ROOT = Path(__file__).parents[2]
PACKAGE = Path(av.__file__).parent
PAGES = {
    str(page.relative_to(ROOT)): blocks
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if (blocks := re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE))
}


class Shown(doctest.OutputChecker):
    """An example that shows no output may print anything."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def examples() -> dict[str, doctest.DocTest]:
    """The examples of what the package exports, and of its methods."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for name in av.__all__:
        one = getattr(av, name)
        if isinstance(one, type) or inspect.isroutine(inspect.unwrap(one)):
            found |= {test.name: test for test in finder.find(one, name) if test.examples}
    return found


EXAMPLES = examples()


def ready_made() -> dict:
    """Small objects under the names that examples use."""
    source = av.FeatureModel(av.Prior.bernoulli([0.3, 0.1]), jnp.array([[1.0, 0.5], [0.0, 1.0]]), 0.3)
    logistic = jnp.array([[[0.0, 2.0]], [[0.0, 2.0]]])
    weights = [(jnp.eye(2), jnp.ones(2)), (jnp.ones((1, 2)), None)]
    encoder = av.SoftmaxEncoder(jnp.eye(2)[:, None], logistic, jnp.array([[0.0, -2.0], [0.0, -3.0]]))
    return {name: getattr(av, name) for name in av.__all__} | {
        "av": av,
        "eqx": eqx,
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "source": source,
        "layer": av.LinearLayer(jnp.array([[1.0, 0.2], [-0.3, 1.0]])),
        "target": av.FeatureModel(av.Prior.bernoulli([0.3, 0.1]), jnp.eye(2), 0.4),
        "encoder": encoder,
        "result": SimpleNamespace(encoder=encoder),
        "atoms": source.prior.atoms,
        "weights": weights,
        "net": SimpleNamespace(fc1=torch_stand_ins.linear(4, 3), fc2=torch_stand_ins.linear(2, 4)),
        "estimator": MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs").fit(np.eye(3), np.arange(3.0)),
    }


# What takes longer to make, for the examples that speak of it and do not make it themselves.
MADE_FOR = {
    "law": lambda names: av.pushforward(names["source"], names["layer"], jnp.eye(2)[:1]),
    "trajectory": lambda names: av.learn(names["source"], av.Network([names["layer"]]), samples=0),
}


def write_network(path: Path) -> None:
    """The file that `load_network` reads in its example."""
    np.savez(path, **{f"{name}.weight": np.eye(2) for name in ("encoder.fc1", "encoder.fc2", "head")})


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for number, block in enumerate(PAGES[page]):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_docstring_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "net.npz")
    test = EXAMPLES[name]
    test.globs = ready_made()
    text = "".join(one.source for one in test.examples)
    for made, make in MADE_FOR.items():
        if re.search(rf"\b{made}\.", text) and f"{made} = " not in text:
            test.globs[made] = make(test.globs)
    runner = doctest.DocTestRunner(Shown(), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, clear_globs=False)
    assert not runner.failures, capsys.readouterr().out


def test_every_example_of_the_package_is_public():
    written = {
        line.strip().removeprefix(">>> ")
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(">>> ")
    }
    run = {one.source.splitlines()[0] for test in EXAMPLES.values() for one in test.examples}
    assert written == run


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in re.findall(
            r"\]\((?!https?:)([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        ):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"
