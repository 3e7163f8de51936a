"""Remove a family from a tree: its folders, the stems of its operators, what is made of its layers alone, and its lines in lists.

    python tools/remove_family.py forms /tmp/without-forms            a copy of the working tree, without the family
    python tools/remove_family.py forms /tmp/without-forms --build    and configured and built

A family is ``python/isotypic/ops/<family>``, ``nn/<family>`` and ``tests/<family>``. An operator whose registered name is a stem of
``csrc`` takes the files of that stem along. What imports the family goes with it: models, converters, demos, tests. A list stays, and loses
the entries: every ``__init__.py``, and the other files that LISTS matches.
"""

from __future__ import annotations

import argparse
import ast
import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LISTS = ("**/__init__.py", "python/isotypic/cli/*.py", "python/isotypic/testing.py", "tests/*.py", "tests/*/layer_cases.py")
"""Files that name things of every family. Of tests, what uses the family goes, and the others stay."""


def families(root: Path) -> list[str]:
    return sorted(path.parent.name for path in (root / "python/isotypic/ops").glob("*/__init__.py"))


def copy_tree(target: Path) -> None:
    """The files that git tracks or does not ignore, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def stems(root: Path, family: str) -> list[str]:
    """The stems that are bound and are names of operators which this family registers."""
    source = "\n".join(path.read_text() for path in (root / "python/isotypic/ops" / family).glob("*.py"))
    return [path.stem for path in sorted((root / "csrc/bind").glob("*.cpp")) if re.search(rf"[\"']{path.stem}\(", source)]


def remove(root: Path, family: str) -> list[str]:
    """Remove the family from the tree at ``root``. Returns what was removed, as paths."""
    if family not in families(root):
        raise ValueError(f"remove_family: family must be one of {', '.join(families(root))}, got {family!r}")
    removed = _remove_stems(root, family, stems(root, family))
    for folder in (f"python/isotypic/ops/{family}", f"python/isotypic/nn/{family}", f"tests/{family}"):
        if (root / folder).is_dir():
            shutil.rmtree(root / folder)
            removed.append(folder)
    prefixes = ("python/isotypic", "tests", "benchmarks/ops", "examples")
    gone = Gone({_module(root, root / name) for name in removed if not name.startswith("csrc")})
    sources = {path: Source(path) for prefix in prefixes for path in sorted((root / prefix).rglob("*.py"))}
    while True:
        before = gone.count()
        for path, source in list(sources.items()):
            if not path.exists():
                del sources[path]
                continue
            if not gone.is_named_in(source.words):
                continue
            name = path.relative_to(root).as_posix()
            tree, module = source.tree, _module(root, path)
            if any(Path(name).match(pattern) for pattern in LISTS):
                stripper = Stripper(gone, module)
                kept = stripper.visit(tree)
                if stripper.changed:
                    path.write_text(ast.unparse(kept) + "\n")
                    sources[path] = Source(path)
                if path.name == "__init__.py" and _is_empty(path):
                    shutil.rmtree(path.parent)
                    gone.modules.add(module)
                    removed.append(path.parent.relative_to(root).as_posix())
            elif gone.is_used_by(tree):
                path.unlink()
                gone.modules.add(module)
                removed.append(name)
        if gone.count() == before:
            return removed


def _module(root: Path, path: Path) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    parts = parts[1:] if parts[0] in ("python", "tests", "benchmarks") else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_empty(init: Path) -> bool:
    """Whether a package that lost an import has nothing left: no other file, and no statement but its docstring and ``__all__``."""
    others = [path for path in init.parent.rglob("*.py") if path != init]
    body = [node for node in ast.parse(init.read_text()).body if not isinstance(node, (ast.Expr, ast.Assign))]
    return not others and not body


class Source:
    """A file, read, cut into words and parsed once."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.words = frozenset(re.findall(r"\w+", self.text))

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


class Gone:
    """What no longer exists: modules, and names that a package gave to its users."""

    def __init__(self, modules: set[str]) -> None:
        self.modules = modules
        self.names: set[tuple[str, str]] = set()
        """(module, name)"""
        self._packages: dict[str, set[str]] = {}
        """The last names of the modules that had a name."""

    def count(self) -> int:
        return len(self.modules) + len(self.names)

    def add(self, module: str, name: str) -> None:
        self.names.add((module, name))
        self._packages.setdefault(name, set()).add(module.rpartition(".")[2])

    def is_named_in(self, words: frozenset[str]) -> bool:
        """Whether one of the words is the last name of something gone: a quick look before the exact one."""
        return any(name.rpartition(".")[2] in words for name in self.modules) or not words.isdisjoint(self._packages)

    def module(self, name: str) -> bool:
        return any(name == gone or name.startswith(gone + ".") for gone in self.modules)

    def imported(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> bool:
        if isinstance(node, ast.Import):
            return self.module(alias.name)
        source = node.module or ""
        return self.module(source) or self.module(f"{source}.{alias.name}") or (source, alias.name) in self.names

    def attribute(self, node: ast.AST) -> bool:
        """``nn.GroupConv2d``, ``iso.ops.form_action``, ``isotypic.data.collate``: a name of a package, by the package's last name."""
        if not isinstance(node, ast.Attribute):
            return False
        base = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id if isinstance(node.value, ast.Name) else ""
        return not self._packages.get(node.attr, set()).isdisjoint((base, base.removeprefix("i")))

    def is_used_by(self, tree: ast.AST) -> bool:
        return any(
            any(self.imported(node, alias) for alias in node.names)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            else self.attribute(node)
            for node in ast.walk(tree)
        )


class Entries(ast.NodeTransformer):
    """Takes the entries of literals that name lost things out of a list."""

    def __init__(self, gone: Gone, local: set[str]) -> None:
        self.gone, self.local, self.changed = gone, local, False

    def lost(self, *nodes: ast.AST | None) -> bool:
        """Whether the nodes use something that is gone."""
        return any(
            (isinstance(part, ast.Name) and part.id in self.local)
            or (isinstance(part, (ast.Import, ast.ImportFrom)) and any(self.gone.imported(part, alias) for alias in part.names))
            or self.gone.attribute(part)
            for node in nodes
            if node
            for part in ast.walk(node)
        )

    def lost_entry(self, entry: ast.expr | None) -> bool:
        if isinstance(entry, ast.Constant):
            return isinstance(entry.value, str) and entry.value in self.local | {name for _, name in self.gone.names}
        return isinstance(entry, (ast.Name, ast.Attribute, ast.Call, ast.Starred, ast.Tuple)) and self.lost(entry)

    def _literal(self, node: Any) -> Any:
        kept = [entry for entry in node.elts if not self.lost_entry(entry)]
        self.changed = self.changed or len(kept) < len(node.elts)
        node.elts = kept
        return self.generic_visit(node)

    visit_List = visit_Tuple = visit_Set = _literal

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        pairs = zip(node.keys, node.values, strict=True)
        kept = [(key, value) for key, value in pairs if not self.lost_entry(key) and not self.lost_entry(value)]
        self.changed = self.changed or len(kept) < len(node.keys)
        node.keys, node.values = [key for key, _ in kept], [value for _, value in kept]
        return self.generic_visit(node)


class Stripper(Entries):
    """Takes out of a list what uses things that are gone: imports, entries of literals, and then functions, classes and statements."""

    def __init__(self, gone: Gone, module: str) -> None:
        super().__init__(gone, {name for owner, name in gone.names if owner == module})
        self.module = module

    def _drop(self, name: str) -> None:
        self.changed = True
        self.local.add(name)
        self.gone.add(self.module, name)

    def _imports(self, node: Any) -> Any:
        for alias in [alias for alias in node.names if self.gone.imported(node, alias)]:
            self._drop(alias.asname or alias.name)
            node.names.remove(alias)
        return node if node.names else None

    visit_Import = visit_ImportFrom = _imports

    def _uses(self, *nodes: ast.AST) -> bool:
        """Whether they use lost things elsewhere than in entries of literals."""
        return self.lost(*nodes) and self.lost(*[Entries(self.gone, self.local).visit(copy.deepcopy(node)) for node in nodes])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        fixtures = {argument.arg for argument in node.args.args} & self.local
        if fixtures or self._uses(*node.body):
            self._drop(node.name)
            return None
        return self._strip(node)

    def _strip(self, node: Any) -> Any:
        entries = Entries(self.gone, self.local)
        entries.visit(node)
        self.changed = self.changed or entries.changed
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | None:
        if self.lost(*node.bases, *node.body):
            self._drop(node.name)
            return None
        return node

    def _statement(self, node: Any) -> Any:
        if not self._uses(node):
            return self._strip(node)
        for target in getattr(node, "targets", None) or [getattr(node, "target", node)]:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    self._drop(part.id)
        self.changed = True
        return None

    visit_Assign = visit_AnnAssign = visit_Expr = _statement


def _remove_stems(root: Path, family: str, names: list[str]) -> list[str]:
    removed, bound = [], set()
    paths = [path for stem in names for path in (root / "csrc").rglob(f"{stem}*")]
    for path in sorted({*paths, *(root / "csrc").rglob(f"{family}.*")}):
        removed.append(path.relative_to(root).as_posix())
    for stem in names:
        binding = root / f"csrc/bind/{stem}.cpp"
        bound |= set(re.findall(r"(?:m\.def\(|py::class_<\w+>\(m, )\s*\"(\w+)\"", binding.read_text()))
    for name in removed:
        (root / name).unlink()
    # A header that includes one of these has no other user than the operator.
    while orphans := {line.split(":")[0] for line in unresolved_includes(root) if line.split(":")[0].endswith((".hpp", ".cuh"))}:
        for name in sorted(orphans):
            removed.append(name)
            (root / name).unlink()
    words = "|".join(names)
    for name in ("CMakeLists.txt", "csrc/bind/module.cpp"):
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join(_without(line, words) for line in lines if not re.search(rf"bind_({words})\(", line)) + "\n")
    stub = root / "python/isotypic/_C.pyi"
    tree = ast.parse(stub.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) not in bound]
    stub.write_text(ast.unparse(tree) + "\n")
    return removed


def _without(line: str, words: str) -> str:
    """A line of CMakeLists.txt without these stems and the sources whose names begin with them."""
    return re.sub(rf"(?<=[ (])(csrc/\w+/)?({words})(_\w+\.cpp)?(?=[ )]|$)", "", line) if words else line


def unresolved_includes(root: Path) -> Iterator[str]:
    """``file: header`` for every quoted include in ``csrc`` that no file answers, but for what the build generates."""
    for path in sorted((root / "csrc").rglob("*.[ch]*")):
        for header in re.findall(r"^\s*#\s*include \"([^\"]+)\"", path.read_text(), flags=re.MULTILINE):
            if not header.endswith(".inc") and not (root / "csrc" / header).exists() and not (path.parent / header).exists():
                yield f"{path.relative_to(root)}: {header}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", help=", ".join(families(ROOT)))
    parser.add_argument("target", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--build", action="store_true", help="configure and build the extension there, without CUDA")
    arguments = parser.parse_args()
    if arguments.target.exists():
        parser.error(f"{arguments.target} exists")
    copy_tree(arguments.target)
    for name in remove(arguments.target, arguments.family):
        print("removed", name)
    missing = list(unresolved_includes(arguments.target))
    print("\n".join(missing))
    if missing or not arguments.build:
        return bool(missing)
    build = arguments.target / "build"
    subprocess.run(["cmake", "-S", arguments.target, "-B", build, "-DISOTYPIC_CUDA=OFF", "-DCMAKE_BUILD_TYPE=Release"], check=True)
    subprocess.run(["cmake", "--build", build], check=True)
    for module in build.glob("_C*.so"):
        shutil.copy2(module, arguments.target / "python/isotypic")
    return 0


if __name__ == "__main__":
    sys.exit(main())
