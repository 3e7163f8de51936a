"""Docstrings as the site shows them: they are plain text with formulas, where Markdown would see links and emphasis."""

from __future__ import annotations

import re
from typing import Any

import griffe

CODE = re.compile(r"(``.+?``|`[^`\n]+`)")
SECTION = re.compile(r"(Args|Attributes|Parameters):\s*")
LEAD = re.compile(r"(Returns|Yields|Raises|Inputs?|Outputs?)\b:?")


def _escaped(text: str) -> str:
    """Brackets, stars and angles outside of code, so that f[c](x) is no link and a * b * c no emphasis."""
    text = re.sub(r":\w+:(`[^`\n]+`)", r"\1", text)
    parts = CODE.split(text)
    parts[::2] = [re.sub(r"([\[\]*])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)


def as_markdown(text: str) -> str:
    """Formulas (indented) and examples (>>>) are code, "Returns: ..." opens a paragraph, the rest is text."""
    shown: list[str] = []
    section = example = False
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith(">>>") and not example:
            example = True
            shown += ["", "```pycon"]
        elif example and not line.strip():
            example = False
            shown.append("```")
        indented = line.startswith("    ")
        if SECTION.fullmatch(line):
            section = True
        elif line.strip() and not indented:
            section = False
        if example or (indented and not section):
            shown.append(line)
        elif section:
            name, colon, rest = line.partition(": ")
            shown.append(name + colon + _escaped(rest) if colon else _escaped(line))
        else:
            if lead := LEAD.match(line):
                line = f"\n**{lead[1]}**{lead[0][len(lead[1]) :]}{line[lead.end() :]}"
                line = line.replace("**", "\0")
            shown.append(_escaped(line).replace("\0", "**"))
    return "\n".join(shown).strip()


class PlainText(griffe.Extension):
    """Named in mkdocs.yml."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
