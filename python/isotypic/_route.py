"""Which way a call goes: straight to its kernel, with autograd's record, or through torch's registered operator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

REGISTERED, RECORDED, DIRECT = range(3)
_Parameter, _is_grad_enabled = torch.nn.Parameter, torch.is_grad_enabled

try:
    from torch._C import (
        _are_functorch_transforms_active,
        _is_any_autocast_enabled,
        _is_tracing,
        _len_torch_dispatch_stack,
        _len_torch_function_stack,
    )

    forward_ad._current_level  # noqa: B018
except (ImportError, AttributeError):

    def route(*tensors: Tensor | None) -> int:
        """Without the names above nothing is known to be plain."""
        return REGISTERED

else:

    def route(*tensors: Tensor | None) -> int:
        """DIRECT when no mode is active and all tensors are ordinary ones, so that a kernel may read their memory; RECORDED when autograd
        must record such a call; REGISTERED otherwise."""
        if torch.compiler.is_dynamo_compiling():  # before the names below, which it cannot trace
            return REGISTERED
        if (
            _are_functorch_transforms_active()
            or _len_torch_dispatch_stack()
            or _len_torch_function_stack()
            or _is_any_autocast_enabled()
            or _is_tracing()
            or forward_ad._current_level >= 0
        ):
            return REGISTERED
        grad_enabled, result = _is_grad_enabled(), DIRECT
        for tensor in tensors:
            if tensor is not None:
                kind = type(tensor)
                if (kind is not Tensor and kind is not _Parameter) or tensor.is_neg():
                    return REGISTERED
                if grad_enabled and tensor.requires_grad:
                    result = RECORDED
        return result


def plain(*tensors: Tensor | None) -> bool:
    """Whether no mode is active and all tensors are ordinary ones, so that their memory may be read."""
    return route(*tensors) != REGISTERED


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd would record a call with these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
