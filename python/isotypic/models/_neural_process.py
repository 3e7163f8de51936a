"""What all neural processes share: inputs of every kind, a Gaussian for each target, log-likelihoods and samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isotypic.models import _frames
from isotypic.models._point_sets import PointSet, Targets, as_sets, pad, read_context, read_targets, widths
from isotypic.nn._arguments import positive, positive_number, same_dtype
from isotypic.nn.processes.site import relax_sites
from isotypic.ops._checks import is_integer
from isotypic.ops._launch import HALF

Prediction = tuple[Any, Any]


class NeuralProcess(nn.Module):
    """A map from context sets and target positions to a Gaussian for each target, p(y_t | x_t, context).

    A model defines `represent(contexts, targets)`, (B, M, 2 dim_out): mean and raw variance of each output.

    Inputs of `predict`, which is also what calling the model does:
        xc, yc: (B, N, dim_x) and (B, N, dim_y), or lists of one (N_i, ...) for each task. With several context sets,
            dim_y=(2, 1), tuples of one such input for each set.
        xt: (B, M, dim_x), or a list; then mean and variance are lists too.
        lengths: (B,), the number of points of each task where xc is padded; a tuple for several sets.
        context_features, target_features: auxiliary inputs (B, N, dim_features) and (B, M, dim_features), which do not move with the
            positions.
        missing: NaN in yc (and in yt of `loglik`) stands for a value that is missing. Otherwise it is refused.
    Without any point in the context the model gives its prior.
    """

    def __init__(self, dim_x: int, dim_y: int | tuple[int, ...], dim_features: int, min_variance: float) -> None:
        super().__init__()
        owner = type(self).__name__
        positive(owner, dim_x=dim_x)
        positive_number(owner, min_variance=min_variance)
        if not is_integer(dim_features) or dim_features < 0:
            raise ValueError(f"{owner}: dim_features must be an integer of at least 0, got {dim_features!r}")
        self.dim_x, self.dims_y, self.dim_features, self.min_variance = dim_x, widths(owner, "dim_y", dim_y), dim_features, min_variance
        self.dim_out = self.dims_y[0]

    @property
    def relax_sites(self) -> dict[str, tuple[Any, int, str]]:
        """Where `isotypic.relax` may add a fixed input: name of the module -> (coordinates, channels, representation)."""
        return relax_sites(self)

    def represent(self, contexts: list[PointSet], targets: Targets) -> Tensor:
        """(B, M, 2 dim_out)"""
        raise NotImplementedError

    def forward(self, xc: Any, yc: Any, xt: Any, **settings: Any) -> Prediction:
        """The same as `predict`, which goes through here, so that hooks see every call."""
        contexts, targets = self._read(xc, yc, xt, **settings)
        mean, raw = self.represent(contexts, targets).chunk(2, -1)
        variance = self.min_variance + F.softplus(raw)
        if targets.counts is not None:
            return (
                [m[:n] for m, n in zip(mean, targets.counts, strict=True)],
                [v[:n] for v, n in zip(variance, targets.counts, strict=True)],
            )
        return mean, variance

    if TYPE_CHECKING:
        __call__ = forward

    def _read(
        self,
        xc: Any,
        yc: Any,
        xt: Any,
        *,
        lengths: Any = None,
        context_features: Any = None,
        target_features: Any = None,
        missing: bool = False,
    ) -> tuple[list[PointSet], Targets]:
        owner, sets = type(self).__name__, len(self.dims_y)
        targets = read_targets(owner, xt, self.dim_x, target_features, self.dim_features)
        entries = [as_sets(owner, name, value, sets) for name, value in (("xc", xc), ("yc", yc))]
        optional = [
            (None,) * sets if value is None else as_sets(owner, name, value, sets)
            for name, value in (("lengths", lengths), ("context_features", context_features))
        ]
        contexts = []
        for i, (x, y, length, features) in enumerate(zip(*entries, *optional, strict=True)):
            suffix = f"[{i}]" if sets > 1 else ""
            context = read_context(owner, x, y, self.dim_x, self.dims_y[i], length, features, self.dim_features, missing, suffix)
            if context.x.shape[0] != targets.x.shape[0]:
                raise ValueError(
                    f"{owner}: xc{suffix} and xt must have the same number of tasks, got {context.x.shape[0]} and {targets.x.shape[0]}"
                )
            if context.x.dtype != targets.x.dtype or context.x.device != targets.x.device:
                raise TypeError(f"{owner}: xc{suffix} and xt must have one dtype and device, got {context.x.dtype} and {targets.x.dtype}")
            self._check_dtypes(context, suffix)
            contexts.append(context)
        if targets.features is not None:
            same_dtype(owner, "target_features", targets.features, next(self.parameters(), None))
        return contexts, targets

    def _check_dtypes(self, context: PointSet, suffix: str) -> None:
        """Positions (whose dtype the targets share), values and features are of the parameters' dtype; 16 bits see positions of 32 too."""
        owner, parameter = type(self).__name__, next(self.parameters(), None)
        if parameter is not None and not (context.x.dtype == torch.float32 and parameter.dtype in HALF):
            same_dtype(owner, "xc" + suffix, context.x, parameter)
        same_dtype(owner, "yc" + suffix, context.y, parameter)
        if context.features is not None:
            same_dtype(owner, "context_features" + suffix, context.features, parameter)

    def predict(self, xc: Any, yc: Any, xt: Any, **settings: Any) -> Prediction:
        """Mean and variance of each target, (B, M, dim_out) each."""
        return self(xc, yc, xt, **settings)

    def loglik(self, xc: Any, yc: Any, xt: Any, yt: Any, **settings: Any) -> Tensor:
        """(B,): log p(yt | xt, context) of each task, in nats, summed over the outputs and divided by the number of targets."""
        owner = type(self).__name__
        mean, variance = self(xc, yc, xt, **settings)
        there: Tensor | None = None
        if isinstance(mean, list):
            if not isinstance(yt, list) or [t.shape[0] for t in yt] != [m.shape[0] for m in mean]:
                raise ValueError(f"{owner}: yt must be a list with as many targets for each task as xt")
            (mean, there), (variance, _) = pad(mean), pad(variance)
            variance = variance.masked_fill(~there[..., None], 1.0)
            yt = pad([t[:, None] if t.dim() == 1 else t for t in yt])[0]
        if not isinstance(yt, Tensor) or yt.shape != mean.shape:
            raise ValueError(
                f"{owner}: yt must have shape {tuple(mean.shape)}, got {tuple(yt.shape) if isinstance(yt, Tensor) else type(yt).__name__}"
            )
        if not yt.is_floating_point() or (not torch.compiler.is_compiling() and bool(yt.isinf().any())):
            raise ValueError(f"{owner}: yt must be finite and of a floating-point dtype, got {yt.dtype}, {int(yt.isinf().sum())} infinite")
        found = ~yt.isnan()
        if not settings.get("missing", False):
            if not torch.compiler.is_compiling() and not bool(found.all()):
                raise ValueError(f"{owner}: yt must not have NaN, got {int((~found).sum())}; missing=True takes them for missing values")
        else:
            yt = yt.masked_fill(~found, 0)
        density = -0.5 * (math.log(2 * math.pi) + variance.log() + (yt - mean).square() / variance)
        valid = found if there is None else found & there[..., None]
        total = torch.where(valid, density, torch.zeros_like(density)).sum((1, 2))
        return total / valid.any(-1).sum(1).clamp(min=1)

    def sample(
        self,
        xc: Any,
        yc: Any,
        xt: Tensor,
        samples: int = 1,
        *,
        autoregressive: bool = False,
        order: Tensor | None = None,
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> Tensor:
        """(samples, B, M, dim_out): draws of the targets, independent of each other, or one after the other in a model that is
        `autoregressive`: each joins the context of those that follow, so that the draws have correlations and functions of their own.

        order: (M,), the targets in the order of being drawn; random by default.
        """
        owner = type(self).__name__
        positive(owner, samples=samples)
        if not isinstance(xt, Tensor):
            raise TypeError(f"{owner}: xt must be a torch.Tensor to sample at, got {type(xt).__name__}")
        with torch.no_grad():
            if not autoregressive:
                mean, variance = self(xc, yc, xt, **settings)
                noise = torch.randn(samples, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
                return mean + variance.sqrt() * noise
            return self._sample_in_turn(xc, yc, xt, samples, order, generator, settings)

    def _sample_in_turn(
        self, xc: Any, yc: Any, xt: Tensor, samples: int, order: Tensor | None, generator: torch.Generator | None, settings: dict[str, Any]
    ) -> Tensor:
        owner, device = type(self).__name__, xt.device
        contexts, targets = self._read(xc, yc, xt, **settings)
        batch, count, _ = targets.x.shape
        if order is None:
            order = torch.randperm(count, device=device, generator=generator)
        if sorted(order.tolist()) != list(range(count)):
            raise ValueError(f"{owner}: order must be a permutation of the M={count} targets, got shape {tuple(order.shape)}")

        def repeat(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.repeat(samples, *(1,) * (tensor.dim() - 1))

        # The first set grows by a point that all tasks have.
        sets = [PointSet._make(repeat(t) for t in context) for context in contexts]
        first, others = sets[0], sets[1:]
        x, features = repeat(targets.x), repeat(targets.features)
        assert x is not None
        drawn = x.new_zeros(samples * batch, count, self.dim_out)
        for target in order.tolist():
            here = slice(target, target + 1)
            at = Targets(x[:, here], None, None if features is None else features[:, here], None)
            mean, raw = self.represent([first, *others], at).chunk(2, -1)
            noise = torch.randn(mean.shape, dtype=mean.dtype, device=device, generator=generator)
            value = mean + (self.min_variance + F.softplus(raw)).sqrt() * noise
            drawn[:, here] = value
            known = at.features is not None and first.features is not None
            first = PointSet(
                torch.cat([first.x, at.x], 1),
                torch.cat([first.y, value], 1),
                torch.cat([first.present, torch.ones_like(value)], 1),
                None if first.mask is None else F.pad(first.mask, (0, 1), value=True),
                torch.cat([first.features, at.features], 1) if known else None,  # type: ignore[list-item]
            )
        return drawn.unflatten(0, (samples, batch))

    def predict_frame(self, context: Any, targets: Any, *, inputs: Any, outputs: Any, features: Any = ()) -> Any:
        """`predict` on pandas or xarray: mean and variance in the kind of object that `targets` is.

        Args:
            context: a `pandas.DataFrame`, or an `xarray.Dataset` or `DataArray`, one task; missing values may be NaN.
            targets: where to predict, likewise; its values are not read.
            inputs: names of the dim_x columns or coordinates; outputs: names of the dim_y columns or variables.
            features: names of the dim_features columns of auxiliary inputs, in both.

        Returns: mean and variance: a DataFrame with the index of `targets` and the columns `outputs`, or a Dataset with its axes, in their
        order, its coordinates, and the variables `outputs`.
        """
        return _frames.predict_frame(self, context, targets, inputs, outputs, features)
