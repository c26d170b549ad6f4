"""The README's example runs as it stands, and its commands are there."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert "loss" in capsys.readouterr().out
    assert abs(float(names["loss"]) - names["result"].loss) < 1e-4


def test_the_two_commands_are_one_line_each():
    commands = re.findall(r"^python3 -m venv .*$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert "analytic_vae learn" in commands[0]
    assert "pytest" in commands[1]


def test_its_picture_is_there():
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert (Path(__file__).parents[2] / picture).is_file()
    assert not re.search(r"MAIN_JOB|RUNTIME|TODO|SPLIT_", README)
