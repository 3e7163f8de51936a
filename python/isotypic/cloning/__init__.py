"""Symmetry cloning: a network without symmetry learns that of another one, and keeps as much of it as its task lets it.

`clone` makes a student imitate an equivariant teacher on noise, `finetune` trains it further with a slider between breaking and keeping
what it has learned, `symmetry_report` measures how equivariant a network is, and says so. `randomize` draws a teacher.

A cloned symmetry is approximate: no bound on it is known, and distillation may fail to transfer an invariance. It is a way to start and to
regularise a training, and every report has the measured error.

H. Huang et al., "Symmetry From Scratch: Group Equivariance as a Supervised Learning Task", 2024.
"""

from isotypic.cloning._clone import Cloned, clone, randomize
from isotypic.cloning._finetune import Finetuned, finetune
from isotypic.cloning._report import SymmetryReport, symmetry_report

__all__ = ["Cloned", "Finetuned", "SymmetryReport", "clone", "finetune", "randomize", "symmetry_report"]


def __dir__() -> list[str]:
    return __all__
