"""What mkdocs.yml adds to mkdocs: pages of the reference made from ``__all__``, pages that lie outside of docs/, and formulas as MathML.

Formulas are turned into MathML while the site is built, which every browser draws by itself: no script, no fonts, no other host.
"""

from __future__ import annotations

import ast
import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "isotypic"

OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md", "README.md": "index.md"}
"""Pages in the root of the tree, and where they are in the site."""

MODULES = ["ops", "nn", "models", "testing", "symmetrize", "relaxation", "cloning", "sl2", "pga", "groups", "data", "scaling"]
"""The public modules, in the order of the reference; `isotypic` itself is first."""


def tree(module: str) -> tuple[ast.Module, Path]:
    path = PACKAGE / module / "__init__.py" if module else PACKAGE / "__init__.py"
    path = path if path.exists() else PACKAGE / f"{module}.py"
    return ast.parse(path.read_text()), path


def public_names(module: str) -> list[str]:
    """``__all__`` of isotypic.<module>, read without importing it; for a package without one, its modules."""
    parsed, path = tree(module)
    for node in parsed.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(node.value) if not name.startswith("__")]
    return sorted(file.stem for file in path.parent.glob("[!_]*.py"))


def summary(module: str) -> str:
    docstring = ast.get_docstring(tree(module)[0]) or ""
    return docstring.split("\n\n")[0].replace("``", "`")


def reference_page(module: str) -> str:
    """One page with every public name of isotypic.<module>, functions and classes by their docstrings."""
    full = f"isotypic.{module}" if module else "isotypic"
    names = [name for name in public_names(module) if module or name not in MODULES]
    index = ", ".join(f"[`{name}`][{full}.{name}]" for name in names)
    parts = [f"# {full}", summary(module), index, *(f"::: {full}.{name}" for name in names)]
    return "\n\n".join(parts) + "\n"


def reference_index() -> str:
    rows = [f"| [`isotypic.{module}`]({module}.md) | {' '.join(summary(module).split())} |" for module in MODULES]
    intro = "Every public name, from its docstring. [`isotypic`](isotypic.md) itself has what works with any of them."
    return "\n".join(["# Reference", "", intro, "", "| module | holds |", "|---|---|", *rows, ""])


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    pages = ["reference/index.md", *({f"isotypic.{m}" if m else "isotypic": f"reference/{m or 'isotypic'}.md"} for m in ["", *MODULES])]
    config.nav = [{"Reference": pages} if "Reference" in entry else entry for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, target in OUTSIDE.items():
        if target != "index.md":
            files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "reference/index.md", content=reference_index()))
    for module in ["", *MODULES]:
        files.append(File.generated(config, f"reference/{module or 'isotypic'}.md", content=reference_page(module)))
    return files


def moved(target: str, page: str, repository: str) -> str:
    """A relative link of a page as the site has it: pages from outside of docs/ are in it, other files in the repository."""
    path, _, anchor = target.partition("#")
    anchor = anchor and "#" + anchor
    source = {site: outside for outside, site in OUTSIDE.items() if site != "index.md"}.get(page, f"docs/{page}")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    folder = posixpath.dirname(page) or "."
    if place in OUTSIDE:
        return posixpath.relpath(OUTSIDE[place], folder) + ("" if OUTSIDE[place] == "index.md" else anchor)
    if place.startswith("docs/"):
        return posixpath.relpath(place.removeprefix("docs/"), folder) + anchor
    return f"{repository}/blob/main/{place}{anchor}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri.startswith("reference/"):
        return markdown

    def link(match: re.Match[str]) -> str:
        return f"]({moved(match[1], page.file.src_uri, config.extra['repository'])})"

    # Links to files; those with a scheme, to anchors of the page itself and what code has in brackets stay.
    return re.sub(r"\]\((?![a-z]+:)([\w./-]*[./][\w./-]*(?:#[\w-]+)?)\)", link, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def mathml(match: re.Match[str]) -> str:
        text = html.unescape(match[2])
        display = "block" if match[1] == "div" else "inline"
        return f'<{match[1]} class="arithmatex">{convert(text.strip()[2:-2], display=display)}</{match[1]}>'

    return re.sub(r'<(div|span) class="arithmatex">(.*?)</\1>', mathml, content, flags=re.DOTALL)
