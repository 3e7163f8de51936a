"""What tests/test_contract.py asks its questions of: the operators of every family, found in ``tests/<family>/cases.py``.

CASES: one ``Case`` for each way of calling an operator. REGISTERED: a name, a registered operator and arguments for it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from contract_case import Case

FAMILIES = [import_module(f"{path.parent.name}.cases") for path in sorted(Path(__file__).parent.glob("*/cases.py"))]
CASES: tuple[Case, ...] = tuple(case for family in FAMILIES for case in family.CASES)
REGISTERED: tuple[tuple[str, str, tuple[Any, ...]], ...] = tuple(entry for family in FAMILIES for entry in family.REGISTERED)
