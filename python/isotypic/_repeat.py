"""A repeated call, by the shortest way.

Most of a short call is spent on what does not change: checks in words, normalised settings, shapes, plans, the way to the kernel. So the
first call of a :func:`repeated` function goes the whole way and is watched. Where it comes down to one launch of one kernel, with the
tensors that came in and a result that goes out as it is, the next call with the same shapes, dtypes and settings is that launch and
nothing else (``csrc/bind/repeat.cpp``); where a gradient is wanted, it is one ``autograd.Function``. The binding checks whatever the key
leaves open, such as strides. What it refuses goes the whole way again, to be refused in words or to be copied first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from isotypic._extension import _C
from isotypic._route import REGISTERED, route

LIMIT = 4096
"""Of the calls that are known of one function, with a gradient and without; then it forgets them."""

_is_dynamo_compiling = torch.compiler.is_dynamo_compiling
_Step = tuple[Callable[..., Any], tuple[Any, ...], Any]
F = TypeVar("F", bound=Callable[..., Any])


class _Watch(threading.local):
    steps: list[_Step] | None = None
    """What the call that is being watched in this thread has run so far."""


_watch = _Watch()
_watching, _lock = 0, threading.Lock()


def note(run: Callable[..., Any], arguments: tuple[Any, ...], result: Any = None) -> None:
    """Tells whoever watches what has been run: a kernel, whose result is among its arguments, or a Function with its result."""
    if _watch.steps is not None:
        _watch.steps.append((run, arguments, result))


def as_one_step(run: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The result of a Function. What it runs itself is not noted."""
    if _watch.steps is None:
        return run(*arguments)
    steps, _watch.steps = _watch.steps, None
    try:
        result = run(*arguments)
    finally:
        _watch.steps = steps
    note(run, arguments, result)
    return result


def forget() -> None:
    """Every function forgets its calls."""
    if _C is not None:
        _C.forget_calls()


def _watched(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[_Step]]:
    """The result of a call, and its steps."""
    global _watching
    outer, _watch.steps = _watch.steps, []
    with _lock:
        _watching += 1
        _C.watch_calls(note)
    try:
        result, steps = function(*args, **kwargs), _watch.steps
    finally:
        _watch.steps = outer
        with _lock:
            _watching -= 1
            if not _watching:
                _C.watch_calls(None)
    if outer is not None:
        outer += steps
    return result, steps


def _like(result: Tensor) -> Tensor:
    """What ``torch.empty_like`` makes another result of, without the memory of one."""
    if result.is_contiguous():
        return result.new_empty(()).expand(result.shape)
    return torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device="meta")


def _one_step(values: tuple[Any, ...], result: Any, steps: list[_Step], handle: type | None) -> dict[str, Any] | None:
    """The call as one step, as ``Repeat.learn`` takes it."""
    if len(steps) != 1 or type(result) is not Tensor or not result.is_cpu or not result.numel():
        return None
    run, arguments, made = steps[0]
    places = {id(value): i for i, value in enumerate(values) if isinstance(value, Tensor)}
    used = [id(argument) for argument in arguments if isinstance(argument, Tensor) and argument is not result]
    whole = made is result or (made is None and any(argument is result for argument in arguments))
    given = sum(isinstance(value, Tensor) for value in values)
    if not whole or set(used) != set(places) or not len(used) == len(places) == given:
        return None
    pick: list[int] = []
    constants: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            pick.append(-1 if argument is result else places[id(argument)])
        else:
            pick.append(len(values) + len(constants))
            constants.append(argument)
    if made is None:
        pick += [i for i, value in enumerate(values) if handle is not None and type(value) is handle]
    like = None if made is not None else _like(result.detach())
    if like is not None and like.is_meta and torch.empty_like(like).stride() != result.stride():  # not dense
        return None
    return {"run": run, "pick": pick, "constants": constants, "result_like": like}


def repeated(function: F, handle: type | None = None) -> F:
    """Decorates a function of tensors and of settings: None, bool, int, float, str, tuples and lists of these.

    It must depend on nothing but its arguments, on the values of tensors through kernels alone, and must not change a result that a kernel
    has given it. Without the extension it stays as it is.

    handle: a class of the extension. One of its objects among the arguments is what a layer keeps for its kernel, which takes it after the
        result; it is not part of what makes two calls the same.
    """
    if _C is None:
        return function
    repeat = _C.Repeat(handle, LIMIT)
    run = repeat.run
    nothing: dict[str, Any] = {"run": None, "pick": [], "constants": [], "result_like": None}

    @wraps(function)
    def short(*args: Any, **kwargs: Any) -> Any:
        if _is_dynamo_compiling():
            return function(*args, **kwargs)
        result = run(args, kwargs)
        if result is NotImplemented:  # known to be more than one step, or none that a kernel takes at once
            return function(*args, **kwargs)
        if result is not None:
            return result
        values = (*args, *kwargs.values())
        if route(*(value for value in values if isinstance(value, Tensor))) == REGISTERED:
            return function(*args, **kwargs)
        result, steps = _watched(function, args, kwargs)
        repeat.learn(args, kwargs, **(_one_step(values, result, steps, handle) or nothing))
        return result

    short.known = repeat  # type: ignore[attr-defined]
    short.run = run  # type: ignore[attr-defined]
    return short  # type: ignore[return-value]
