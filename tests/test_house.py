"""The house stays one that strangers find their way in: imports run one way, files and functions are short."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import analytic_vae as av

HOUSE = Path(av.__file__).parent
BOUNDS = HOUSE.parent / "docs" / "bounds.md"
FILES = sorted(HOUSE.rglob("*.py"))
# From the ground up: a room imports from those before it alone.
ROOMS = [
    "types", "_check", "plots", "model", "_jit", "_sharding", "accuracy", "samples", "spectral", "resolve", "moments",
    "laws", "certify", "expectations", "elbo", "bounded_expectation", "pushforward", "sparse_autoencoder",
    "closed_form", "fitting", "fit", "io", "learn", "cli", "__init__", "__main__",
]  # fmt: skip
FLOORS, LINES, CODE, PARAMETERS, ENTRIES = 13, 350, 50, 7, 30


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE).with_suffix("")).replace("/", ".").removesuffix(".__init__")


NAMES = {name_of(path): path for path in FILES}


@cache
def imported(name: str) -> frozenset[str]:
    """The modules that a module imports."""
    path, found = NAMES[name], set()
    folder = path.parent.relative_to(HOUSE).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*folder[: len(folder) - node.level + 1], *((node.module or "").split("."))]).strip(".")
            found |= {one if (one := f"{base}.{a.name}".strip(".")) in NAMES else base for a in node.names}
    return frozenset(found)


def room_of(name: str) -> str:
    return name.split(".")[0]


def functions(path: Path):
    """Those of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def test_every_import_runs_down():
    assert {room_of(name) for name in NAMES} == set(ROOMS)
    for name in NAMES:
        for other in imported(name):
            one, below = room_of(name), room_of(other)
            assert one == below or ROOMS.index(below) < ROOMS.index(one), f"{name} imports {other}, which is above it"


def test_no_circle_and_few_floors():
    """Inside of rooms too; floors are counted between rooms."""
    open_ones, done = [], set()

    def visit(name: str) -> None:
        assert name not in open_ones, f"a circle of imports: {' > '.join([*open_ones, name])}"
        if name not in done:
            open_ones.append(name)
            for other in imported(name):
                visit(other)
            done.add(open_ones.pop())

    for name in NAMES:
        visit(name)
    below = {room: {room_of(o) for n in NAMES if room_of(n) == room for o in imported(n)} - {room} for room in ROOMS}
    floor: dict[str, int] = {}
    for room in ROOMS:
        floor[room] = 1 + max((floor[other] for other in below[room]), default=0)
    assert max(floor.values()) <= FLOORS, floor


def test_the_top_floor_is_small():
    entries = [one for one in HOUSE.iterdir() if one.suffix in (".py", "") and one.name != "__pycache__"]
    assert len(entries) <= ENTRIES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= LINES
    for node in functions(path):
        own = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len([one for one in own if one not in ("self", "cls")])
        said = ast.get_docstring(node, clean=False) or ""
        lines = node.end_lineno - node.lineno + 1 - (said.count("\n") + 1 if said else 0)
        assert lines <= CODE, f"{node.name} has {lines} lines of code"
        public = node.name in (*av.__all__, "__init__")
        assert count <= PARAMETERS or public, f"{node.name} has {count} parameters"


def test_layers_are_not_told_apart_by_their_class():
    kinds = "LinearLayer|RidgeLayer|DenseLayer|RidgeForm|LayerForm"
    tests = [line for path in FILES for line in re.findall(rf"isinstance\([^()]*\b(?:{kinds})\b", path.read_text())]
    assert len(tests) <= 3, tests


def test_every_bound_that_the_code_names_is_proved_and_tested():
    """`B12` in `certify/` is an item of `docs/bounds.md`, and every item but mere choices has a test that names it."""
    items = set(re.findall(r"^(?:#+ |\*\*|- \*\*)?\**(B\d+)\b", BOUNDS.read_text(), flags=re.MULTILINE))
    code = "".join(path.read_text() for path in (HOUSE / "certify").glob("*.py"))
    named = set(re.findall(r"\bB\d+\b", code))
    assert named and named <= items, sorted(named - items)
    tests = "".join(path.read_text() for path in (Path(__file__).parent / "certify").glob("test_*.py"))
    tested = set(re.findall(r"\bB\d+\b", tests))
    for first, last in re.findall(r"\bB(\d+) to B(\d+)\b", tests):
        tested |= {f"B{i}" for i in range(int(first), int(last) + 1)}
    chosen = set(re.findall(r"\b(B\d+)\*\* \(choices?\)", BOUNDS.read_text()))  # of which no proof depends
    assert named <= tested | chosen, sorted(named - tested, key=lambda one: int(one[1:]))


def test_every_axis_has_a_letter_of_the_glossary():
    """Letters of annotations are those of `types.py`, or words that say what they count."""
    said = ast.get_docstring(ast.parse(NAMES["types"].read_text()))
    assert said[said.index("| letter") :] in (HOUSE.parent / "docs" / "glossary.md").read_text()
    glossary = set(re.findall(r"`([A-Za-z]+[0-9]*)(?: =[^`]*)?`", said))
    for path in FILES:
        for shape in re.findall(r"(?:Float|Complex|Bool)\[Array, \"([^\"]*)\"\]", path.read_text()):
            for axis in shape.split():
                known = axis in glossary or axis.startswith("*") or axis.isdigit() or len(axis) > 3
                assert known, f"{path.name}: {axis} in [{shape}]"
