"""Cases of ``python -m isotypic check``: frames, means over rotations and relaxed sorting, by plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic import ops
from isotypic._check_case import CheckCase, random_tensor, relative_error
from isotypic.ops.symmetrize import reference

TURN = torch.tensor([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def cases() -> list[CheckCase]:
    return [_orthonormal_frame(), _rotate_mean(), _sort_sinkhorn()]


def _orthonormal_frame() -> CheckCase:
    def kernel(v: Tensor) -> Tensor:
        return ops.orthonormal_frame(v).frame

    def gram_schmidt(v: Tensor) -> Tensor:
        return reference.orthonormal_frame(v)[0]

    def asymmetry(v: Tensor) -> float:
        return relative_error(kernel(TURN.to(v) @ v), TURN.to(v) @ kernel(v))

    near_identity = torch.eye(3, dtype=torch.float64) + 0.25 * random_tensor(5, 3, 3)
    return CheckCase("orthonormal_frame", (near_identity,), kernel, gram_schmidt, asymmetry)


def _rotate_mean() -> CheckCase:
    def asymmetry(rotation: Tensor, y: Tensor) -> float:
        turn = TURN.to(y)
        return relative_error(ops.rotate_mean(turn @ rotation, y), ops.rotate_mean(rotation, y) @ turn.mT)

    return CheckCase(
        "rotate_mean", (random_tensor(2, 4, 3, 3), random_tensor(2, 4, 6, 3)), ops.rotate_mean, reference.rotate_mean, asymmetry
    )


def _sort_sinkhorn() -> CheckCase:
    tau, iterations = 0.3, 5

    def kernel(scores: Tensor) -> Tensor:
        return ops.sort_sinkhorn(scores, tau=tau, iterations=iterations).entropy

    def dense(scores: Tensor) -> Tensor:
        order = reference.sort_scores(scores)
        return reference.entropy(reference.soft_permutation(scores, order, None, tau, iterations), None)

    def asymmetry(scores: Tensor) -> float:
        """The entropy does not see the order of the nodes."""
        return relative_error(kernel(scores.roll(3, -1)), kernel(scores))

    return CheckCase("sort_sinkhorn", (random_tensor(3, 8),), kernel, dense, asymmetry)
