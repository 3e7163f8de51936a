"""The operators of symmetrization, for the contract. Those with several results are asked for all of them in one tensor."""

from __future__ import annotations

from typing import Any

import torch
from contract_case import Case, Tensors, wrong_tensors
from torch import Tensor

import isotypic as iso
from isotypic.ops.symmetrize import reference

TURNS = [torch.eye(3, dtype=torch.float64), *torch.linalg.qr(torch.randn(2, 3, 3, dtype=torch.float64)).Q]
EIGENVALUES = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
TAU, STEPS = 0.3, 4


def orthonormal_frame(v: Tensor, proper: bool = False) -> Tensor:
    return iso.ops.orthonormal_frame(v, proper).frame


def symmetric_eigen(a: Tensor) -> Tensor:
    found = iso.ops.symmetric_eigen(a)
    return torch.cat([found.vectors, found.values[..., None, :]], -2)


def reference_eigen(a: Tensor) -> Tensor:
    """Perturbation theory to second order about the matrix itself: right up to second derivatives, in both modes, where those of
    torch.linalg.eigh are NaN in one."""
    _, base, _ = reference.symmetric_eigen(a.detach())
    b = base.mT @ ((a + a.mT) / 2) @ base
    level, eye = b.diagonal(dim1=-2, dim2=-1), torch.eye(a.shape[-1], dtype=a.dtype)
    off = b * (1 - eye)
    # mixed[j, i] = b_ji / (l_i - l_j)
    gaps = level[..., None, :] - level[..., :, None] + eye
    mixed = off / gaps
    values = level + (off * mixed).sum(-2)
    second = (off @ mixed) / gaps * (1 - eye) - torch.diag_embed(mixed.square().sum(-2) / 2)
    return torch.cat([base @ (eye + mixed + second), values[..., None, :]], -2)


def polar(a: Tensor) -> Tensor:
    return torch.cat(iso.ops.polar(a)[:2], -1)


def reference_polar(a: Tensor) -> Tensor:
    return torch.cat(reference.polar(a)[:2], -1)


def sort_sinkhorn(scores: Tensor, tau: float = TAU) -> Tensor:
    return iso.ops.sort_sinkhorn(scores, tau=tau, iterations=STEPS).entropy[:, None]


def reference_entropy(scores: Tensor) -> Tensor:
    order = reference.sort_scores(scores)
    return reference.entropy(reference.soft_permutation(scores, order, None, TAU, STEPS), None)[:, None]


def near_identity(batch: int) -> Tensor:
    return torch.eye(3, dtype=torch.float64) + 0.25 * torch.randn(batch, 3, 3, dtype=torch.float64)


def frame_inputs(override: dict[str, int]) -> Tensors:
    return (near_identity({"batch": 2, **override}["batch"]),)


def eigen_inputs(override: dict[str, int]) -> Tensors:
    noise = torch.randn({"batch": 2, **override}["batch"], 3, 3, dtype=torch.float64)
    return (torch.diag(EIGENVALUES) + 0.1 * (noise + noise.mT) + 0.1 * (noise - noise.mT),)


def score_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "nodes": 5} | override
    # Far enough apart that 16 bits do not make them equal.
    grid = torch.stack([torch.randperm(s["nodes"]) for _ in range(s["batch"])]) if s["batch"] else torch.zeros(0, s["nodes"])
    return ((grid.double() + 0.5 * torch.rand(s["batch"], s["nodes"], dtype=torch.float64)) / 8,)


def rotate_inputs(override: dict[str, int]) -> Tensors:
    s = {"batch": 2, "samples": 3, "nodes": 5} | override
    rotation = torch.randn(s["batch"], s["samples"], 3, 3, dtype=torch.float64)
    return rotation, torch.randn(s["samples"], s["nodes"], 3, dtype=torch.float64)


def rotate_mean(rotation: Tensor, y: Tensor) -> Tensor:
    """With the same y for each sample, so that samples are one axis of one tensor."""
    return iso.ops.rotate_mean(
        rotation, y.expand(rotation.shape[0], *y.shape) if isinstance(rotation, Tensor) and isinstance(y, Tensor) else y
    )


WRONG_MATRIX = (
    lambda v: v.tolist(),
    lambda v: v.numpy(),
    lambda v: v.long(),
    lambda v: v.to(torch.complex64),
    lambda v: v.to_sparse(),
    lambda v: v[..., :0],
    lambda v: v[..., :2],
    lambda v: v[0, 0],
    None,
)

CASES = (
    Case(
        "orthonormal frame",
        orthonormal_frame,
        {"proper": False},
        lambda v: reference.orthonormal_frame(v)[0],
        frame_inputs,
        {"batch": 2},
        act=lambda element, v: TURNS[element] @ v,
        act_output=lambda element, frame: TURNS[element] @ frame,
        order=len(TURNS),
        wrong=(*(("v", wrong) for wrong in WRONG_MATRIX), ("proper", 1)),
        tensors=("v",),
        operators=("orthonormal_frame", "orthonormal_frame_backward"),
    ),
    Case(
        "symmetric eigen",
        symmetric_eigen,
        {},
        reference_eigen,
        eigen_inputs,
        {"batch": 2},
        wrong=tuple(("a", wrong) for wrong in WRONG_MATRIX),
        tensors=("a",),
        operators=("symmetric_eigen", "symmetric_eigen_backward"),
    ),
    Case(
        "polar",
        polar,
        {},
        reference_polar,
        frame_inputs,
        {"batch": 2},
        wrong=tuple(("a", wrong) for wrong in WRONG_MATRIX),
        tensors=("a",),
        operators=("polar", "polar_backward"),
    ),
    Case(
        "rotate mean",
        rotate_mean,
        {},
        lambda rotation, y: reference.rotate_mean(rotation, y.expand(rotation.shape[0], *y.shape)),
        rotate_inputs,
        {"batch": 2, "samples": 3, "nodes": 5},
        act=lambda element, rotation: TURNS[element] @ rotation,
        act_output=lambda element, y: y @ TURNS[element].T,
        order=len(TURNS),
        wrong=(
            *(wrong for i, wrong in enumerate(wrong_tensors("rotation", "y")) if i != 10),
            ("y", lambda y: y[:1]),
            ("y", lambda y: y[..., 1:]),
            ("rotation", lambda r: r[0]),
        ),
        tensors=("rotation", "y"),
        operators=("rotate_sum", "rotate_both"),
    ),
    Case(
        "sort sinkhorn",
        sort_sinkhorn,
        {"tau": TAU},
        reference_entropy,
        score_inputs,
        {"batch": 2, "nodes": 5},
        wrong=(
            *(("scores", wrong) for i, wrong in enumerate(WRONG_MATRIX) if i not in (5, 6)),
            ("scores", lambda s: s * torch.nan),
            ("scores", lambda s: s / 0),
            ("tau", 0.0),
            ("tau", "warm"),
            ("tau", float("inf")),
        ),
        tensors=("scores",),
        operators=("sort_sinkhorn_entropy", "sort_sinkhorn_gradient"),
    ),
)


def _registered() -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    v, (a,), (scores,) = near_identity(2), eigen_inputs({}), score_inputs({})
    grad, other = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    positive = v @ v.mT
    rotation, y = rotate_inputs({})
    y = torch.stack([y, y.flip(0)])
    x, t = torch.randn(2, 5, 3, dtype=torch.float64), scores.sort().values
    lengths = torch.tensor([5, 3])
    weight = torch.randn(2, dtype=torch.float64)
    entries = {
        "orthonormal_frame": (v, True),
        "orthonormal_frame_backward": (grad, v, other.triu()),
        "symmetric_eigen": (a,),
        "symmetric_eigen_backward": (grad[:, 0], other, EIGENVALUES + 0.1 * torch.rand(2, 3, dtype=torch.float64), v),
        "polar": (v,),
        "polar_backward": (grad, other, v, positive),
        "sylvester": (positive, grad),
        "rotate_sum": (rotation, y, 0.5),
        "rotate_each": (rotation, x, 0.5),
        "rotate_outer": (x, y, 0.5),
        "rotate_both": (x, rotation, y, 0.5),
        "permute": (x, torch.stack([torch.randperm(5) for _ in range(2)]), False, 1),
        "sort_sinkhorn_entropy": (t, lengths, TAU, 3),
        "sort_sinkhorn_gradient": (t, x, torch.randn_like(x), weight, lengths, TAU, 3),
    }
    return tuple(("symmetrize", name, args) for name, args in entries.items())


REGISTERED = _registered()
