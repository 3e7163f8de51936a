"""Alignment of networks to a reference by weight matching: a permutation of their hidden neurons, found layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from isotypic._optional import needed
from isotypic.data.neural_field import ODD, NeuralField
from isotypic.data.weight_augment import scale_neurons
from isotypic.nn._arguments import check_tensor


def align_neurons(
    field: NeuralField, networks: Tensor, reference: Tensor, *, signs: bool | None = None, sweeps: int = 20, chunk: int = 1000
) -> Tensor:
    """Permutes the hidden neurons of each network to bring its weights as close to the reference as coordinate descent can.

    The squared distance to the reference is least where the overlap is largest. With all layers but one fixed, the overlap of hidden
    layer l is a sum over matched pairs (r of the reference, s of the network),

        C[r, s] = <W_l^ref[r], W_l[s]> + b_l^ref[r] b_l[s] + <W_{l+1}^ref[:, r], W_{l+1}[:, s]>,

    which is a linear assignment problem, solved exactly. Sweeps over the layers repeat until no permutation changes. One sweep without the
    last term finds the order of permuted copies of the reference, whatever their depth, and is taken where it comes closer. For an odd
    activation the sign of each neuron is free too: |C| is assigned, and neurons with negative C turn their sign. The functions stay as they
    are.

    Args:
        networks: (N, P). reference: (P), for instance one of the networks.
        signs: match signs as well; None does where the activation is odd.
        sweeps: at most.
        chunk: networks at a time, which bounds the memory.

    Raises ValueError for a reference of another shape or signs with an activation that is not odd; ModuleNotFoundError without scipy.

    S. Ainsworth, J. Hayase and S. Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries", 2023.

    >>> from isotypic.data.weight_augment import permute_neurons
    >>> field = NeuralField([2, 8, 8, 1])
    >>> network = field.initial(1)
    >>> aligned = align_neurons(field, permute_neurons(field, network.expand(3, -1)), network[0])
    >>> torch.allclose(aligned, network.expand(3, -1))
    True
    """
    signs = field.activation in ODD if signs is None else signs
    if signs and field.activation not in ODD:
        raise ValueError(f"align_neurons: signs can be matched for an odd activation only, got {field.activation!r}")
    check_tensor("align_neurons", "reference", reference)
    if tuple(reference.shape) != (field.spec.numel,):
        raise ValueError(f"align_neurons: reference must have shape (P={field.spec.numel},), got {tuple(reference.shape)}")
    field.views(networks)
    if sweeps < 0 or chunk < 1:
        raise ValueError(f"align_neurons: sweeps must be at least 0 and chunk at least 1, got {sweeps} and {chunk}")
    if not bool(networks.isfinite().all() and reference.isfinite().all()):
        raise ValueError("align_neurons: networks and reference must be finite")
    target = reference.detach().to(networks).unsqueeze(0)
    return torch.cat([_align(field, part.detach().clone(), target, signs, sweeps) for part in networks.split(chunk)] or [networks])


def _align(field: NeuralField, networks: Tensor, reference: Tensor, signs: bool, sweeps: int) -> Tensor:
    forward = networks.clone()
    for sweep in range(sweeps):
        if sweep == 0:
            _sweep(field, forward, reference, signs, both_sides=False)
        if not _sweep(field, networks, reference, signs):
            break
    closer = (forward - reference).square().sum(1) < (networks - reference).square().sum(1)
    return torch.where(closer.unsqueeze(1), forward, networks)


def _sweep(field: NeuralField, networks: Tensor, reference: Tensor, signs: bool, both_sides: bool = True) -> bool:
    """Matches one hidden layer after the other, in place; whether anything changed."""
    linear_sum_assignment = needed("align_neurons", "scipy.optimize", "demo").linear_sum_assignment

    (weights, biases), (target_weights, target_biases) = field.views(networks), field.views(reference)
    changed = False
    for layer in range(field.spec.depth - 1):
        below, above = weights[layer], weights[layer + 1]
        overlap = target_weights[layer] @ below.mT + target_biases[layer].unsqueeze(2) * biases[layer].unsqueeze(1)
        if both_sides:
            overlap = overlap + target_weights[layer + 1].mT @ above
        costs = (overlap.abs() if signs else overlap).cpu().double().numpy()
        order = torch.stack([torch.from_numpy(linear_sum_assignment(cost, maximize=True)[1]) for cost in costs]).to(networks.device)
        if signs:
            flips = 1 - 2 * (overlap.gather(2, order.unsqueeze(2)).squeeze(2) < 0).to(networks.dtype)
            changed = changed or bool((flips < 0).any())
        changed = changed or not torch.equal(order, torch.arange(order.shape[1], device=order.device).expand_as(order))
        # The views are written in place, so that the next layer sees the new order.
        below.copy_(below.gather(1, order.unsqueeze(2).expand_as(below)))
        biases[layer].copy_(biases[layer].gather(1, order))
        above.copy_(above.gather(2, order.unsqueeze(1).expand_as(above)))
        if signs:
            ones = [torch.ones_like(bias) for bias in biases[:-1]]
            ones[layer] = flips
            networks.copy_(scale_neurons(field, networks, ones))
    return changed
