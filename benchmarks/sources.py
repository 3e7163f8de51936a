"""What a result was measured of: a digest of the sources of each kernel, by which one sees later whether the kernel is still the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc"


def digest(stem: str) -> str:
    """Of the CPU sources whose names begin with the stem, without comments and blanks, which change nothing."""
    sources = sorted(path for folder in ("ops", "cpu") for path in (CSRC / folder).glob(f"{stem}*") if path.is_file())
    if not sources:
        raise ValueError(f"there is no kernel {stem!r} in {CSRC}")
    code = (re.sub(r"\s+", "", re.sub(r"//[^\n]*", "", path.read_text())) for path in sources)
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


def digests(stems: Iterable[str]) -> dict[str, str]:
    return {stem: digest(stem) for stem in stems}
