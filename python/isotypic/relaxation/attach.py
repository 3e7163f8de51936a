"""`relax`: hooks that add fixed inputs to the outputs of submodules. The network stays the module it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from isotypic import groups
from isotypic._words import RelaxMode
from isotypic.relaxation.domain import Domain
from isotypic.relaxation.fixed_input import FixedInput, components
from isotypic.relaxation.site import Site
from isotypic.relaxation.state import Relaxation, pixels

Module = TypeVar("Module", bound=nn.Module)
MODES = ("add", "gate", "concat")


class Concat(nn.Module):
    """v + U s([v, t] W) - U s([v, 0] W) on the channels: a network of both that is v itself, bit by bit, where t = 0."""

    def __init__(self, channels: int, fixed_channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels + fixed_channels, 2 * channels)
        self.second = nn.Linear(2 * channels, channels, bias=False)

    def forward(self, value: Tensor, fixed: Tensor, axis: int) -> Tensor:
        """fixed: as many axes as the value, of its sizes but for the channels, which lie on `axis`."""
        value, fixed = value.movedim(axis, -1), fixed.movedim(axis, -1)

        def branch(other: Tensor) -> Tensor:
            return self.second(nn.functional.silu(self.first(torch.cat([value, other], -1))))

        return (value + (branch(fixed) - branch(torch.zeros_like(fixed)))).movedim(-1, axis)


class Equivariant:
    """`model.equivariant`: a call gives the context in which all fixed inputs are zero. An object, because it has to be pickled."""

    def __init__(self, relaxation: Relaxation) -> None:
        self.relaxation = relaxation

    def __call__(self) -> Any:
        return self.relaxation.equivariant()


class Begin:
    """Before the model runs: keeps its inputs for the functions that give coordinates."""

    def __init__(self, relaxation: Relaxation) -> None:
        self.relaxation = relaxation

    def __call__(self, model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.relaxation.begin((arguments, keywords))


class End:
    """After the model has run: forgets its inputs, and which tasks kept their fixed inputs."""

    def __init__(self, relaxation: Relaxation) -> None:
        self.relaxation = relaxation

    def __call__(self, model: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self.relaxation.end()


class Entrance:
    """At a site: the output of the submodule with the fixed input in it."""

    def __init__(
        self, name: str, model: nn.Module, relaxation: Relaxation, fixed: FixedInput, site: Site, declared: bool, mode: RelaxMode
    ) -> None:
        self.name, self.model, self.relaxation, self.fixed, self.mode = name, model, relaxation, fixed, mode
        # What the model declares is asked of it again in each call: its functions may be bound to it, and a copy has its own.
        self.site = None if declared else site
        self.index = site.output
        self.mixer = relaxation.mixers[key(name)] if mode == "concat" else None
        # Components of the place that a scalar of the fixed input acts on alike.
        self.alike = len(components("relax", site.representation, fixed.dim_x)) - len(fixed.components)

    def coordinates(self, value: Tensor) -> Any:
        site = self.site or Site(*_sites(self.model)[self.name])
        if site.coordinates == "pixels":
            # A constant has no coordinates of its own, and is spread over whatever axes there are.
            axes = self.fixed.dim_x or value.dim() - 2 - len(self.fixed.components)
            return pixels(value.shape[value.dim() - axes :], value)
        if site.coordinates is None:
            return None
        assert callable(site.coordinates)
        # A site that knows its coordinates itself needs no inputs, and works in any method of the model.
        arguments, keywords = self.relaxation.call or ((), {})
        return site.coordinates(*arguments, **keywords)

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if self.relaxation.strict or isinstance(output, fx.Proxy):  # a graph of fx calls the submodule, with its hooks
            return None
        if self.index is None:
            return self.enter(output)
        return (*output[: self.index], self.enter(output[self.index]), *output[self.index + 1 :])

    def enter(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise TypeError(f"relax: the output of site {self.name!r} must be a torch.Tensor, got {type(output).__name__}; see Site.output")
        fixed, axes = self.relaxation.fixed_values(self.fixed, self.coordinates(output), output)
        if self.alike > 0:
            fixed = fixed.reshape(*fixed.shape[: fixed.dim() - axes], *(1,) * self.alike, *fixed.shape[fixed.dim() - axes :])
        axis = output.dim() - axes - self.alike - len(self.fixed.components) - 1
        self.check(fixed, output, axis)
        if self.mode == "add":
            return output + fixed
        if self.mode == "gate":
            return output * (1 + fixed)
        assert self.mixer is not None
        sizes = list(output.shape)
        sizes[axis] = self.fixed.channels
        return self.mixer(output, fixed.expand(sizes), axis)

    def check(self, fixed: Tensor, output: Tensor, axis: int) -> None:
        """Raises unless the fixed input broadcasts to the output without changing its shape, with the same channels."""
        mixed = self.mode == "concat"
        sizes = [1] * (output.dim() - fixed.dim()) + list(fixed.shape)
        fits = axis >= 0 and len(sizes) == output.dim()
        for place, (found, expected) in enumerate(zip(sizes, output.shape, strict=False)):
            fits = fits and (found == expected or (found == 1 and place != axis) or (mixed and place == axis))
        if not fits:
            raise ValueError(
                f"relax: the fixed input at {self.name!r} must fit the output of that module, {tuple(output.shape)}, got "
                f"{tuple(fixed.shape)}: channels={self.fixed.channels}, representation={self.fixed.representation!r}"
            )


def key(name: str) -> str:
    """The name of a site as a key of nn.ModuleDict, which takes no dots."""
    return name.replace(".", "/")


def _sites(model: nn.Module) -> Mapping[str, Any]:
    sites = getattr(model, "relax_sites", {})
    return sites() if callable(sites) else sites


def _check_input(name: str, fixed: Any, site: Site, declared: bool, domain: Domain | None, mode: RelaxMode) -> None:
    if not isinstance(fixed, FixedInput):
        raise TypeError(f"relax: at[{name!r}] must be a FixedInput or a pair of one and its coordinates, got {type(fixed).__name__}")
    if domain is not None and fixed.dim_x and domain.dim_x != fixed.dim_x:
        raise ValueError(f"relax: the domain has {domain.dim_x} axes, and the fixed input at {name!r} has dim_x={fixed.dim_x}")
    if site.coordinates is None and fixed.dim_x:
        raise ValueError(
            f'relax: {name!r} needs coordinates: at={{{name!r}: (fixed_input, function of the inputs of the model)}}, or "pixels"'
        )
    if mode != "concat" and site.channels is not None and site.channels != fixed.channels:
        raise ValueError(f"relax: {name!r} has channels={site.channels}, got a fixed input with channels={fixed.channels}")
    there, here = _same(site.representation), _same(fixed.representation)
    if mode == "gate":
        # A product is equivariant with scalars, and entry by entry in a representation by permutations.
        allowed = here == "scalar" or (here == there and there not in ("vector", "multivector"))
    elif mode == "concat":
        allowed = here == there and there not in ("vector", "multivector")
    else:
        allowed = here == there
    if not allowed:
        raise ValueError(
            f"relax: mode {mode!r} cannot join a fixed input of representation {fixed.representation!r} to {name!r}, which holds "
            f"{site.representation!r}, and stay equivariant"
        )


def _same(representation: str) -> str:
    """The representation by one name: groups by their keys."""
    return representation if representation in ("scalar", "vector", "multivector") else groups.get(representation).key


def _parse(model: nn.Module, name: str, entry: Any) -> tuple[FixedInput, Site, bool]:
    """The fixed input, its site and whether the model declares it."""
    declared = _sites(model)
    if isinstance(entry, tuple) and not isinstance(entry, Site):
        if len(entry) != 2:
            raise ValueError(f"relax: at[{name!r}] must be a FixedInput or a pair of one and its coordinates, got {len(entry)} entries")
        fixed, place = entry
        return fixed, place if isinstance(place, Site) else Site(place, None, getattr(fixed, "representation", "scalar")), False
    if name in declared:
        return entry, Site(*declared[name]), True
    if isinstance(entry, FixedInput) and entry.dim_x == 0:
        return entry, Site(None, None, entry.representation), False
    known = ", ".join(map(repr, declared)) or "none"
    raise ValueError(
        f"relax: {name!r} needs coordinates, at={{{name!r}: (fixed_input, coordinates)}}; the model itself names the sites {known}"
    )


def relax(
    model: Module,
    at: Mapping[str, Any] | None = None,
    domain: Domain | None = None,
    p: float = 0.5,
    mode: RelaxMode = "add",
) -> Module:
    """Makes an equivariant network approximately equivariant: at each site v becomes v + t, v (1 + t) or a network of v and t.

    The fixed inputs t = t(x) are functions of the place that do not move with the data, zero at the start, zero outside the domain. In
    training, one draw for each task (entry of the batch) sets all of them to zero with probability p, without rescaling, so that the strict
    part learns too. The model is changed in place and returned, with two attributes more: `with model.equivariant():` sets all t to zero,
    and `model.relaxation` holds the fixed inputs, the domain and p. Any layer inside that brings fixed inputs of its own
    (`nn.RelaxedGroupConv2d`) joins: its domain, dropout and strictness are those given here.

    Args:
        model: an equivariant network, called as a whole (`model(...)`).
        at: fixed inputs by the names of the submodules whose outputs they enter, as `named_modules` has them. Names in
            `model.relax_sites` take a `FixedInput`; any others a pair of it and of the coordinates: a function of the inputs of the
            model, "pixels", or a `Site`.
        domain: `Box`, `Mask` or `Density`; None: everywhere.
        p: from 0 to 1.
        mode: "add"; "gate" (with scalars, or the same regular fields); "concat" (scalars and regular fields).

    A relaxed model is pickled with the functions that give its coordinates, so that these have to be functions of a module.

    Raises ValueError for names, sizes, modes and representations that do not fit, and for a model that is relaxed already; TypeError for an
    entry that is no fixed input.

    M. Ashman et al., "Approximately Equivariant Neural Processes", 2024.

    >>> from isotypic import nn as inn
    >>> net = nn.Sequential(inn.LiftConv2d(1, 4, 3, "p4", padding=1), nn.ReLU(), inn.GroupPool("max"))
    >>> net = relax(net, {"0": (FixedInput(2, 4, "p4"), "pixels")}, domain=None)
    >>> with net.equivariant():
    ...     net(torch.zeros(2, 1, 5, 5)).shape
    torch.Size([2, 4, 5, 5])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"relax: model must be an nn.Module, got {type(model).__name__}")
    if domain is not None and not isinstance(domain, Domain):
        raise TypeError(f"relax: domain must be Box, Mask, Density or None, got {type(domain).__name__}")
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise ValueError(f"relax: p must be a number in [0, 1], got {p!r}")
    if mode not in MODES:
        raise ValueError(f"relax: mode must be one of {', '.join(MODES)}, got {mode!r}")
    if any(hasattr(model, name) for name in ("relaxation", "equivariant")):
        raise ValueError("relax: the model is relaxed already, or has an attribute 'relaxation' or 'equivariant' of its own")
    if at is not None and not isinstance(at, Mapping):
        raise TypeError(f"relax: at must be a mapping from the names of submodules to fixed inputs, got {type(at).__name__}")
    at = dict(at or {})
    joining = [module for module in model.modules() if isinstance(getattr(module, "relaxation", None), Relaxation)]
    if other := [type(module).__name__ for module in joining if not hasattr(module, "join")]:
        raise ValueError(f"relax: a submodule is relaxed already, {other[0]}; relax the whole model at once")
    if not at and not joining:
        known = ", ".join(map(repr, _sites(model))) or "none"
        raise ValueError(f"relax: at must name a site; the model itself names {known}")
    modules = dict(model.named_modules())
    entries: dict[str, tuple[FixedInput, Site, bool]] = {}
    for name, entry in at.items():
        if name not in modules or name == "":
            raise ValueError(f"relax: at names no submodule of the model: {name!r}; it has {', '.join(map(repr, list(modules)[1:40]))}")
        entries[name] = _parse(model, name, entry)
        fixed, site, declared = entries[name]
        _check_input(name, fixed, site, declared, domain, mode)
        if mode == "concat" and site.channels is None:
            raise ValueError(
                f'relax: mode "concat" needs the channels of {name!r}: at={{{name!r}: (fixed_input, Site(coordinates, channels))}}'
            )
    parameter = next(model.parameters(), None)
    relaxation = Relaxation({key(name): fixed for name, (fixed, _, _) in entries.items()}, domain, float(p))
    for name, (fixed, site, _) in entries.items():
        if domain is not None:
            fixed.scale_to(domain.lo, domain.hi)
        if mode == "concat":
            assert site.channels is not None
            relaxation.mixers[key(name)] = Concat(site.channels, fixed.channels)
    relaxation.train(model.training)
    if parameter is not None:
        relaxation.to(parameter.device, parameter.dtype if parameter.is_floating_point() else None)
    for layer in joining:
        layer.join(relaxation)  # type: ignore[operator]
    model.relaxation = relaxation
    model.equivariant = Equivariant(relaxation)  # type: ignore[assignment]
    handles = [model.register_forward_pre_hook(Begin(relaxation), prepend=True, with_kwargs=True)]
    for name, (fixed, site, declared) in entries.items():
        entrance = Entrance(name, model, relaxation, fixed, site, declared, mode)
        handles.append(modules[name].register_forward_hook(entrance))
    handles.append(model.register_forward_hook(End(relaxation)))
    # Unpickled handles make sure that hooks which are registered later get other numbers.
    relaxation.handles = handles  # type: ignore[assignment]
    return model
