"""What becomes of the modules of torch.nn, and what their tensors are then."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from isotypic.groups.planar import PlanarGroup
from isotypic.nn.convert.swapping import layers
from isotypic.nn.convert.swapping.kinds import (
    ADAPTIVE_MEAN_POOLS,
    CONVOLUTIONS,
    FREE,
    GLOBAL,
    MAX_POOLS,
    MEAN_POOLS,
    POINTWISE_MODULES,
    TRANSPOSED,
    Kind,
)
from isotypic.nn.convert.swapping.plan import Plan
from isotypic.nn.convert.swapping.steps import Steps, describe
from isotypic.nn.fields.dropout import FieldDropout
from isotypic.nn.fields.group_pool import GroupPool
from isotypic.nn.fields.per_channel import PerChannel
from isotypic.nn.fields.pixel_shuffle import FieldPixelShuffle

Rule = Callable[[fx.Node, Any, Kind], tuple[nn.Module, Kind]]
"""(step, module, what it reads) -> (counterpart, what that gives)"""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
UPSAMPLING = (nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d)
PADDING = (
    *(nn.ZeroPad1d, nn.ConstantPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d),
    *(nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d),
    *(nn.ZeroPad3d, nn.ConstantPad3d, nn.ReflectionPad3d, nn.ReplicationPad3d, nn.CircularPad3d),
)
EXAMPLE = "give swap an example, to know whether for yours"
LARGE = 256
"""A size that is larger than what kernels reach over."""
ALONG_CHANNELS = (nn.Softmax2d, nn.LocalResponseNorm)


class ModuleRules(Steps):
    def __init__(self, plan: Plan, graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
        super().__init__(plan, graph, modules)
        self.rules: dict[tuple[type[nn.Module], ...], Rule] = {
            CONVOLUTIONS: self.convolution,
            TRANSPOSED: self.transposed,
            (nn.Linear,): self.linear,
            NORMS: self.batch_norm,
            (nn.GroupNorm,): self.group_norm,
            (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d): self.instance_norm,
            (nn.LayerNorm,): self.layer_norm,
            MAX_POOLS: self.max_pool,
            MEAN_POOLS: self.average_pool,
            GLOBAL: self.global_pool,
            (nn.Flatten,): self.flatten_module,
            UPSAMPLING: self.upsampling,
            PADDING: self.padding,
            (nn.PixelShuffle,): self.pixel_shuffle,
            (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d): self.field_dropout,
            (nn.PReLU,): self.prelu,
            (nn.Softmax, nn.LogSoftmax): self.softmax,
            ALONG_CHANNELS: lambda node, module, x: (module, x),
            POINTWISE_MODULES: lambda node, module, x: (module, x),
        }

    def on_last_axis(self, node: Any, module: Any, x: Kind) -> None:
        """Raises where a layer takes another axis for the channels than that on which they stand."""
        if x.last and not isinstance(module, (nn.Linear, nn.LayerNorm, *POINTWISE_MODULES)) and getattr(module, "num_parameters", 0) != 1:
            self.refuse(node, f"{type(module).__name__} reads channels on the last axis; permute them back in front of it")

    def decided(self, node: Any, channels: int) -> int:
        """The number of fields that a layer gives."""
        if node in self.flow.exact:
            return channels
        return self.flow.partner(node, channels, self.known) or self.plan.fields(str(node.target), channels)

    def convolution(self, node: Any, conv: Any, x: Kind) -> tuple[nn.Module, Kind]:
        if x.form == "scalar" and x.space in ("point", "none", "flat"):
            if x.space == "flat":
                raise TypeError("it reads flattened positions")
            return (conv, FREE) if x.width == x.channels else (layers.resized(conv, self.inputs(node, conv.in_channels, x)), FREE)
        if type(conv) is not (nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.dim - 1]:
            raise TypeError(f"{self.group.name} acts on {self.dim} axes")
        if x.last:
            raise TypeError("it reads channels on the last axis")
        lift = x.form == "scalar"
        width = conv.in_channels if x.width is None else x.width
        ends = node in self.flow.exact and self.flow.ends(node) and self.plan.head != "fields" and not self.plan.pretrained
        if ends and not lift and set(conv.kernel_size) == {1} and conv.groups == 1 and not (set(conv.stride) - {1}):
            self.pool(node, node.all_input_nodes[0], "max")
            self.plan.say(str(node.target), describe(conv), describe(conv), "on scalar fields, behind a pooling over the group")
            new = layers.resized(conv, width)
            return new, Kind("scalar", conv.out_channels, conv.out_channels, x.space)
        used, note = layers.square(conv, self.lattice)
        if any(layers.as_tuple(conv.padding, self.dim) if not isinstance(conv.padding, str) else (conv.padding == "same",)):
            self.mask(node)
        fields, blocks = self.grouped(node, conv, width)
        new = layers.convolution(used, self.group, lift, width, fields, blocks, self.plan.pretrained)
        if note:
            self.plan.say(str(node.target), describe(conv), describe(new), note)
        gives = Kind("field", conv.out_channels, fields, x.space)
        if ends:
            pooled = self.after(node, GroupPool("mean", group=self.group), "group_pool")
            self.known[pooled] = gives.replace(form="scalar")
            self.plan.say(str(node.target), describe(conv), describe(new), "its mean over the group: as many channels as before")
        return new, gives

    def grouped(self, node: Any, conv: Any, width: int) -> tuple[int, int]:
        """The number of fields that a convolution gives, and in how many blocks."""
        if conv.groups == conv.in_channels and conv.groups > 1:
            return width * (conv.out_channels // conv.in_channels), width
        fields = self.decided(node, conv.out_channels)
        if width % conv.groups or fields % conv.groups:
            raise TypeError(
                f"groups={conv.groups} must divide the {width} fields that it reads and the {fields} that it gives; choose them by fields="
            )
        return fields, conv.groups

    def transposed(self, node: Any, conv: Any, x: Kind) -> tuple[nn.Module, Kind]:
        if x.form != "field" or x.last or type(conv) is not (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[self.dim - 1]:
            raise TypeError(f"it reads {x}; transposed convolutions of {self.group.name} read fields on {self.dim} axes")
        assert x.width is not None
        fields, blocks = self.grouped(node, conv, x.width)
        if any(conv.padding):
            self.mask(node)
        new = layers.convolution(conv, self.group, False, x.width, fields, blocks, self.plan.pretrained)
        gives = Kind("field", conv.out_channels, fields)
        if node in self.flow.exact and self.flow.ends(node) and self.plan.head != "fields" and not self.plan.pretrained:
            pooled = self.after(node, GroupPool("mean", group=self.group), "group_pool")
            self.known[pooled] = gives.replace(form="scalar")
        return new, gives

    def inputs(self, node: Any, features: int, x: Kind) -> int:
        """How many numbers a plain layer reads that read `features` of them."""
        if x.width is None:  # pooled images, of which the layer alone knows how many channels they have
            return features
        if x.channels is not None and self.plan.head == "pool" and features % x.channels == 0:
            return x.width
        if x.channels is None:  # joined with numbers of which only the layer knows how many there are
            return features + x.width
        if features != x.channels and x.space == "flat" and features % x.channels == 0:
            raise TypeError(
                f"it reads {features // x.channels} positions of each of {x.channels} channels, one weight each, which no motion of the "
                "image leaves as they are; head='pool' puts a pooling over all positions in the place of the flattening"
            )
        if features != x.channels:
            raise TypeError(f"it reads {features} numbers, and gets {x.channels} channels")
        return x.width

    def linear(self, node: Any, linear: Any, x: Kind) -> tuple[nn.Module, Kind]:
        source = node.all_input_nodes[0]
        if x.given:
            return linear, FREE
        if x.form == "field":
            assert x.width is not None
            if x.last or (x.space == "none" and (self.plan.pretrained or self.flow.rejoins(node, self.known))):
                fields = self.decided(node, linear.out_features)
                gives = x.replace(channels=linear.out_features, width=fields)
                self.inputs(node, linear.in_features, x)
                return layers.linear(linear, self.group, x.width, fields, self.plan.pretrained), gives
            if x.space == "grid":
                raise TypeError("a linear layer reads the last axis, which are positions; pool over them or flatten them first")
            if self.plan.pretrained and x.space == "flat" and self.plan.head is None:
                self.inputs(node, linear.in_features, x)
                return layers.linear(linear, self.group, x.width, linear.out_features, True), x.replace(
                    channels=linear.out_features, width=linear.out_features, space="none"
                )
            x = self.pool(node, source, "max")
        if x.space == "grid" and x.form == "scalar":
            raise TypeError("a linear layer reads the last axis, which are positions; pool over them or flatten them first")
        width = self.inputs(node, linear.in_features, x)
        return (linear if width == linear.in_features else layers.resized(linear, width)), FREE

    def batch_norm(self, node: Any, norm: Any, x: Kind) -> tuple[nn.Module, Kind]:
        self.mask(node)
        if x.form == "scalar":
            return (norm if x.width in (None, norm.num_features) else layers.resized(norm, x.width)), x
        assert x.width is not None
        new = layers.batch_norm(norm, x.width, self.plan.pretrained)
        if not norm.track_running_stats:
            self.say_norm(node, norm, new)
        users = list(node.users)
        if len(users) == 1 and users[0].op == "call_module" and type(self.modules.get(str(users[0].target))) is nn.ReLU and self.once(node):
            relu = self.modules[str(users[0].target)]
            if self.plan.one_mode and self.once(users[0]) and relu not in self.plan.counterparts:
                new.activation = "relu"  # type: ignore[assignment]
                self.plan.counterparts[relu] = [((x,), nn.Identity(), x)]
                self.plan.say(str(users[0].target), "ReLU", "Identity", f"computed with {node.target}")
        return new, x

    def once(self, node: Any) -> bool:
        """Whether a module is called at this step alone, and has one name."""
        module = self.modules[str(node.target)]
        calls = [n for n in self.graph.nodes if n.op == "call_module" and self.modules.get(str(n.target)) is module]
        parents = [m for m in self.plan.model.modules() for child in m._modules.values() if child is module]
        return len(calls) == 1 and len(parents) == 1

    def group_norm(self, node: Any, norm: Any, x: Kind) -> tuple[nn.Module, Kind]:
        self.mask(node)
        if x.form == "scalar":
            if x.width != x.channels:
                raise TypeError(f"it reads {x.width} features for {x.channels} channels")
            return norm, x
        assert x.width is not None
        new, note = layers.group_norm(norm, x.width, self.plan.pretrained)
        self.say_norm(node, norm, new, note)
        return new, x

    def say_norm(self, node: Any, norm: nn.Module, new: nn.Module, note: str = "") -> None:
        if self.plan.pretrained:
            note = "; ".join(filter(None, [note, "its statistics are shared over the group: not the plain network's mean over the group"]))
        if note:
            self.plan.say(str(node.target), describe(norm), describe(new), note)

    def instance_norm(self, node: Any, norm: Any, x: Kind) -> tuple[nn.Module, Kind]:
        self.mask(node)
        self.on_axes(norm)
        if x.form == "scalar":
            return norm, x
        if not self.lattice.preserves_axes:
            raise TypeError(f"its mean over the array is not one over the hexagon, as {self.group.name} asks")
        assert x.width is not None
        return layers.instance_norm(norm, x.width, self.plan.pretrained), x

    def layer_norm(self, node: Any, norm: Any, x: Kind) -> tuple[nn.Module, Kind]:
        if len(norm.normalized_shape) != 1 or not (x.last or x.space == "none"):
            raise TypeError(f"it normalises {tuple(norm.normalized_shape)}, not the channels alone, and reads {x} on a {x.space}")
        assert x.width is not None
        if x.form == "scalar":
            return (norm if x.width == norm.normalized_shape[0] else layers.resized(norm, x.width)), x
        new = layers.layer_norm(norm, x.width, self.plan.pretrained)
        self.say_norm(node, norm, new)
        return new, x

    def max_pool(self, node: Any, pool: Any, x: Kind) -> tuple[nn.Module, Kind]:
        self.on_axes(pool)
        return layers.max_pool(pool, self.group), x

    def average_pool(self, node: Any, pool: Any, x: Kind) -> tuple[nn.Module, Kind]:
        self.on_axes(pool)
        return layers.average_pool(pool, self.group), x

    def on_axes(self, module: nn.Module) -> None:
        """Raises for a layer on another number of axes than the group acts on; the number is in the name of its type."""
        if type(module).__name__[-2:] != f"{self.dim}d":
            raise TypeError(f"{self.group.name} acts on {self.dim} axes")

    def is_global(self, node: Any, output_size: Any) -> bool:
        return set(layers.as_tuple(output_size, self.dim)) == {1}

    def global_pool(self, node: Any, pool: Any, x: Kind) -> tuple[nn.Module, Kind]:
        self.on_axes(pool)
        if getattr(pool, "return_indices", False):
            raise TypeError("return_indices must be False, got True")
        self.mask(node)
        if not self.is_global(node, pool.output_size):
            self.exchanged("output_size", pool.output_size)
            if not self.lattice.preserves_axes:
                raise TypeError(f"{self.group.name} does not map its windows to one another")
            return (PerChannel(pool, self.group) if x.form == "field" else pool), x
        if x.form == "scalar":
            return pool, x.replace(space="point", given=False)
        if self.stays_field(node):
            return PerChannel(pool, self.group), x.replace(space="point")
        return nn.Sequential(GroupPool("max", group=self.group), pool), x.replace(form="scalar", space="point")

    def stays_field(self, node: Any) -> bool:
        """Whether what is pooled over positions is not yet to be pooled over the group."""
        ending = self.flow.ends(node)
        return self.plan.pretrained or self.flow.rejoins(node, self.known) or ending

    def flatten_module(self, node: Any, flatten: Any, x: Kind) -> tuple[nn.Module, Kind]:
        layers.default(flatten, start_dim=1, end_dim=-1)
        if x.form == "scalar" and x.space != "grid":
            return flatten, x.replace(space="none")
        if x.form == "field" and x.space != "grid":
            return (nn.Flatten(2) if x.space == "point" else nn.Identity()), x.replace(space="none")
        self.mask(node)
        steps: list[nn.Module] = []
        if self.plan.head == "pool":
            everywhere = ADAPTIVE_MEAN_POOLS[self.dim - 1](1)
            self.plan.say(str(node.target), "Flatten", "a pooling over all positions", "head='pool'")
            if x.form == "field" and self.plan.pretrained:
                return nn.Sequential(PerChannel(everywhere, self.group), nn.Flatten(2)), x.replace(space="none")
            steps, gives = [everywhere], x.replace(form="scalar", space="none")
        else:
            if x.form == "field" and self.plan.pretrained:
                return nn.Flatten(2), x.replace(space="flat")
            gives = x.replace(form="scalar", space="flat")
        if x.form == "field":
            steps.insert(0, GroupPool("max", group=self.group))
        return (nn.Sequential(*steps, flatten) if steps else flatten), gives

    def upsampling(self, node: Any, module: Any, x: Kind) -> tuple[nn.Module, Kind]:
        if not self.lattice.preserves_axes:
            raise TypeError(f"its finer grid is none of {self.group.name}")
        self.exchanged("size", module.size)
        self.exchanged("scale_factor", module.scale_factor)
        return PerChannel(module, self.group) if x.form == "field" else module, x

    def exchanged(self, name: str, values: Any) -> None:
        """Raises unless numbers, one for each axis, are the same on axes that the group exchanges; sizes of other tensors are."""
        values = tuple(values) if isinstance(values, (tuple, list)) else ()
        if not all(value is None or isinstance(value, (int, float)) for value in values):
            return
        for matrix in self.lattice.elements:
            if any(values[i] != values[j] for i, j in zip(*matrix.nonzero(), strict=True) if max(i, j) < len(values)):
                raise TypeError(f"{name} must be equal on the axes that {self.group.name} exchanges, got {values}")

    def centred_positions(self, node: Any, name: str, was: str, now: str, mode: str, factor: Any) -> None:
        """Says where the positions of a finer or coarser grid are not those of the moved image."""
        before, after = self.size(node.all_input_nodes[0]), self.size(node)
        if mode in ("area", "corners"):
            return
        factors = tuple(factor) if isinstance(factor, (tuple, list)) else (factor,) * self.dim
        if before is None or after is None:
            whole = all(isinstance(scale, (int, float)) and scale == int(scale) for scale in factors)
            if "shape" not in node.meta and not whole and (factor is not None or mode.startswith("nearest")):
                self.plan.say(name, was, now, f"its positions are centred for some sizes alone; {EXAMPLE}", exact=False)
            return
        for m, n, scale in zip(before, after, factors, strict=True):
            if isinstance(scale, (int, float)) and abs(m * scale - n) > 1e-6:  # the size is rounded, and the factor is not
                note = f"positions of {before} in {after} are not centred; with sizes that are multiples of the factor they are"
            elif (mode == "nearest" and n % m) or (mode == "nearest-exact" and m // math.gcd(m, n) % 2 == 0):
                note = f"nearest positions of {before} in {after} are not centred; bilinear ones are"
            else:
                continue
            self.plan.say(name, was, now, note, exact=False)
            return

    def padding(self, node: Any, module: Any, x: Kind) -> tuple[nn.Module, Kind]:
        self.on_axes(module)
        self.symmetric(module.padding)
        if not self.lattice.preserves_axes:
            raise TypeError(f"its padded array is no hexagon, as {self.group.name} asks; use the padding of the convolution")
        return (PerChannel(module, self.group) if x.form == "field" else module), x

    def symmetric(self, padding: Sequence[int]) -> None:
        """Raises unless a padding is the same on sides that the group exchanges."""
        pairs = [(padding[2 * i], padding[2 * i + 1]) for i in range(len(padding) // 2)][::-1]
        pairs = [(0, 0)] * (self.dim - len(pairs)) + pairs
        for matrix in self.lattice.elements:
            for i, j in zip(*matrix.nonzero(), strict=True):
                if (pairs[i] if matrix[i, j] > 0 else pairs[i][::-1]) != pairs[j]:
                    raise TypeError(f"padding {tuple(padding)} is not the same on the sides that {self.group.name} exchanges")

    def pixel_shuffle(self, node: Any, module: Any, x: Kind) -> tuple[nn.Module, Kind]:
        blocks = module.upscale_factor**2
        if self.dim != 2 or isinstance(self.group, PlanarGroup):
            raise TypeError(f"its places are not exchanged by {self.group.name}; upsample, or take a group of the square lattice")
        if x.form != "field" or x.width is None or x.channels is None:
            raise TypeError(f"it reads {x}, whose channels would be places that the group exchanges")
        if x.width % blocks:
            raise TypeError(f"it reads {x.width} fields, which must be a multiple of {blocks}; choose them with fields=")
        return FieldPixelShuffle(module.upscale_factor, self.group), x.replace(channels=x.channels // blocks, width=x.width // blocks)

    def field_dropout(self, node: Any, module: Any, x: Kind) -> tuple[nn.Module, Kind]:
        return (FieldDropout(module.p, module.inplace).train(module.training) if x.form == "field" else module), x

    def prelu(self, node: Any, module: Any, x: Kind) -> tuple[nn.Module, Kind]:
        if module.num_parameters == 1 or x.width in (None, module.num_parameters):
            return module, x
        new = nn.PReLU(x.width, **layers.place(module))
        with torch.no_grad():
            new.weight.fill_(module.weight.mean())
        return layers.follow(module, new), x

    def softmax(self, node: Any, module: Any, x: Kind) -> tuple[nn.Module, Kind]:
        if module.dim != 1 or x.last:
            raise TypeError(f"dim must be 1, the channels, got {module.dim}")
        return module, x

    def note_sizes(self, node: Any, new: nn.Module, name: str) -> None:
        """Says in the report where the size of the example breaks the symmetry of a layer with a stride."""
        old: Any = self.modules[str(node.target)]
        if type(old) in UPSAMPLING:
            factor = None if old.recompute_scale_factor else old.scale_factor
            self.centred_positions(node, name, describe(old), describe(new), "corners" if old.align_corners else old.mode, factor)
        size = self.size(node.all_input_nodes[0])
        new = getattr(new, "blocks", new)  # the convolution inside of a steerable one
        if not hasattr(new, "group") or not (hasattr(new, "stride") or hasattr(new, "window")):
            return
        if size is not None:
            reason = layers.off_centre(new, self.lattice, size)
        elif "shape" in node.meta:
            return
        else:  # sizes of every remainder
            steps: Any = new.stride
            sizes = range(LARGE, LARGE + 2 * max(layers.as_tuple(steps, self.dim)))
            broken = any(layers.off_centre(new, self.lattice, (extent,) * self.dim) for extent in sizes)
            reason = f"with its stride {steps} it is exact for some sizes alone; {EXAMPLE}" if broken else ""
        if reason:
            self.plan.say(name, describe(old), describe(new), reason, exact=False)
