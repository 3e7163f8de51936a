"""Repeated calls: that they take the shortest way, and that they are the same calls whatever has changed in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isotypic as iso
from isotypic import _repeat
from isotypic._repeat import note, repeated, step
from isotypic.ops import _launch

_C = pytest.importorskip("isotypic._C")


def act(p: Tensor, g: Tensor) -> Tensor:
    result = p.new_empty(p.shape)
    _launch.launch("toy", "form_action", p.contiguous(), g.contiguous(), result, like=p)
    return result


@pytest.fixture
def counted() -> tuple[Callable[..., Tensor], list[tuple[Any, ...]]]:
    """A repeated function of one launch, and the long calls of it."""
    calls: list[tuple[Any, ...]] = []

    def function(p: Tensor, g: Tensor, *settings: Any, **named: Any) -> Tensor:
        calls.append((p, g, *settings, *named.items()))
        return act(p, g)

    return repeated(function), calls


def tensors(batch: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 5, dtype=dtype), torch.randn(batch, 2, 2, dtype=dtype)


def test_the_second_call_is_the_launch_alone(counted) -> None:
    function, calls = counted
    for _ in range(3):
        p, g = tensors()
        assert torch.equal(function(p, g), act(p, g))
    assert len(calls) == 1 and len(function.known) == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda f: f(*tensors(4)),
        lambda f: f(*tensors(dtype=torch.float64)),
        lambda f: f(*tensors(), 1),
        lambda f: f(*tensors(), True),
        lambda f: f(*tensors(), 1.0),
        lambda f: f(*tensors(), "one"),
        lambda f: f(*tensors(), (1,)),
        lambda f: f(*tensors(), (True,)),
        lambda f: f(*tensors(), ((1, 2), 3)),
        lambda f: f(*tensors(), (1, (2, 3))),
        lambda f: f(*tensors(), None),
        lambda f: f(*tensors(), s=1),
        lambda f: f(*tensors(), t=1),
        lambda f: f(*tensors(), 2**70),
    ],
)
def test_another_call_goes_the_whole_way(counted, other: Callable[..., Any]) -> None:
    function, calls = counted
    known = [(), (2,), (0,), ("two",), ((2,),), (((1, 2), 4),)]
    for settings in known:
        function(*tensors(), *settings)
    before = len(calls)
    other(function)
    assert len(calls) == before + 1


def test_strings_are_compared_by_value(counted) -> None:
    function, calls = counted
    function(*tensors(), "".join(["re", "gular"]))
    function(*tensors(), "".join(["regu", "lar"]))
    assert len(calls) == 1


def test_objects_are_not_learnt(counted) -> None:
    function, calls = counted
    setting = object()
    function(*tensors(), setting)
    function(*tensors(), setting)
    assert len(calls) == 2 and len(function.known) == 0


def test_what_the_kernel_refuses_goes_the_whole_way(counted) -> None:
    function, calls = counted
    p, g = tensors()
    function(p, g)
    turned = torch.randn(5, 3).t()
    assert torch.equal(function(turned, g), act(turned, g)) and len(calls) == 2
    with pytest.raises(ValueError, match="form_action kernel: g must have the dtype of the others"):
        function(p, g.double())
    assert torch.equal(function(p, g), act(p, g)) and len(calls) == 3


@pytest.mark.parametrize("mode", ["func", "vmap", "autocast", "forward", "functional", "subclass", "negative", "meta", "dispatch"])
def test_in_a_mode_the_call_goes_the_whole_way(counted, mode: str) -> None:
    function, calls = counted
    p, g = tensors()
    function(p, g)
    if mode == "func":
        torch.func.grad(lambda p: iso.ops.form_action(p, g).sum())(p)
        seen = iso.ops.form_action(p, g)
        torch.testing.assert_close(torch.func.jvp(lambda p: iso.ops.form_action(p, g), (p,), (p,))[1], seen)
    elif mode == "vmap":
        iso.ops.form_action(p, g)
        assert torch.func.vmap(iso.ops.form_action, (None, 0))(p, g[None]).shape == (1, 3, 5)
    elif mode == "autocast":
        iso.ops.form_action(p, g)
        with torch.autocast("cpu", torch.bfloat16):
            assert iso.ops.form_action(p, g).dtype == torch.bfloat16
    elif mode == "forward":
        iso.ops.form_action(p, g)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(p, p)
            assert torch.autograd.forward_ad.unpack_dual(iso.ops.form_action(dual, g)).tangent is not None
    elif mode == "functional":
        from torch.fx.experimental.proxy_tensor import make_fx

        iso.ops.form_action(p, g)
        assert "form_action" in make_fx(iso.ops.form_action)(p, g).code
    elif mode == "subclass":

        class Sub(Tensor):
            pass

        iso.ops.form_action(p, g)
        assert iso.ops.form_action(p.as_subclass(Sub), g).shape == p.shape
        function(p.as_subclass(Sub), g)
        assert len(calls) == 2
    elif mode == "negative":
        negative = torch.randn(3, 5, dtype=torch.complex64).conj().imag
        assert negative.is_neg()
        torch.testing.assert_close(iso.ops.form_action(negative, g), iso.ops.form_action(negative.resolve_neg(), g))
    elif mode == "meta":
        iso.ops.form_action(p, g)
        assert iso.ops.form_action(p.to("meta"), g.to("meta")).is_meta
    else:
        from torch.utils._python_dispatch import TorchDispatchMode

        class Names(TorchDispatchMode):
            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                seen.append(str(function))
                return function(*args, **(kwargs or {}))

        names: list[str] = []
        seen = names
        iso.ops.form_action(p, g)
        with Names():
            iso.ops.form_action(p, g)
        assert any("form_action" in name for name in names)


def test_several_launches_are_learnt() -> None:
    def function(p: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor | None, ...]:
        moved = act(p, g)
        return act(moved, h), None, moved, step(torch.sum, moved, (0,))

    short = repeated(function)
    for _ in range(3):
        (p, g), h = tensors(), torch.randn(3, 2, 2)
        for found, expected in zip(short(p, g, h), function(p, g, h), strict=True):
            assert (found is None) == (expected is None) and (found is None or torch.equal(found, expected))
    assert short(p, g, h)[0].data_ptr() != short(p, g, h)[0].data_ptr() and len(short.known) == 1

    for _ in range(2):  # what is refused in the middle goes the whole way from its beginning
        (p, g), h = tensors(), torch.randn(2, 2, 3).permute(2, 0, 1)
        assert torch.equal(short(p, g, h)[0], act(act(p, g), h.contiguous()))


def test_steps_inside_another_call_are_seen_by_both() -> None:
    calls = []

    def count(p: Tensor, g: Tensor) -> Tensor:
        calls.append(p)
        return act(act(p, g), g)

    inner = repeated(count)
    outer = repeated(lambda p, g: act(inner(p, g), g))
    p, g = tensors()
    inner(p, g)
    for _ in range(3):
        assert torch.equal(outer(p, g), act(act(act(p, g), g), g))
    assert len(calls) == 1 and len(outer.known) == 1


def test_a_kernel_that_is_told_what_tensors_hold_is_not_repeated() -> None:
    """What a step is given besides tensors is kept, so that a tensor which no step takes may have been read."""

    @repeated
    def scaled(p: Tensor, scale: Tensor) -> Tensor:
        return step(torch.mul, p, scale.item())

    @repeated
    def of_two(p: Tensor, q: Tensor) -> Tensor:
        return step(torch.cat, (p, q))

    for value in (2.0, 3.0, 5.0):
        p, q = torch.randn(2, 3), torch.randn(2, 3)
        assert torch.equal(scaled(p, torch.tensor(value)), p * value) and torch.equal(of_two(p, q), torch.cat((p, q)))


def test_what_is_made_elsewhere_is_not_learnt() -> None:
    @repeated
    def changed(p: Tensor, g: Tensor) -> Tensor:
        return act(p, g) + 1

    @repeated
    def converted(p: Tensor, g: Tensor) -> Tensor:
        return act(p * 2, g)

    @repeated
    def forgetful(p: Tensor, g: Tensor, unused: Tensor) -> Tensor:
        return act(p, g)

    p, g = tensors()
    for _ in range(3):
        p, g = tensors()
        assert torch.equal(changed(p, g), act(p, g) + 1)
        assert torch.equal(converted(p, g), act(p * 2, g)) and torch.equal(forgetful(p, g, p.clone()), act(p, g))


def test_one_tensor_in_two_places_teaches_nothing() -> None:
    @repeated
    def second(p: Tensor, q: Tensor, g: Tensor) -> Tensor:
        return act(q, g)

    p, g = tensors()
    second(p, p, g)
    q = torch.randn_like(p)
    assert torch.equal(second(p, q, g), act(q, g))


def test_a_call_inside_another_is_seen_by_both() -> None:
    inner = repeated(act)
    outer = repeated(lambda p, g: inner(p, g))
    p, g = tensors()
    inner(p, g)
    for _ in range(3):  # the first of them learns from the short call of the inner one
        assert torch.equal(outer(p, g), act(p, g))
    assert len(outer.known) == 1


def test_the_limit_and_forgetting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_repeat, "LIMIT", 4)
    function = repeated(act)
    for batch in range(1, 11):
        function(*tensors(batch))
    assert 1 <= len(function.known) <= 4
    _repeat.forget()
    assert len(function.known) == 0


def test_a_call_learnt_twice_refers_to_what_it_keeps() -> None:
    """Two threads may both find a call unknown, and learn it one after the other."""
    known = repeated(act).known  # type: ignore[attr-defined]
    p, g = tensors()

    def setting(text: str = "a setting of the call") -> str:
        return "".join(list(text))  # a new string each time, which nobody else keeps

    for _ in range(2):
        assert known.learn((p, g, setting()), {}, steps=[], constants=[], results=[], several=False)
    others = [setting(f"another text, {i:07d}") for i in range(1000)]  # where freed strings were
    assert known.run((p, g, setting()), {}) is NotImplemented and len(known) == 1, others[0]


def test_another_instruction_set_is_taken() -> None:
    """The kernel of a repeated call is chosen when it runs."""
    layer = iso.nn.GroupConv2d(2, 2, 3, "p4").eval()
    x = torch.randn(1, 2, 4, 6, 6)
    chosen = _C.cpu_isa()
    try:
        with torch.no_grad():
            found = []
            for name in _C.cpu_isas():
                _C.set_cpu_isa(name)
                found += [layer(x), layer(x), layer(x)]
        for y in found:
            torch.testing.assert_close(y, found[0])
    finally:
        _C.set_cpu_isa(chosen)


def test_gradients_of_repeated_calls() -> None:
    layer, x = iso.nn.GroupConv2d(2, 3, 3, "p4").double(), torch.randn(2, 2, 4, 5, 5, dtype=torch.float64)
    found = []
    for _ in range(3):
        layer.zero_grad()
        layer(x).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in layer.parameters()])
    for gradients in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0], strict=True))
    with torch.no_grad():
        assert not layer(x).requires_grad
    assert layer(x).requires_grad and not layer.requires_grad_(False)(x).requires_grad


@pytest.mark.parametrize("wanted", ["x", "weight", "bias", "x weight", "x weight bias", "weight bias"])
@pytest.mark.parametrize("layout", ["plain", "strided"])
def test_repeated_gradients_of_what_wants_one(wanted: str, layout: str) -> None:
    """The repeated backward of a call depends on which gradients are wanted, of any order."""
    names = ("x", "weight", "bias")

    def gradients(repeat: bool) -> list[Tensor]:
        torch.manual_seed(1)
        found: list[Tensor] = []
        for choice in (wanted, "x weight bias", wanted, "weight", wanted):
            tensors = [torch.randn(2, 2, 4, 5, 5), torch.randn(3, 2, 4, 3, 3), torch.randn(3)]
            tensors = [t.double().requires_grad_(name in choice.split()) for t, name in zip(tensors, names, strict=True)]
            if not repeat:
                _repeat.forget()
            y = iso.ops.group_conv(*tensors, group="p4")
            cotangent = torch.randn(y.shape, dtype=torch.float64)
            if layout == "strided":
                cotangent = torch.randn(*y.shape[::-1], dtype=torch.float64).permute(4, 3, 2, 1, 0)
            leaves = [t for t in tensors if t.requires_grad]
            first = torch.autograd.grad(y, leaves, cotangent, create_graph=True)
            found += first
            total = sum(g.square().sum() for g in first)
            if total.requires_grad:
                found += [g for g in torch.autograd.grad(total, leaves, allow_unused=True) if g is not None]
        return found

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other)


def test_a_repeated_backward_goes_the_whole_way_in_a_mode() -> None:
    layer, x = iso.nn.GroupConv2d(2, 3, 3, "p4"), torch.randn(1, 2, 4, 5, 5)
    y = layer(x)
    for _ in range(3):
        (alone,) = torch.autograd.grad(y, layer.weight, torch.ones_like(y), retain_graph=True)
    (batched,) = torch.autograd.grad(y, layer.weight, torch.stack([torch.ones_like(y)] * 2), is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack([alone] * 2))


@pytest.mark.parametrize("change", ["data", "in place", "load", "dtype", "train", "parameter"])
def test_what_is_kept_in_eval_follows_the_layer(change: str) -> None:
    layer, other = iso.nn.GroupConv2d(2, 3, 3, "p4").eval(), iso.nn.GroupConv2d(2, 3, 3, "p4").eval()
    x = torch.randn(1, 2, 4, 5, 5)
    with torch.no_grad():
        for _ in range(3):
            layer(x)
        if change == "data":
            layer.weight.data = other.weight.data.clone()
        elif change == "in place":
            layer.weight.copy_(other.weight)
        elif change == "load":
            layer.load_state_dict(other.state_dict())
        elif change == "parameter":
            layer.weight = nn.Parameter(other.weight.clone())
        elif change == "dtype":
            layer, other, x = layer.double(), copy_of(layer).double(), x.double()
        else:
            layer.train()
            assert layer._blocks is None
            layer.eval()
            other = copy_of(layer)
        if change in ("data", "in place", "load", "parameter"):
            other.bias.copy_(layer.bias)
        for _ in range(3):
            assert torch.equal(layer(x), iso.ops.group_conv(x, other.weight, layer.bias, group="p4"))


def copy_of(layer: iso.nn.GroupConv2d) -> iso.nn.GroupConv2d:
    made = iso.nn.GroupConv2d(2, 3, 3, "p4")
    made.load_state_dict(layer.state_dict())
    return made.eval()


def test_threads_learn_side_by_side() -> None:
    function = repeated(act)
    wrong: list[int] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for i in range(200):
            batch = 1 + (i + seed) % 7
            p, g = torch.randn(batch, 5, generator=generator), torch.randn(batch, 2, 2, generator=generator)
            if not torch.equal(function(p, g), act(p, g)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    note(act, ())  # nobody watches: nothing happens
