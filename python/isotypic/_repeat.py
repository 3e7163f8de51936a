"""A repeated call, by the shortest way.

Most of a short call is spent on what does not change: checks in words, normalised settings, shapes, plans, the way to the kernel. So the
first call of a :func:`repeated` function goes the whole way and is watched. Where it comes down to launches of kernels, with the tensors
that came in and results that go out as they are, the next call with the same shapes, dtypes and settings is these launches and nothing else
(``csrc/bind/repeat.cpp``); where a gradient is wanted, it is one ``autograd.Function``. The binding checks whatever the key leaves open,
such as strides. What it refuses goes the whole way again, to be refused in words or to be copied first.
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
_Learnt = dict[str, Any]
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


def step(run: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """``run(*arguments)`` of tensors and constants, a new tensor: a step of a repeated call that is no kernel of the extension."""
    result = run(*arguments)
    note(run, arguments, result)
    return result


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


def _like(result: Tensor) -> Tensor | None:
    """What ``torch.empty_like`` makes another result of, without the memory of one; None for what is not dense."""
    if result.is_contiguous():
        return result.new_empty(()).expand(result.shape)
    like = torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device="meta")
    return like if torch.empty_like(like).stride() == result.stride() else None


def constant(table: Tensor) -> Tensor:
    """The same tensor, which no call changes: a step of a repeated call may keep it."""
    table._isotypic_constant = True  # type: ignore[attr-defined]
    return table


def _holds_tensors(argument: Any) -> bool:
    return isinstance(argument, Tensor) or (isinstance(argument, tuple | list) and any(map(_holds_tensors, argument)))


class _Places:
    """Where the arguments of steps come from: the values of the call, constants behind them, and what earlier steps have made."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values, self.constants, self.made, self.used = values, list[Any](), 0, set[int]()
        self.of = {id(value): place for place, value in enumerate(values) if isinstance(value, Tensor)}

    def make(self, tensor: Tensor) -> None:
        self.made += 1
        self.of[id(tensor)] = -self.made

    def constant(self, value: Any) -> int:
        self.constants.append(value)
        return len(self.values) + len(self.constants) - 1

    def __call__(self, argument: Any) -> int | None:
        """None for what comes from elsewhere."""
        if isinstance(argument, Tensor) and not hasattr(argument, "_isotypic_constant"):
            self.used.add(id(argument))
            return self.of.get(id(argument))
        return None if _holds_tensors(argument) and not isinstance(argument, Tensor) else self.constant(argument)


def _steps(values: tuple[Any, ...], result: Any, steps: list[_Step], handle: type | None, every: bool) -> _Learnt | None:
    """The call as ``Repeat.learn`` takes it; None where it is more than its steps.

    every: whether a tensor that no step takes makes it more: its values may have been read.
    """
    several = isinstance(result, tuple)
    results = result if several else (result,)
    given = {id(value) for value in values if isinstance(value, Tensor)}
    places = _Places(values)
    if len(given) != sum(isinstance(value, Tensor) for value in values):  # which of two places a step takes is not known
        return None
    found = []
    for run, arguments, returned in steps:
        fresh: list[Tensor] = []
        if returned is None:
            new = {id(a): a for a in arguments if isinstance(a, Tensor) and id(a) not in places.of and not hasattr(a, "_isotypic_constant")}
            if len(new) != 1:  # a kernel writes one result; another unknown tensor is made of what came in
                return None
            (made,) = new.values()
            if (like := _like(made.detach())) is None:
                return None
            fresh.append(like)
            places.make(made)
        pick = [places(argument) for argument in arguments]
        if returned is None:
            pick += [i for i, value in enumerate(values) if handle is not None and type(value) is handle]
        else:
            places.make(returned)
        if None in pick:
            return None
        found.append((run, pick, fresh, returned is not None))
    outputs = [None if each is None else places.of.get(id(each), len(values)) for each in results]
    made_here = all(place is None or place < 0 for place in outputs)
    if not found or not made_here or not all(each is None or (type(each) is Tensor and each.is_cpu and each.numel()) for each in results):
        return None
    if every and not given <= places.used:
        return None
    return {"steps": found, "constants": places.constants, "results": outputs, "several": several}


def repeated(function: F, handle: type | None = None, every: bool = True) -> F:
    """Decorates a function of tensors and of settings: None, bool, int, float, str, tuples and lists of these.

    It must depend on nothing but its arguments, on the values of tensors through kernels alone, and must not change a result that a kernel
    has given it. Without the extension it stays as it is.

    handle: a class of the extension. One of its objects among the arguments is what a layer keeps for its kernel, which takes it after the
        result; it is not part of what makes two calls the same.
    every: a call of which a kernel does not take every tensor is not shortened.
    """
    if _C is None:
        return function
    repeat = _C.Repeat(handle, LIMIT)
    run = repeat.run
    nothing: _Learnt = {"steps": [], "constants": [], "results": [], "several": False}

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
        repeat.learn(args, kwargs, **(_steps(values, result, steps, handle, every) or nothing))
        return result

    short.known = repeat  # type: ignore[attr-defined]
    short.run = run  # type: ignore[attr-defined]
    return short  # type: ignore[return-value]
