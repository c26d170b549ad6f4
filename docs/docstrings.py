"""How the site reads docstrings: `>>>` lines are code, `Fields:` are attributes."""

import re

import griffe


class Docstrings(griffe.Extension):
    """Rewrites a docstring before it is parsed."""

    def on_instance(self, *, obj, **_):
        """Of every module, class, function and attribute."""
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """With fences around examples, the name that the parser has for fields, and an entry for each of several names."""
    text = re.sub(r"^Fields:$", "Attributes:", text, flags=re.MULTILINE)
    text = re.sub(r"^    (\w+(?:, \w+)+):(.*\n?(?:^     .*\n?)*)", _one_each, text, flags=re.MULTILINE)
    return re.sub(r"^>>> (?:.+\n?)+", lambda block: f"```pycon\n{block[0].rstrip()}\n```\n", text, flags=re.MULTILINE)


def _one_each(entry: re.Match) -> str:
    return "".join(f"    {name}:{entry[2].rstrip()}\n" for name in entry[1].split(", "))
