"""A Gaussian process whose length scale changes at one place, and the best prediction that there is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isotypic.data.processes.tasks import Tasks


class GibbsProcess:
    """Tasks of a Gaussian process with the Gibbs kernel: stationary but for the place 0, where its length scale jumps.

        k(x, x') = sqrt(2 l l' / (l^2 + l'^2)) exp(-(x - x')^2 / (l^2 + l'^2)),   l = l(x): short on one side of 0, long on the other

    On which side is random in each task. The observations have independent noise. Contexts lie in an interval of length 4, targets in the
    one of length 6 about the same centre, U[-7, 7] in the domain and U[13, 27] outside.

    `log_density` is the exact answer: no model's mean log-likelihood can be above that of this oracle, which is -0.458 in the domain and
    -0.440 outside for the settings here (20,480 tasks each; standard errors 0.003 and 0.004).

    Args:
        short, long: length scales; noise: its standard deviation; num_targets: of a task; max_context: contexts have 1 to that many points.

    M. Ashman et al., "Approximately Equivariant Neural Processes", 2024; M. Gibbs, "Bayesian Gaussian Processes for Regression and
    Classification", 1997.

    >>> tasks = GibbsProcess().sample(3, num_context=5, generator=torch.Generator().manual_seed(0))
    >>> tasks.xc.shape, tasks.yt.shape
    (torch.Size([3, 5, 1]), torch.Size([3, 128, 1]))
    """

    def __init__(self, short: float = 0.1, long: float = 4.0, noise: float = 0.2, num_targets: int = 128, max_context: int = 64) -> None:
        for name, value in (("short", short), ("long", long), ("noise", noise)):
            if not 0 < value < math.inf:
                raise ValueError(f"GibbsProcess: {name} must be positive and finite, got {value!r}")
        self.short, self.long, self.noise, self.num_targets, self.max_context = short, long, noise, num_targets, max_context

    def covariance(self, x: Tensor, other: Tensor, right: Tensor) -> Tensor:
        """(B, N), (B, M) to (B, N, M), without noise; right (B,): whether the long side is x > 0."""

        def scale(x: Tensor) -> Tensor:
            return torch.where((x > 0) == right[:, None], x.new_tensor(self.long), x.new_tensor(self.short))

        a, b = scale(x)[:, :, None], scale(other)[:, None, :]
        total = a.square() + b.square()
        return (2 * a * b / total).sqrt() * (-(x[:, :, None] - other[:, None, :]).square() / total).exp()

    def sample(
        self,
        tasks: int,
        num_context: int | None = None,
        *,
        outside: bool = False,
        centre: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tasks:
        """Tasks in float64.

        num_context: of every task, by default one draw of U{1, ..., max_context} for all. centre: of all intervals, random by default.
        """

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(*shape, dtype=torch.float64, generator=generator)

        if num_context is None:
            num_context = int(torch.randint(1, self.max_context + 1, (), generator=generator))
        middle = uniform(13, 27, tasks, 1) if outside else uniform(-7, 7, tasks, 1)
        if centre is not None:
            middle = torch.full_like(middle, centre)
        x = torch.cat([middle + uniform(-2, 2, tasks, num_context), middle + uniform(-3, 3, tasks, self.num_targets)], 1)
        right = torch.rand(tasks, generator=generator) < 0.5
        factor = torch.linalg.cholesky(self.noisy(x, right))
        y = factor @ torch.randn(tasks, x.shape[1], 1, dtype=torch.float64, generator=generator)
        x = x[..., None]
        return Tasks(x[:, :num_context], y[:, :num_context], x[:, num_context:], y[:, num_context:])

    def noisy(self, x: Tensor, right: Tensor) -> Tensor:
        """The covariance (B, N, N) of observations."""
        return self.covariance(x, x, right) + self.noise**2 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

    def evaluation(self, sets: int = 64, tasks: int = 16, *, outside: bool = False, seed: int = 0) -> list[Tasks]:
        """A fixed set of tasks, the numbers of context points spread evenly over 1 ... max_context, so that a small set is a fair one."""
        generator = torch.Generator().manual_seed(seed)
        counts = torch.linspace(1, self.max_context, sets).round().int().tolist()
        return [self.sample(tasks, count, outside=outside, generator=generator) for count in counts]

    def log_density(self, tasks: Tasks, *, known: Tensor | None = None) -> Tensor:
        """(B, M): the logarithm of the predictive density of each target by Bayes' rule, over both orientations.

        known: (B,) bool, the orientation where it is given.
        """
        xc, yc, xt, yt = (tensor.double().squeeze(-1) for tensor in tasks)
        evidences, densities = [], []
        for side in (False, True):
            right = torch.full((len(xc),), side)
            factor = torch.linalg.cholesky(self.noisy(xc, right))
            whitened = torch.linalg.solve_triangular(factor, yc[..., None], upper=False)
            cross = torch.linalg.solve_triangular(factor, self.covariance(xc, xt, right), upper=False)
            mean = (cross.transpose(1, 2) @ whitened).squeeze(-1)
            variance = 1 + self.noise**2 - cross.square().sum(1)
            densities.append(-0.5 * (math.log(2 * math.pi) + variance.log() + (yt - mean).square() / variance))
            log_root = factor.diagonal(dim1=1, dim2=2).log().sum(1)
            evidences.append(-0.5 * whitened.square().sum((1, 2)) - log_root)
        if known is not None:
            return torch.where(known[:, None], densities[1], densities[0])
        weights = torch.log_softmax(torch.stack(evidences), 0)
        return torch.logsumexp(torch.stack(densities) + weights[..., None], 0)
