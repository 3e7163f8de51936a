"""Registering an operator with torch, once, so that every way of calling it works.

The one file that knows ``torch.library``, ``autograd.Function`` and functorch. A call takes one of two routes (``_route.py``):

- plain tensors in eager mode go straight to the kernel, through an ``autograd.Function`` when one of them needs a gradient;
- everything else (``torch.compile``, export, ``make_fx``, FakeTensor, subclasses, autocast, ``torch.func``, forward mode, tracing) goes to
  the registered operator ``torch.ops.isotypic.<name>``, whose kernels for the Autograd, Autocast, vmap and fake dispatch keys are defined
  below.

The registered operator differentiates itself at its own Autograd key instead of through ``torch.library.register_autograd``, which fails
under ``torch.func.grad`` and gives zero tangents in forward mode. Inside a functorch transform the Autograd key is reached once a level, as
it is for the operators of torch itself, so that any nesting of transforms works, also inside a compiled function.

Backward formulas are calls of registered operators, so derivatives of any order exist on both routes. Private names of torch occur in this
file, ``_route.py`` and ``csrc/bind/repeat.cpp``; where torch no longer has one that the direct route needs, every call takes the
registered route.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils import _pytree

from isotypic._repeat import as_one_step, repeated
from isotypic._route import DIRECT, RECORDED, REGISTERED, needs_gradient, plain, route

__all__ = [
    "DIRECT",
    "RECORDED",
    "REGISTERED",
    "Gradients",
    "define",
    "has_memory",
    "needs_gradient",
    "plain",
    "product_rule",
    "register_container",
    "route",
    "substituted",
]

Gradients = Sequence[Tensor | None]
Outputs = Tensor | tuple[Tensor, ...]

_is_dynamo_compiling = torch.compiler.is_dynamo_compiling
_LIBRARY = torch.library.Library("isotypic", "FRAGMENT")

try:
    # Under a functorch transform only a Function of a single level may run at the Autograd key; the base class is one.
    from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
    from torch.autograd.function import _SingleLevelFunction as _Function
except ImportError:
    from torch.autograd import Function as _Function

    enable_single_level_autograd_function = contextlib.nullcontext  # type: ignore[assignment]


try:
    from torch._C._functorch import TransformType, get_interpreter_stack
except ImportError:

    def _refuse_nested_forward_mode(name: str) -> None:
        """Without the names above the levels cannot be counted."""

else:

    def _refuse_nested_forward_mode(name: str) -> None:
        """torch drops the outer tangents of a Function's tangents: forward mode in forward mode would give zeros without a word."""
        if sum(level.key() == TransformType.Jvp for level in get_interpreter_stack() or ()) > 1:
            raise NotImplementedError(
                f"{name}: torch cannot differentiate it by forward mode inside forward mode (jacfwd of jacfwd, jvp of jvp); "
                "torch.func.hessian and jacfwd of jacrev can"
            )


@contextlib.contextmanager
def _below_autograd() -> Iterator[None]:
    """Dispatch below the Autograd key of this level. The levels further out decide themselves whether they record."""
    with torch._C._AutoDispatchBelowAutograd():
        if torch._C._are_functorch_transforms_active():
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                yield
        else:
            yield


def has_memory(tensor: Tensor) -> bool:
    """Not so: a meta tensor, or a batch inside torch.autograd.grad(..., is_grads_batched=True)."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return not tensor.is_meta


def product_rule(operator: Callable[..., Tensor], tangents: Gradients, args: Sequence[Any]) -> Tensor | None:
    """The tangent of an operator that is linear in each of its first ``len(tangents)`` arguments; None when no tangent is given."""
    total: Tensor | None = None
    for i, tangent in enumerate(tangents):
        if tangent is not None:
            term = operator(*args[:i], tangent, *args[i + 1 :])
            total = term if total is None else total + term
    return total


class _Settings(tuple[Any, ...]):
    """The settings of one call, as its autograd.Function takes them. A repeated call has the same object (``_repeat.py``)."""

    launch: Callable[..., Any] | None = None
    """The kernels of the call with no look at anything but the tensors."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.gradients = dict[tuple[bool, ...], Callable[..., Any] | None]()
        """Those of its gradients, by what is wanted and what came in, None where they are more than kernels. They see themselves whether
        the state of torch is an ordinary one."""


def _prepared(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], bool], Callable[..., Any] | None]:
    """``Repeat.prepared`` of a repeated function."""
    known = getattr(function, "known", None)
    return (lambda args, looks: None) if known is None else known.prepared


def _node(
    name: str,
    tensors: int,
    compute: Callable[..., Outputs],
    backward: Callable[..., Gradients],
    jvp: Callable[..., Any],
    unsaved: int,
    forward_only: int,
    saved_outputs: Sequence[int],
    outputs: int,
    registered: bool,
) -> type:
    """The autograd.Function around ``compute``. It takes the tensors, and the settings as one tuple.

    registered: at the Autograd key of the registered operator, with a rule of forward mode. Otherwise a repeated backward is shortened.
    """
    read, unread, dropped = tensors - unsaved, (None,) * unsaved, (None,) * forward_only
    kept = read - forward_only

    def node_forward(ctx: Any, *args: Any) -> Outputs:
        ctx.set_materialize_grads(False)
        *given, settings = args
        output = compute(given, settings)
        saved = given[:kept]
        if saved_outputs:
            results = (output,) if isinstance(output, Tensor) else output
            ctx.save_for_backward(*(results[i] for i in saved_outputs), *saved)
        else:
            ctx.save_for_backward(*saved)
        if registered:
            ctx.save_for_forward(*given[:read])
        ctx.settings = settings
        return output

    def formula(*args: Any) -> tuple[Tensor | None, ...]:
        """A gradient or None for each of what the Function takes, from the incoming ones, what is saved, what is wanted, and settings."""
        grads, given, (needs, *settings) = args[:outputs], args[outputs:tensors_saved], args[tensors_saved:]
        needs = (*needs[:tensors], *[False] * len(settings))
        found = tuple(backward(needs, grads[0] if outputs == 1 else grads, *given, *dropped, *unread, *settings))[:tensors]
        return found + (None,) * (tensors + 1 - len(found))

    tensors_saved = outputs + len(saved_outputs) + kept
    nothing, short = (None,) * (tensors + 1), formula if registered else repeated(formula, every=False)
    prepared = _prepared(short)

    def node_backward(ctx: Any, *grads: Tensor | None) -> Gradients:
        settings, needs = ctx.settings, ctx.needs_input_grad
        if outputs == 1:
            if grads[0] is None:
                return nothing
            key = needs
        else:
            key = (*needs, *[grad is None for grad in grads])
            if all(key[len(needs) :]):
                return nothing
        given = (*grads, *ctx.saved_tensors)
        if registered or _is_dynamo_compiling():
            return formula(*given, needs, *settings)
        launch = settings.gradients.get(key)
        if launch is not None:
            results = launch(*given)
            if results is not NotImplemented:
                return results
        args = (*given, needs, *settings)
        results = short(*args)
        if key not in settings.gradients and not torch.is_grad_enabled():
            settings.gradients[key] = prepared(args, True)
        return results

    def node_jvp(ctx: Any, *tangents: Any) -> Any:
        return jvp(tangents[:tensors], *ctx.saved_tensors, *unread, *ctx.settings)

    members = {"forward": staticmethod(node_forward), "backward": staticmethod(node_backward)}
    if registered:
        members["jvp"] = staticmethod(node_jvp)
    return type(name, (_Function,), members)


_substitutes: ContextVar[dict[str, Callable[..., Any]] | None] = ContextVar("substitutes", default=None)
"""Of the thread that traces alone: networks that other threads run meanwhile keep their kernels."""


@contextlib.contextmanager
def substituted(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Operators replaced by functions of torch with the same arguments, by name: for a trace that must not hold operators of ours.

    An operator without a function raises a TypeError that names it.
    """
    names = (name.removeprefix("isotypic::").partition(".")[0] for name in torch._C._dispatch_get_all_op_names())
    token = _substitutes.set({name: functions.get(name, _refuses(name)) for name in names})
    try:
        yield
    finally:
        _substitutes.reset(token)


def _refuses(name: str) -> Callable[..., Any]:
    def refuse(*args: Any) -> Any:
        raise TypeError(f"no counterpart in plain torch is known for the operator {name}")

    return refuse


def define(
    schema: str,
    *,
    launch: Callable[..., Outputs],
    fake: Callable[..., Outputs],
    backward: Callable[..., Gradients],
    vmap: Callable[..., tuple[Any, Any]],
    jvp: Callable[..., Any] | None = None,
    unsaved: int = 0,
    forward_only: int = 0,
    saved_outputs: Sequence[int] = (),
    sixteen_bit: bool = True,
    wide: Sequence[int] = (),
) -> Callable[..., Any]:
    """Register ``isotypic::<schema>`` and return the function that routes its calls.

    Args:
        schema: name, arguments and return type as in ``torch.library.define``. The tensors come first, then the settings: numbers and
            strings only, so that graphs can be stored. The outputs are new tensors.
        launch: the eager kernel, called with all arguments; the tensors hold memory and need not be contiguous.
        fake: a tensor of the output's shape and dtype, with sizes that may be symbolic.
        backward: ``backward(needs, grad, *arguments)``, the gradients of the tensors (None where ``needs`` is false), in calls of routed
            operators and differentiable torch functions. With several outputs ``grad`` is a tuple, with None for what has no gradient.
        vmap: ``vmap(info, in_dims, *arguments)`` as in ``torch.library.register_vmap``, in calls of routed operators.
        jvp: ``jvp(tangents, *arguments)`` with a tangent or None for each tensor; by default the operator is taken to be linear in each
            tensor, and to have one output.
        unsaved: how many of the last tensors no derivative needs the values of (a bias). They are not saved, and ``backward`` and ``jvp``
            find None in their places.
        forward_only: how many of the last tensors before these ``jvp`` alone needs the values of. They are not kept for the gradient, and
            ``backward`` finds None in their places.
        saved_outputs: the outputs that the backward formula needs too. It gets them before the arguments, ``backward(needs, grad,
            *outputs, *arguments)``, and they are differentiable there.
        sixteen_bit: whether autocast lowers the tensors to its dtype; otherwise it raises 16-bit tensors to float32.
        wide: places of the tensors that autocast leaves as they are.
    """
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema[: schema.index("(")]
    operator = getattr(torch.ops.isotypic, name).default
    tensors = sum("Tensor" in str(argument.type) for argument in operator._schema.arguments)
    outputs = len(operator._schema.returns)
    if jvp is None:

        def jvp(tangents: Gradients, *args: Any) -> Tensor | None:
            return product_rule(routed, tangents, args)

    def eager(*args: Any) -> Outputs:
        try:
            return launch(*args)
        except RuntimeError:
            if all(has_memory(a) for a in args if isinstance(a, Tensor)):
                raise
        return operator(*args)

    def redispatch(given: Sequence[Any], settings: Sequence[Any]) -> Outputs:
        with _below_autograd():
            return operator(*given, *settings)

    registered_node = _node(name, tensors, redispatch, backward, jvp, unsaved, forward_only, saved_outputs, outputs, True)
    eager = repeated(eager)
    known, no_names = getattr(eager, "run", lambda args, names: None), dict[str, Any]()
    prepared = _prepared(eager)

    def recorded(given: Sequence[Any], settings: _Settings) -> Outputs:
        if settings.launch is not None:
            result = settings.launch(*given)
            if result is not NotImplemented:
                return result
        args = (*given, *settings)
        result = eager(*args)
        settings.launch = prepared(args, False)
        return result

    eager_node = _node(name, tensors, recorded, backward, jvp, unsaved, forward_only, saved_outputs, outputs, False)

    def autograd_kernel(*args: Any) -> Outputs:
        if torch._C._are_functorch_transforms_active():
            _refuse_nested_forward_mode(name)
            with enable_single_level_autograd_function():
                return registered_node.apply(*args[:tensors], args[tensors:])  # type: ignore[attr-defined]
        return registered_node.apply(*args[:tensors], args[tensors:])  # type: ignore[attr-defined]

    def autocast_kernel(device: str) -> Callable[..., Outputs]:
        def kernel(*args: Any) -> Outputs:
            dtype = torch.get_autocast_dtype(device) if sixteen_bit else torch.float32
            cast = [
                a.to(dtype) if isinstance(a, Tensor) and i not in wide and a.is_floating_point() and a.dtype != torch.float64 else a
                for i, a in enumerate(args)
            ]
            with torch.autocast(device, enabled=False):
                return operator(*cast)

        return kernel

    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, launch, device)
        _LIBRARY.impl(name, autocast_kernel(device.lower()), "Autocast" + device)
    _LIBRARY.impl(name, autograd_kernel, "Autograd")
    torch.library.register_fake(f"isotypic::{name}", fake, lib=_LIBRARY)
    torch.library.register_vmap(f"isotypic::{name}", vmap, lib=_LIBRARY)

    apply = eager_node.apply  # type: ignore[attr-defined]

    def routed(*args: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # it cannot trace what comes next
            return operator(*args)
        substitutes = _substitutes.get()
        if substitutes is not None:
            return substitutes[name](*args)
        result = known(args, no_names)  # in backward formulas, whose calls are direct
        if result is not None and result is not NotImplemented:
            return result
        taken = route(*args[:tensors])
        if taken == REGISTERED:
            return operator(*args)
        return eager(*args) if taken == DIRECT else as_one_step(apply, (*args[:tensors], _Settings(args[tensors:])))

    routed.__name__ = name
    return routed


def register_container(
    kind: type[Any],
    names: Sequence[str],
    flatten: Callable[[Any], tuple[list[Tensor], Any]],
    unflatten: Callable[[Sequence[Any], Any], Any],
    dump: Callable[[Any], Any],
    load: Callable[[Any], Any],
) -> None:
    """Let torch look into a class that holds tensors: in ``torch.func`` transforms, export and whatever else maps over the tensors.

    Args:
        names: of the attributes that hold the tensors, in the order of `flatten`, of which the last ones may be missing.
        flatten: the tensors, and what else makes the object, which has to be comparable.
        unflatten: from both, the object again, without checks; the places of the tensors may hold anything.
        dump, load: what else makes the object, as JSON holds it, for exported programs in files.
    """

    def flatten_with_keys(value: Any) -> tuple[list[tuple[Any, Tensor]], Any]:
        tensors, context = flatten(value)
        return [(_pytree.GetAttrKey(name), tensor) for name, tensor in zip(names, tensors, strict=False)], context

    _pytree.register_pytree_node(
        kind,
        flatten,
        lambda leaves, context: unflatten(list(leaves), context),
        serialized_type_name=f"{kind.__module__}.{kind.__qualname__}",
        to_dumpable_context=dump,
        from_dumpable_context=load,
        flatten_with_keys_fn=flatten_with_keys,
    )
