"""What becomes of the functions and methods of torch that read one tensor."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from isotypic.nn.convert.swapping.kinds import (
    ADAPTIVE_MAX_POOLS,
    ADAPTIVE_MEAN_POOLS,
    FREE,
    MAX_POOLS,
    MEAN_POOLS,
    Kind,
    name_of,
)
from isotypic.nn.convert.swapping.module_rules import ModuleRules
from isotypic.nn.convert.swapping.steps import describe, fetch
from isotypic.nn.convert.swapping.trace import owner
from isotypic.nn.fields.per_channel import PerChannel


class FunctionRules(ModuleRules):
    def sizes(self, node: Any, name: str) -> None:
        """Sizes are those of the plain network, but for the channels: without the axis of the group."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        x = self.known.get(source)
        if isinstance(x, Kind) and x.form == "field" and name in ("size", "shape", "dim", "ndim", "numel", "stride"):
            if name in ("numel", "stride") or x.last:
                self.refuse(node, f"{name} of fields has no meaning for the plain network")
            node.replace_input_with(source, self.method(node, "select", source, 2, 0))
            self.because(f"the {name} of a field in {owner(node) or 'the forward pass'}")

    def build(self, node: Any, module: nn.Module) -> Any:
        """A function of torch by the rule of the module that does the same."""
        module.train(self.plan.model.training)
        source = node.args[0]
        name = self.add_module(name_of(node), module)
        node.op, node.target, node.args, node.kwargs = "call_module", name, (source,), {}
        self.modules[name] = module
        x = self.known[source]
        self.on_last_axis(node, module, x)
        rule = next(rule for types, rule in self.rules.items() if type(module) in types)
        new, gives = rule(node, module, x)
        self.inserted[name] = new
        if new is not module:
            self.because(f"a {describe(new)} for a function")
            self.plan.say(name, "function", describe(new))
        self.note_sizes(node, new, name)
        return gives

    def arguments(self, node: Any, *names: str) -> dict[str, Any]:
        """The arguments behind the first, by name."""
        return {**dict(zip(names, node.args[1:], strict=False)), **{k: v for k, v in node.kwargs.items() if k in names}}

    def function_max_pool2d(self, node: Any, source: Any, x: Kind) -> Any:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        return self.build(node, MAX_POOLS[self.dim - 1](**self.arguments(node, *names)))

    def function_avg_pool2d(self, node: Any, source: Any, x: Kind) -> Any:
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        settings = self.arguments(node, *names)
        if self.whole(settings["kernel_size"], source) and set(settings) <= {"kernel_size", "stride"}:  # as in generalised-mean pooling
            return self.build(node, ADAPTIVE_MEAN_POOLS[self.dim - 1](1))
        return self.build(node, MEAN_POOLS[self.dim - 1](**settings))

    def whole(self, window: Any, source: Any) -> bool:
        """Whether a window is the size of the tensor: (x.size(-2), x.size(-1)), x.shape[2:], x.size()[-2:]."""

        def of_source(node: Any) -> bool:
            if not isinstance(node, fx.Node) or name_of(node) not in ("size", "shape"):
                return False
            read = node.args[0]  # of fields, one element of the group
            return read is source or (isinstance(read, fx.Node) and name_of(read) == "select" and read.args[0] is source)

        def axis(node: Any) -> int | None:
            if not isinstance(node, fx.Node):
                return None
            if of_source(node) and len(node.args) == 2 and isinstance(node.args[1], int):
                return node.args[1]
            taken = name_of(node) == "getitem" and of_source(node.args[0]) and isinstance(node.args[1], int)
            return node.args[1] if taken else None  # type: ignore[return-value]

        if isinstance(window, (tuple, list)):
            places = [axis(entry) for entry in window]
            return None not in places and [place % (self.dim + 2) for place in places if place is not None] == list(range(2, self.dim + 2))
        if not isinstance(window, fx.Node) or name_of(window) != "getitem" or not of_source(window.args[0]):
            return False
        return window.args[1] in (slice(2, None), slice(-self.dim, None))

    function_max_pool1d = function_max_pool3d = function_max_pool2d
    function_avg_pool1d = function_avg_pool3d = function_avg_pool2d

    def function_adaptive_avg_pool2d(self, node: Any, source: Any, x: Kind) -> Any:
        return self.build(node, ADAPTIVE_MEAN_POOLS[self.dim - 1](**self.arguments(node, "output_size")))

    def function_adaptive_max_pool2d(self, node: Any, source: Any, x: Kind) -> Any:
        return self.build(node, ADAPTIVE_MAX_POOLS[self.dim - 1](**self.arguments(node, "output_size")))

    function_adaptive_avg_pool1d = function_adaptive_avg_pool3d = function_adaptive_avg_pool2d
    function_adaptive_max_pool1d = function_adaptive_max_pool3d = function_adaptive_max_pool2d

    def function_pixel_shuffle(self, node: Any, source: Any, x: Kind) -> Any:
        return self.build(node, nn.PixelShuffle(**self.arguments(node, "upscale_factor")))

    def function_interpolate(self, node: Any, source: Any, x: Kind) -> Any:
        if not self.lattice.preserves_axes:
            raise TypeError(f"its finer grid is none of {self.group.name}")
        if x.space not in ("grid", "point") or x.last:
            raise TypeError(f"{x} have no positions")
        gives = x.replace(space="grid")
        settings = self.arguments(node, "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
        for name in ("size", "scale_factor"):
            self.exchanged(name, settings.get(name))
        factor = None if settings.get("recompute_scale_factor") else settings.get("scale_factor")
        mode = "corners" if settings.get("align_corners") else settings.get("mode") or "nearest"
        self.centred_positions(node, node.name, "interpolate", "interpolate", mode, factor)
        return self.on_channels(node, source, gives) if x.form == "field" else gives

    function_upsample = function_interpolate

    def on_channels(self, node: Any, source: Any, gives: Kind) -> Kind:
        """The step on (B, C |G|, *spatial)."""
        flat = self.method(node, "flatten", source, 1, 2)
        node.replace_input_with(source, flat)
        flat.args = (source, 1, 2)
        with self.graph.inserting_after(node):
            back = self.graph.call_method("unflatten", (node, 1, (gives.width, self.order)))
        node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)
        self.known[flat], self.known[back] = None, gives
        self.because(f"{name_of(node)} in {owner(node) or 'the forward pass'}")
        return gives

    def function_pad(self, node: Any, source: Any, x: Kind) -> Any:
        settings = self.arguments(node, "pad", "mode", "value")
        padding: Any = settings["pad"]
        if x.last or x.space not in ("grid", "point"):
            raise TypeError(f"{x} have no positions")
        spatial = padding[: 2 * self.dim]
        values = [entry if isinstance(entry, int) else entry.meta.get("value") for entry in spatial]
        if None not in values:
            self.symmetric(values)
        else:
            self.plan.say(node.name, "pad", "pad", "by what sizes say: exact where it is the same on all sides", exact=False)
        more = padding[2 * self.dim :]
        if not self.lattice.preserves_axes and any(spatial):
            raise TypeError(f"its padded array is no hexagon, as {self.group.name} asks; use the padding of the convolution")
        if not more:
            if x.form == "field" and settings.get("mode", "constant") != "constant":
                return self.on_channels(node, source, x)
            return x
        if len(more) != 2 or not all(isinstance(entry, int) for entry in padding) or x.channels is None or x.width is None:
            raise TypeError(f"padding {tuple(padding)} is not known")
        channels = x.channels + sum(more)
        if x.form == "scalar":
            if x.width != x.channels:
                raise TypeError(f"padding {tuple(padding)} is not known on {x.width} features")
            return x.replace(channels=channels, width=channels)
        fields = self.flow.partner(node, channels, self.known) or self.plan.fields(node.name, channels)
        added = fields - x.width
        if added < 0:
            raise TypeError(f"{fields} fields for {channels} channels are less than {x}")
        front = added * more[0] // sum(more) if sum(more) else 0
        full = [*spatial, 0, 0, front, added - front]
        node.args = (source, full, *node.args[2:])
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != "pad"}
        self.because("zeros for more channels")
        self.plan.say(node.name, "pad", "pad", f"{added} fields of zeros")
        return x.replace(channels=channels, width=fields)

    def axes(self, x: Kind, dims: Any) -> set[int]:
        count = {"grid": self.dim + 2, "point": self.dim + 2}.get(x.space, 2)
        values = dims if isinstance(dims, (tuple, list)) else (dims,)
        if not all(isinstance(value, int) for value in values):
            raise TypeError(f"dim must be numbers, got {dims}")
        return {value % count for value in values}

    def function_mean(self, node: Any, source: Any, x: Kind) -> Any:
        settings = self.arguments(node, "dim", "keepdim")
        if "axis" in node.kwargs:
            settings["dim"] = node.kwargs["axis"]
        if settings.get("dim") is None or x.space == "flat":
            raise TypeError("it reduces all axes")
        dims, keep = self.axes(x, settings["dim"]), bool(settings.get("keepdim", False))
        spatial = {axis + (1 if x.last else 2) for axis in range(self.dim)}
        channel = self.dim + 1 if x.last else 1
        others = {key: value for key, value in node.kwargs.items() if key not in ("dim", "axis", "keepdim")}
        if dims == spatial and x.space in ("grid", "point"):
            if not self.lattice.preserves_axes:
                self.mask(node)
                (source,) = node.all_input_nodes
            gives = x.replace(space="point" if keep else "none", last=x.last and keep, given=False)
            if x.form == "scalar":
                return gives
            if not self.stays_field(node) and not x.last:
                self.pool(node, source, "max")
                return gives.replace(form="scalar")
            node.args, node.kwargs = (source, tuple(range(-self.dim, 0)), keep), others
            self.because(f"{name_of(node)} over positions")
            return gives
        if dims == {channel} and keep and x.space in ("grid", "point"):
            if x.last or (x.form == "field" and settings["dim"] not in (1, [1], (1,))):
                node.args, node.kwargs = (source, 1, True), others
                self.because(f"{name_of(node)} over channels")
            return x.replace(channels=1, width=1)
        raise TypeError(f"dim={settings['dim']} are neither all positions nor, with keepdim, the channels")

    function_amax = function_amin = function_sum = function_mean

    def along_channels(self, node: Any, x: Kind, *names: str) -> None:
        """Names the axis of the channels from the front: counted from the end, fields have another one there."""
        settings = self.arguments(node, *names)
        if x.form == "field" and settings.get("dim", 1) != 1:
            node.args, node.kwargs = node.args[:1], {**node.kwargs, **settings, "dim": 1}
            self.because(f"{name_of(node)} over channels")

    def function_max(self, node: Any, source: Any, x: Kind) -> Any:
        settings = self.arguments(node, "dim", "keepdim")
        if x.last or self.axes(x, settings.get("dim", ())) != {1} or not settings.get("keepdim", False):
            raise TypeError("only the maximum over the channels is known, with keepdim; over positions use amax")
        self.along_channels(node, x, "dim", "keepdim")
        return (x.replace(channels=1, width=1), x.replace(channels=1, width=1))

    function_min = function_max

    def function_softmax(self, node: Any, source: Any, x: Kind) -> Any:
        if x.last or self.axes(x, self.arguments(node, "dim").get("dim")) != {1}:
            raise TypeError("dim must be 1, the channels")
        self.along_channels(node, x, "dim")
        return x

    function_log_softmax = function_softmax

    def function_normalize(self, node: Any, source: Any, x: Kind) -> Any:
        if x.last or self.axes(x, self.arguments(node, "p", "dim").get("dim", 1)) != {1}:
            raise TypeError("dim must be 1, the channels")
        self.along_channels(node, x, "p", "dim", "eps")
        return x

    def function_argmax(self, node: Any, source: Any, x: Kind) -> Any:
        if x.form == "field" or self.axes(x, self.arguments(node, "dim").get("dim")) != {1}:
            raise TypeError("dim must be 1, the channels of scalars")
        return FREE

    def function_flatten(self, node: Any, source: Any, x: Kind) -> Any:
        settings = {"start_dim": 0, "end_dim": -1, **self.arguments(node, "start_dim", "end_dim")}
        if settings["start_dim"] != 1 or settings["end_dim"] not in (-1, self.dim + 1):
            raise TypeError(f"only flatten(x, 1) is known, got {settings}")
        return self.flattened(node, source, x)

    def flattened(self, node: Any, source: Any, x: Kind) -> Kind:
        """flatten(x, 1), view(x, (batch, -1)) and the like."""
        if x.last:
            raise TypeError("it flattens channels on the last axis")
        if x.form == "scalar" and x.space != "grid":
            return x.replace(space="none")
        if x.space != "grid":
            node.op, node.target, node.args, node.kwargs = "call_method", "flatten" if x.space == "point" else "clone", (source,), {}
            if x.space == "point":
                node.args = (source, 2)
            self.because("flattened fields")
            return x.replace(space="none")
        if self.plan.head == "pool" and not (x.form == "field" and self.plan.pretrained):
            if x.form == "field":
                x = self.pool(node, source, "max")
                (source,) = node.all_input_nodes[:1]
            everywhere = ADAPTIVE_MEAN_POOLS[self.dim - 1](1)
            self.before(node, source, everywhere, "pool", x.replace(space="point"))
            self.plan.say(node.name, "flatten", "a pooling over all positions", "head='pool'")
            return x.replace(space="none")
        if x.form == "field" and self.plan.pretrained:
            if self.plan.head == "pool":
                everywhere = ADAPTIVE_MEAN_POOLS[self.dim - 1](1)
                source = self.before(node, source, PerChannel(everywhere, self.group), "pool", x.replace(space="point"))
            node.op, node.target, node.args, node.kwargs = "call_method", "flatten", (source, 2), {}
            self.because("flattened fields")
            return x.replace(space="none" if self.plan.head == "pool" else "flat")
        if x.form == "field":
            x = self.pool(node, source, "max")
        return x.replace(space="flat")

    def function_view(self, node: Any, source: Any, x: Kind) -> Any:
        shape = node.args[1:] if len(node.args) > 2 else node.args[1] if len(node.args) == 2 else node.kwargs.get("shape", ())
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        if len(shape) == 2 and (shape[1] == -1 or x.space != "grid"):
            return self.flattened(node, source, x)
        if len(shape) == self.dim + 2 and x.space in ("none", "point") and all(entry == 1 for entry in shape[2:]):
            if x.form == "field":
                ones = self.dim if x.space == "none" else 0
                for _ in range(ones):
                    source = self.method(node, "unsqueeze", source, -1)
                node.op, node.target, node.args, node.kwargs = "call_method", "contiguous", (source,), {}
                self.because("the shape of gates")
            elif x.width != x.channels:
                raise TypeError(f"shape {shape} is not known on {x.width} features")
            return x.replace(space="point")
        raise TypeError(f"shape {tuple(shape)} is not known on {x}; only (batch, -1) and (batch, channels, 1, 1) are")

    function_reshape = function_view

    def function_unsqueeze(self, node: Any, source: Any, x: Kind) -> Any:
        dim = self.arguments(node, "dim").get("dim")
        if x.space == "grid" or dim not in (2, 3, 4, -1):
            raise TypeError(f"dim={dim} is not known on {x}")
        if x.form == "field" and dim != -1:
            node.args, node.kwargs = (source, -1), {}
            self.because("the shape of gates")
        return x.replace(space="point")

    def function_squeeze(self, node: Any, source: Any, x: Kind) -> Any:
        dim = self.arguments(node, "dim").get("dim")
        if x.space == "grid" or dim not in (2, 3, 4, -1, -2, -3, None):
            raise TypeError(f"dim={dim} is not known on {x} on a {x.space}")
        if dim is None:
            raise TypeError("without dim it may take away the batch")
        if x.form == "field" and dim > 0:
            node.args, node.kwargs = (source, -1), {}
            self.because("flattened fields")
        return x.replace(space="none")

    def function_expand_as(self, node: Any, source: Any, x: Kind) -> Any:
        return x.replace(space="grid") if x.space == "point" else x

    def function_chunk(self, node: Any, source: Any, x: Kind) -> Any:
        settings = self.arguments(node, "chunks", "dim")
        return self.parts(node, x, settings["chunks"], settings.get("dim", 0))

    def function_split(self, node: Any, source: Any, x: Kind) -> Any:
        settings = self.arguments(node, "split_size_or_sections", "split_size", "dim")
        sizes: Any = settings.get("split_size_or_sections") or settings["split_size"]
        if len(node.args) > 2:
            settings["dim"] = node.args[2]
        if x.channels is None or x.width is None:
            raise TypeError(f"it splits {x}")
        if isinstance(sizes, int):
            if x.channels % sizes:
                raise TypeError(f"sizes {sizes} do not divide {x.channels} channels")
            sizes = [sizes] * (x.channels // sizes)
        if len(set(sizes)) != 1 or sum(sizes) != x.channels:
            raise TypeError(f"only equal parts are known, got {sizes} of {x.channels}")
        gives = self.parts(node, x, len(sizes), settings.get("dim", 0))
        if x.form == "field":
            node.args, node.kwargs = (node.args[0], x.width // len(sizes), 1), {}
            self.because("a split of fields")
        return gives

    def parts(self, node: Any, x: Kind, count: Any, dim: Any) -> tuple[Kind, ...]:
        if x.last or dim not in (1,) or not isinstance(count, int) or x.width is None or x.channels is None:
            raise TypeError(f"only parts of the channels are known, dim=1, got dim={dim}")
        if x.width % count or x.channels % count:
            raise TypeError(f"{x} in {count} parts; choose their number with fields=")
        return (x.replace(channels=x.channels // count, width=x.width // count),) * count

    def getitem(self, node: Any, x: Any) -> Any:
        index = node.args[1]
        if isinstance(x, tuple):
            return x[index] if isinstance(index, int) else tuple(x[index])
        entries = index if isinstance(index, tuple) else (index,)
        if (
            not isinstance(x, Kind)
            or x.last
            or not all(isinstance(entry, slice) or entry is None or entry is Ellipsis for entry in entries)
        ):
            self.refuse(node, f"the index {index} is not known on {x}")
        whole = slice(None)
        if x.space != "grid":
            if all(entry in (whole, None, Ellipsis) for entry in entries) and entries[:2] in ((whole, whole), (Ellipsis, None)):
                if x.form == "field" and entries[:2] == (whole, whole):
                    node.args = (node.args[0], (whole, whole, whole, *entries[2:]))
                    self.because("the shape of gates")
                return x.replace(space="point")
            self.refuse(node, f"the index {index} is not known on {x}")
        if None in entries or Ellipsis in entries or entries[0] != whole:
            self.refuse(node, f"the index {index} is not known on {x}")
        channels = entries[1] if len(entries) > 1 else whole
        gives = x
        if channels != whole:
            if x.width is None or x.channels is None or channels.step not in (None, 1):
                self.refuse(node, f"the index {index} is not known on {x}")
            start, stop, _ = channels.indices(x.channels)
            if (start * x.width) % x.channels or (stop * x.width) % x.channels:
                self.refuse(node, f"channels {start} to {stop} of {x} are no whole fields; choose their number with fields=")
            first, last = start * x.width // x.channels, stop * x.width // x.channels
            gives = x.replace(channels=stop - start, width=last - first)
            channels = slice(first, last)
        space = entries[2:]
        steps = [entry.step or 1 for entry in space]
        try:
            self.exchanged("steps", (*steps, *(1,) * (self.dim - len(steps))))
        except TypeError as error:
            self.refuse(node, f"the index {index}: {error}")
        for axis, entry in enumerate(space):
            if entry == whole:
                continue
            if entry.start not in (None, 0) or entry.stop is not None:
                self.refuse(node, f"the index {index} cuts positions off on one side")
            size = self.size(node.all_input_nodes[0])
            if size is None or (size[axis] - 1) % entry.step:
                odd = "unknown" if size is None else size[axis]
                self.plan.say(
                    node.name, "getitem", "getitem", f"steps of {entry.step} keep the centre of odd sizes alone, got {odd}", exact=False
                )
        if x.form == "field" and (channels != whole or space):
            node.args = (node.args[0], (whole, channels, whole, *space) if space else (whole, channels))
            if space or channels != entries[1]:
                self.because("an index into fields")
        return gives

    def function_permute(self, node: Any, source: Any, x: Kind) -> Any:
        dims = node.args[1:] if len(node.args) > 2 else node.args[1] if len(node.args) == 2 else node.kwargs["dims"]
        dims = tuple(d % (self.dim + 2) for d in dims)
        axes = tuple(range(self.dim + 2))
        forth, back = (0, *axes[2:], 1), (0, axes[-1], *axes[1:-1])
        if x.space not in ("grid", "point") or dims != (back if x.last else forth):
            raise TypeError(f"dims {dims} of {x}; only channels to the last axis and back are known")
        if x.form == "field":
            node.op, node.target, node.args, node.kwargs = "call_method", "contiguous", (source,), {}
            self.because("channels on the last axis, where fields do not move")
        return x.replace(last=not x.last)

    def function_layer_norm(self, node: Any, source: Any, x: Kind) -> Any:
        settings = self.arguments(node, "normalized_shape", "weight", "bias", "eps")
        shape, weight, bias = settings["normalized_shape"], settings.get("weight"), settings.get("bias")
        shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        norm = nn.LayerNorm(shape, settings.get("eps", 1e-5), weight is not None, bias is not None)
        parameters = [("weight", weight), ("bias", bias)]
        for name, value in parameters:
            if value is not None:
                if not (isinstance(value, fx.Node) and value.op == "get_attr"):
                    raise TypeError(f"its {name} is no parameter of the module")
                setattr(norm, name, fetch(self.plan.model, str(value.target)))
        return self.build(node, norm)
