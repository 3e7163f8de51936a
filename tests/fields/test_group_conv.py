"""Group convolutions against loops over the definition, for every group and every way of calling them."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from typing import Any

import pytest
import torch
from fields.definition import EVERY_GROUP, TOLERANCE, error, group_convolution
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import isotypic as iso
from isotypic import groups
from isotypic.ops.fields import reference

SPATIAL = [pytest.param(g, id=name.replace(" ", "-")) for name, g in EVERY_GROUP.items() if g.dim <= 3]


def tensors(
    group: groups.Group, regular: bool, size: int, kernel: int, fields: int = 2, out_fields: int = 2, channel_groups: int = 1
) -> tuple[Tensor, Tensor]:
    source = (group.order,) if regular else ()
    x = torch.randn(1, fields, *source, *(size,) * group.dim, dtype=torch.float64)
    return x, torch.randn(out_fields, fields // channel_groups, *source, *(kernel,) * group.dim, dtype=torch.float64)


def convolve(x: Tensor, weight: Tensor, group: groups.Group, regular: bool, **settings: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", iso.EquivarianceWarning)
        return (iso.ops.group_conv if regular else iso.ops.lift_conv)(x, weight, group=group, **settings)


@pytest.mark.parametrize("regular", [False, True], ids=["lift", "regular"])
@pytest.mark.parametrize("group", SPATIAL)
def test_definition_for_every_group(group: groups.Group, regular: bool) -> None:
    large = group.order >= 24
    for kernel in (1, 3) if large else (1, 2, 3, 4, 5) if group.dim < 3 else (1, 2, 3):
        try:
            groups.support(group, kernel)
        except ValueError:  # an even box has no support on the hexagonal lattice
            continue
        x, weight = tensors(group, regular, max(kernel, 3), kernel, 1 if large else 2, 1 if large else 2)
        expected = group_convolution(x.numpy(), weight.numpy(), group)
        assert abs(expected).max() > 0.1
        assert error(convolve(x, weight, group, regular), expected) < TOLERANCE


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": 1},
        {"padding": 3},
        {"stride": 2},
        {"stride": 3, "padding": 2},
        {"dilation": 2, "padding": 2},
        {"stride": 2, "dilation": 3, "padding": 4},
        {"groups": 2, "padding": 1},
        {"groups": 4, "stride": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["pm", "p4", "p3", "C4", "S3 of the cube's diagonal"])
@pytest.mark.parametrize("regular", [False, True], ids=["lift", "regular"])
def test_definition_for_every_setting(name: str, regular: bool, settings: dict[str, int]) -> None:
    group = EVERY_GROUP[name]
    channel_groups = settings.get("groups", 1)
    x, weight = tensors(
        group, regular, 5 if group.dim == 2 else 4, 3 if group.dim == 2 else 2, channel_groups, 2 * channel_groups, channel_groups
    )
    if name == "p3" and settings.get("dilation", 1) == 3:
        x = torch.randn(*x.shape[:-2], 7, 7, dtype=torch.float64)
    expected = group_convolution(x.numpy(), weight.numpy(), group, **settings)
    assert error(convolve(x, weight, group, regular, **settings), expected) < TOLERANCE


def test_axes_that_the_group_keeps_apart_may_differ() -> None:
    x, weight = torch.randn(2, 3, 4, 9, 6, dtype=torch.float64), torch.randn(2, 3, 4, 3, 5, dtype=torch.float64)
    settings = {"stride": (2, 1), "padding": (1, 0), "dilation": (2, 1)}
    y = iso.ops.group_conv(x, weight, group="pmm", strict=True, **settings)
    assert error(y, reference.group_conv(x, weight, group="pmm", **settings)) < TOLERANCE


def test_images_need_not_be_square() -> None:
    x, weight = torch.randn(2, 3, 4, 9, 6, dtype=torch.float64), torch.randn(2, 3, 4, 3, 3, dtype=torch.float64)
    expected = group_convolution(x.numpy(), weight.numpy(), groups.get("p4"), padding=1)
    assert error(iso.ops.group_conv(x, weight, group="p4", padding=1, strict=True), expected) < TOLERANCE


def test_taps_outside_the_support_are_ignored() -> None:
    x, weight = tensors(groups.get("p6"), True, 5, 3)
    changed = weight.clone()
    changed[..., 0, 0] = changed[..., 2, 2] = 100.0
    assert torch.equal(iso.ops.group_conv(x, changed, group="p6"), iso.ops.group_conv(x, weight, group="p6"))
    weight.requires_grad_()
    iso.ops.group_conv(x, weight, group="p6").square().sum().backward()
    assert weight.grad is not None and not weight.grad[..., 0, 0].any() and weight.grad[..., 0, 1].all()


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_and_valid_padding(kernel: int, dilation: int) -> None:
    x, weight = tensors(groups.get("p4"), True, 8, kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ours and torch's, about even kernels
        y = iso.ops.group_conv(x, weight, group="p4", padding="same", dilation=dilation)
        bank = reference.filter_bank(weight, group="p4")
        expected = torch.nn.functional.conv2d(x.flatten(1, 2), bank, padding="same", dilation=dilation).unflatten(1, (2, 4))
    assert y.shape == x.shape and error(y, expected) < TOLERANCE
    valid = iso.ops.group_conv(x, weight, group="p4", padding="valid", dilation=dilation)
    assert torch.equal(valid, iso.ops.group_conv(x, weight, group="p4", padding=0, dilation=dilation))


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"stride": 3, "padding": 2, "dilation": 2, "groups": 2}], ids=str)
@pytest.mark.parametrize("name", ["p4", "p6m", "D4"])
def test_transpose_is_the_adjoint(name: str, settings: dict[str, int]) -> None:
    group = groups.get(name)
    z, weight = tensors(group, True, 13 if name == "p6m" else 7, 3, 2, 4, settings.get("groups", 1))
    y = iso.ops.group_conv(z, weight, group=group, strict=True, **settings)
    x = torch.randn_like(y)
    back = iso.ops.group_conv_transpose(x, weight, group=group, strict=True, **settings)
    assert back.shape == z.shape
    assert abs((y * x).sum() - (z * back).sum()) < TOLERANCE * y.norm() * x.norm()


def test_transpose_with_output_padding() -> None:
    x, weight = tensors(groups.get("p4"), True, 4, 3)
    with pytest.warns(iso.EquivarianceWarning, match="output_padding=0 keeps it"):
        y = iso.ops.group_conv_transpose(x, weight, group="p4", stride=2, output_padding=1)
    bank = reference.filter_bank(weight, group="p4")
    expected = torch.nn.functional.conv_transpose2d(x.flatten(1, 2), bank, stride=2, output_padding=1).unflatten(1, (2, 4))
    assert error(y, expected) < TOLERANCE
    with pytest.raises(ValueError, match="output_padding"):
        iso.ops.group_conv_transpose(x, weight, group="p4", stride=2, output_padding=1, strict=True)


def test_group_by_name_key_or_itself() -> None:
    group = EVERY_GROUP["exchange of the axes"]
    x, weight = tensors(group, True, 5, 3)
    assert torch.equal(iso.ops.group_conv(x, weight, group=group), iso.ops.group_conv(x, weight, group=group.key))
    x, weight = tensors(groups.get("p4"), True, 5, 3)
    assert torch.equal(iso.ops.group_conv(x, weight, group=groups.get("p4")), iso.ops.group_conv(x, weight, group="p4"))


def test_lists_are_sequences_too() -> None:
    x, weight = tensors(groups.get("p4"), True, 5, 3)
    y = iso.ops.group_conv(x, weight, group="p4", stride=[2, 2], padding=[1, 1], dilation=[1, 1])
    assert torch.equal(y, iso.ops.group_conv(x, weight, group="p4", stride=2, padding=1))


def refuse(*args: Any) -> Tensor:
    raise AssertionError("the call did not go straight to the kernel")


@pytest.mark.parametrize("first", ["grad", "vmap", "fake", "inference", "meta", "export"])
def test_what_a_first_call_leaves_behind(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparations are kept for calls of the same shape: one made inside a transform or a mode must serve ordinary calls."""
    size = 20 + len(first)  # a shape that no other test has prepared
    x, weight = tensors(groups.get("p4"), True, size, 3)
    expected = reference.group_conv(x, weight, group="p4")

    def call(x: Tensor) -> Tensor:
        return iso.ops.group_conv(x, weight, group="p4")

    if first == "grad":
        torch.func.grad(lambda x: call(x).sum())(x)
    elif first == "vmap":
        torch.func.vmap(call)(x[None])
    elif first == "fake":
        with FakeTensorMode() as mode:
            iso.ops.group_conv(mode.from_tensor(x), mode.from_tensor(weight), group="p4")
    elif first == "inference":
        with torch.inference_mode():
            call(x.clone())
    elif first == "export":
        layer = iso.nn.GroupConv2d(x.shape[1], weight.shape[0], 3, group="p4", bias=False, dtype=x.dtype)
        torch.export.export(layer, (x,), strict=False)
    else:
        iso.ops.group_conv(x.to("meta"), weight.to("meta"), group="p4")
    call(x)
    monkeypatch.setattr(sys.modules["isotypic.ops.fields.group_conv"], "convolve", refuse)
    y = call(x)
    assert type(y) is Tensor and not y.is_inference() and y.is_contiguous()
    assert error(y, expected) < TOLERANCE


def test_an_export_does_not_silence_strict() -> None:
    layer = iso.nn.GroupConv2d(3, 2, 3, group="p4", stride=2, strict=True)
    x = torch.randn(2, 3, 4, 10, 10)
    with pytest.raises(ValueError, match="equivarian"):
        torch.export.export(layer, (x,), strict=False)
    with pytest.raises(ValueError, match="equivarian"):
        layer(x)


# Exact equivariance


@pytest.mark.parametrize(
    ("settings", "size", "kernel", "sizes"),
    [
        ({"stride": 2, "padding": 1}, 32, 3, (31, 33)),
        ({"stride": 3}, 13, 3, (12, 15)),
        ({"stride": 2, "dilation": 2}, 10, 2, (9, 11)),
    ],
    ids=str,
)
def test_off_centre_outputs_warn_once_with_sizes_that_keep_equivariance(
    settings: dict[str, int], size: int, kernel: int, sizes: tuple[int, int]
) -> None:
    group = groups.get("p4")
    x, weight = tensors(group, True, size, kernel)
    with pytest.warns(iso.EquivarianceWarning, match=f"group_conv: .*sizes {sizes[0]} and {sizes[1]} keep it") as caught:
        iso.ops.group_conv(x, weight, group=group, **settings)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iso.ops.group_conv(x, weight, group=group, **settings)
        iso.ops.group_conv(torch.cat([x, x]), weight, group=group, **settings)
    with pytest.raises(ValueError, match=r"group_conv: .* keep it"):
        iso.ops.group_conv(x, weight, group=group, strict=True, **settings)
    for good in sizes:
        iso.ops.group_conv(*tensors(group, True, good, kernel), group=group, strict=True, **settings)


def test_only_axes_that_are_reversed_need_their_centre() -> None:
    mirror_of_columns = groups.generate([[[1, 0], [0, -1]]])
    x, weight = torch.randn(1, 1, 2, 6, 5), torch.randn(1, 1, 2, 3, 3)
    iso.ops.group_conv(x, weight, group=mirror_of_columns, stride=2, padding=1, strict=True)
    with pytest.raises(ValueError, match="spatial axis 1 of size 6"):
        iso.ops.group_conv(x.mT, weight, group=mirror_of_columns, stride=2, padding=1, strict=True)
    iso.ops.group_conv(x, weight, group=EVERY_GROUP["exchange of the axes"], stride=2, padding=1, strict=True)
    iso.ops.group_conv(x[:, :, :1], weight[:, :, :1], group="p1", stride=2, padding=1, strict=True)


def test_even_kernels_with_same_padding_warn() -> None:
    x, weight = tensors(groups.get("p4"), False, 6, 4)
    with pytest.warns(iso.EquivarianceWarning, match=r'lift_conv: padding="same" with kernel \(4, 4\)'):
        iso.ops.lift_conv(x, weight, group="p4", padding="same")
    with pytest.raises(ValueError, match="odd kernels keep it"):
        iso.ops.lift_conv(x, weight, group="p4", padding="same", strict=True)


def test_same_padding_of_even_kernels_is_exact_where_nothing_is_reversed() -> None:
    for group in (groups.get("p1"), EVERY_GROUP["exchange of the axes"]):
        x, weight = tensors(group, True, 6, 2)

        def conv(x: Tensor, group: groups.Group = group, weight: Tensor = weight) -> Tensor:
            return iso.ops.group_conv(x, weight, group=group, padding="same", strict=True)

        assert conv(x).shape == x.shape
        iso.testing.assert_equivariant(conv, group, x)


@pytest.mark.parametrize("name", ["p3", "p6m"])
def test_on_the_hexagonal_lattice_the_centre_has_to_be_an_output(name: str) -> None:
    """It is one of 0, stride, 2 stride, ... only where these lie as far from both ends: where the stride divides (size - 1) / 2."""
    group, conv = groups.get(name), iso.ops.group_conv
    weight = tensors(group, True, 3, 3)[1]
    for size in (5, 7, 9, 11):
        x = torch.randn(1, 2, group.order, size, size, dtype=torch.float64)
        if (size - 1) % 4 == 0:
            module = iso.nn.GroupConv2d(2, 2, 3, group=group, stride=2, padding=1, strict=True, dtype=torch.float64)
            iso.testing.assert_equivariant(module, group, x)
        else:
            with pytest.raises(ValueError, match=f"sizes {size - 2} and {size + 2} keep it"):
                conv(x, weight, group=group, stride=2, padding=1, strict=True)


def test_output_padding_of_exchanged_axes_must_be_equal() -> None:
    exchange = EVERY_GROUP["exchange of the axes"]
    x, weight = tensors(exchange, True, 4, 3)
    iso.ops.group_conv_transpose(x, weight, group=exchange, stride=2, output_padding=1, strict=True)
    with pytest.raises(ValueError, match="output_padding moves the centre"):
        iso.ops.group_conv_transpose(x, weight, group=exchange, stride=2, output_padding=(1, 0), strict=True)


def test_unequal_padding_of_exchanged_axes_warns() -> None:
    x, weight = tensors(groups.get("p4"), True, 6, 3)
    with pytest.raises(ValueError, match="reaches unequally far"):
        iso.ops.group_conv(x, weight, group="p4", padding=(1, 0), strict=True)
    iso.ops.group_conv(x, weight[..., :1].expand(*weight.shape[:-1], 5), group="p4", padding=(1, 2), strict=True)


# Messages


def test_a_weight_of_another_group_names_both() -> None:
    x, weight = torch.zeros(2, 16, 8, 9, 9), torch.zeros(32, 16, 4, 3, 3)
    message = (
        r"^group_conv: weight must have shape \(C_out, C_in=16, \|G\|=8, k, k\), got \(32, 16, 4, 3, 3\); "
        r"the weight is for pmm or p4, the call is for p4m$"
    )
    with pytest.raises(ValueError, match=message):
        iso.ops.group_conv(x, weight, group="p4m")


def test_messages() -> None:
    x, weight = torch.zeros(2, 3, 4, 5, 5), torch.zeros(6, 3, 4, 3, 3)
    for change, message in (
        ({"group": "p5"}, "unknown group 'p5'; known groups: p1, p2"),
        ({"group": "p4", "stride": (1, 2)}, r"stride must be equal on the axes that p4 exchanges, got \(1, 2\)"),
        ({"group": "p4", "dilation": 4}, r"kernel of extent \(9, 9\), which is larger than the padded input \(5, 5\)"),
        ({"group": "p4", "padding": "same", "stride": 2}, 'padding="same" needs stride 1'),
        ({"group": "p4", "groups": 2}, "groups must divide C_in=3, got 2"),
        ({"group": "p4", "groups": 3}, r"weight must have shape \(C_out, C_in/groups=1, \|G\|=4, k, k\), got \(6, 3, 4, 3, 3\)"),
    ):
        with pytest.raises(ValueError, match=f"^group_conv: .*{message}"):
            iso.ops.group_conv(x, weight, **change)
    with pytest.raises(TypeError, match=r"^group_conv: weight must have the dtype of x, torch.float32, got torch.float64$"):
        iso.ops.group_conv(x, weight.double(), group="p4")
    with pytest.raises(TypeError, match=r"^group_conv: x must have a dtype of float32, float64, bfloat16, float16, got int64$"):
        iso.ops.group_conv(x.long(), weight, group="p4")
    with pytest.raises(ValueError, match=r"^group_conv: weight must be on the device of x, cpu, got meta$"):
        iso.ops.group_conv(x, weight.to("meta"), group="p4")
    with pytest.raises(ValueError, match="hexagonal lattice odd ones"):
        iso.ops.lift_conv(x[:, :, 0], weight[:, :, 0, :2, :2], group="p6")


def test_messages_in_compiled_graphs() -> None:
    x, weight = torch.zeros(2, 3, 4, 5, 5), torch.zeros(6, 3, 8, 3, 3)
    with pytest.raises(Exception, match="the weight is for p4m, the call is for p4"):
        torch.compile(lambda: iso.ops.group_conv(x, weight, group="p4"), fullgraph=True, backend="eager")()


def test_without_the_extension() -> None:
    """The package imports, says what is missing, and refuses to compute; nothing is computed some other way in silence."""
    code = """
import sys
import threading
sys.modules["isotypic._C"] = None
import torch, isotypic as iso
info = iso.info()
assert info["cpu_isa"] == "none" and info["cpu_isas"] == [] and "isotypic._C" in info["problems"]["cpu"], info
try:
    iso.ops.lift_conv(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3), group="p4")
except RuntimeError as error:
    assert "lift_conv: isotypic has no kernels here" in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_info() -> None:
    info = iso.info()
    assert info["cpu_isa"] == iso.cpu_isa() and info["cpu_isa"] in info["cpu_isas"]
    assert info["cpu_isas"][0] == "scalar"
    assert info["versions"]["torch"] == torch.__version__
    assert bool(info["cuda_targets"] and info["cuda_devices"]) == ("cuda" not in info["problems"])


def test_a_bias_may_change_between_forward_and_backward() -> None:
    x, weight = torch.randn(1, 2, 4, 5, 5, requires_grad=True), torch.randn(3, 2, 4, 3, 3, requires_grad=True)
    bias = torch.randn(3, requires_grad=True)
    y = iso.ops.group_conv(x, weight, bias, group="p4")
    with torch.no_grad():
        bias.add_(1)
    y.sum().backward()
    assert torch.equal(bias.grad, torch.full((3,), float(y[:, 0].numel())))


def test_a_new_thread_has_the_threads_that_torch_was_given() -> None:
    """Two threads split the batch of a weight gradient into two sums; one thread gives other last bits."""
    x, y = torch.randn(2, 4, 8, 9, 9), torch.randn(2, 4, 8, 9, 9)
    convolve_weight = torch.ops.isotypic.group_conv_weight
    settings = ("p4m", "regular", [1, 1], [1, 1], [1, 1], 1, [3, 3])
    before = torch.get_num_threads()
    found: dict[int, Tensor] = {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            expected = convolve_weight(x, y, *settings)
            worker = threading.Thread(target=lambda: found.update({0: convolve_weight(x, y, *settings)}))
            worker.start()
            worker.join()
            assert torch.equal(found[0], expected)
            found[threads] = expected
    finally:
        torch.set_num_threads(before)
    assert not torch.equal(found[1], found[2])


@pytest.mark.parametrize("flush", [False, True])
def test_float16_subnormals_are_read(flush: bool) -> None:
    x = torch.zeros(1, 1, 4, 3, 3, dtype=torch.float16)
    x[0, 0, 0, 1, 1] = 3 * 2.0**-24
    weight = torch.zeros(1, 1, 4, 1, 1, dtype=torch.float16)
    weight[0, 0, 0] = 1024
    if not torch.set_flush_denormal(flush):
        pytest.skip("this machine cannot flush subnormal numbers")
    try:
        y = iso.ops.group_conv(x, weight, group="p4")
    finally:
        torch.set_flush_denormal(False)
    assert y[0, 0, 0, 1, 1].item() == 3 * 2.0**-14


@pytest.mark.parametrize("value", [True, 1.0, (True, 1), [1, 1.0]], ids=str)
def test_booleans_and_floats_are_no_integers_in_a_repeated_call_either(value: Any) -> None:
    x, weight = torch.zeros(1, 1, 4, 3, 3), torch.zeros(1, 1, 4, 1, 1)
    for _ in range(2):
        iso.ops.group_conv(x, weight, group="p4", stride=1, padding=1, dilation=1)
        iso.ops.lift_conv(x[:, :, 0], weight[:, :, 0], group="p4")
        iso.ops.group_conv_transpose(x, weight, group="p4", padding=1)
    for name in ("stride", "padding", "dilation"):
        with pytest.raises(ValueError, match=f"^group_conv: {name} must be an integer"):
            iso.ops.group_conv(x, weight, group="p4", **{name: value})
        with pytest.raises(ValueError, match=f"^lift_conv: {name} must be an integer"):
            iso.ops.lift_conv(x[:, :, 0], weight[:, :, 0], group="p4", **{name: value})
        with pytest.raises(ValueError, match=f"^group_conv_transpose: {name} must be an integer"):
            iso.ops.group_conv_transpose(x, weight, group="p4", **{name: value})


@pytest.mark.parametrize("settings", [{"padding": 2**30, "stride": 2**30}, {"padding": 2**31 - 1, "dilation": 2**31 - 1}], ids=str)
def test_a_working_copy_beyond_every_memory_is_refused(settings: dict[str, int]) -> None:
    """Its size does not fit an integer of 64 bits."""
    x, weight = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, *((1, 1) if "stride" in settings else (3, 3)))
    with pytest.raises(MemoryError, match="group_conv: no memory for the working copy of x"):
        iso.ops.lift_conv(x, weight, group="p1", **settings)


def test_settings_beyond_every_tensor_are_refused() -> None:
    with pytest.raises(ValueError, match=r"group_conv: padding must be at most 2147483647"):
        iso.ops.group_conv(torch.zeros(1, 1, 4, 3, 3), torch.zeros(1, 1, 4, 1, 1), group="p4", padding=2**62)


def test_mixed_dtypes_that_autocast_leaves_alone() -> None:
    message = r"group_conv: weight must have the dtype of x, torch.float64, got torch.float32"
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match=message):
        iso.ops.group_conv(torch.zeros(1, 1, 4, 3, 3, dtype=torch.float64), torch.zeros(1, 1, 4, 1, 1), group="p4")
    with pytest.raises(TypeError, match=r"group_conv: weight must have the dtype of x, torch.float32, got torch.float64"):
        meta = torch.zeros(1, 1, 4, 3, 3, device="meta")
        iso.ops.group_conv(meta, torch.zeros(1, 1, 4, 1, 1, dtype=torch.float64, device="meta"), group="p4")


def test_forward_mode_in_forward_mode_is_refused_where_torch_would_give_zero() -> None:
    x, weight = torch.randn(1, 1, 4, 3, 3, dtype=torch.float64), torch.randn(1, 1, 4, 3, 3, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)

    def quadratic(t: Tensor) -> Tensor:
        return iso.ops.group_conv(t * x, t * weight, group="p4").sum()

    expected = 2 * quadratic(one)
    for second in (torch.func.hessian(quadratic), torch.func.jacrev(torch.func.jacfwd(quadratic))):
        torch.testing.assert_close(second(one), expected)
    with pytest.raises(NotImplementedError, match="group_conv: torch cannot differentiate it by forward mode inside forward mode"):
        torch.func.jacfwd(torch.func.jacfwd(quadratic))(one)


def test_strict_is_a_truth_value() -> None:
    for function, name in ((iso.ops.group_conv, "group_conv"), (iso.ops.group_conv_transpose, "group_conv_transpose")):
        with pytest.raises(TypeError, match=rf"^{name}: strict must be True or False, got 'yes'"):
            function(torch.zeros(1, 1, 4, 3, 3), torch.zeros(1, 1, 4, 3, 3), group="p4", strict="yes")


@pytest.mark.parametrize(("group", "shape"), [("p4m", (2, 3, 8, 17, 19)), ("p4", (1, 4, 4, 64, 7)), ("p6", (3, 5, 6, 11, 13))])
def test_threads_change_the_rounding_of_the_weight_gradient_alone(group: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(5, *shape[1:3], 3, 3, requires_grad=True)

    def run(threads: int) -> tuple[Tensor, ...]:
        torch.set_num_threads(threads)
        y = iso.ops.group_conv(x, weight, group=group, padding=1)
        return y, *torch.autograd.grad(y.square().sum(), (x, weight))

    before = torch.get_num_threads()
    try:
        one, two, again = run(1), run(2), run(2)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert torch.equal(two[2], again[2])
