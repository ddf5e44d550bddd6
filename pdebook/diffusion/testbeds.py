"""Problems that all chapters of the part measure on: exact mixtures in two, four and 64 dimensions, and the shipped network."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pdebook.data.digits import digits
from pdebook.diffusion.exact import GaussianMixture
from pdebook.diffusion.schedules import NoiseSchedule, VPLinear
from pdebook.rng import normal


@dataclass(frozen=True)
class TestBed:
    """A distribution, its schedule and the range of times on which samplers are compared.

    Attributes:
        name: name in the tables.
        mixture: the exact distribution.
        schedule: noise schedule.
        end: last time.
    """

    __test__ = False

    name: str
    mixture: GaussianMixture
    schedule: NoiseSchedule
    end: float

    def initial(
        self, batch: int, *, seed: int = 0, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
    ) -> Tensor:
        """Standard normal samples at ``schedule.t_max``; sample i does not depend on the batch."""
        return normal(seed, torch.arange(batch), (self.mixture.dim,), dtype=dtype, device=torch.device(device))


def ring2d(modes: int = 8, std: float = 0.15, schedule: NoiseSchedule | None = None) -> TestBed:
    """Equal-weight isotropic Gaussians on the unit circle, in float64: smooth, not Gaussian, cheap. For orders of convergence."""
    angle = 2.0 * torch.pi * torch.arange(modes, dtype=torch.float64) / modes
    means = torch.stack([angle.cos(), angle.sin()], 1)
    mixture = GaussianMixture(
        torch.ones(modes, dtype=torch.float64), means, torch.full((modes,), std**2, dtype=torch.float64)
    )
    return TestBed("ring2d", mixture, VPLinear() if schedule is None else schedule, 1e-2)


def gauss(variance: float, schedule: NoiseSchedule | None = None) -> TestBed:
    """One Gaussian in four dimensions, mean (0.5, -0.3, 0.8, 0); variance 0 is a point mass. The flow is known in closed form."""
    mean = torch.tensor([[0.5, -0.3, 0.8, 0.0]], dtype=torch.float64)
    mixture = GaussianMixture(torch.ones(1, dtype=torch.float64), mean, torch.tensor([variance], dtype=torch.float64))
    return TestBed(f"gauss({variance:g})", mixture, VPLinear() if schedule is None else schedule, 1e-3)


@cache
def digits_gm() -> TestBed:
    """Ten Gaussians fitted to the classes of scikit-learn's digits: 64 dimensions, exact score, exact classes.

    Means and covariances of the classes with 5e-4 added to the diagonal, weights the class frequencies.
    """
    images, labels = digits(dtype=torch.float64)
    images = images.flatten(1)
    means, covariances, weights = [], [], []
    for k in range(10):
        members = images[labels == k]
        means.append(members.mean(0))
        covariances.append(torch.cov(members.T) + 5e-4 * torch.eye(64, dtype=torch.float64))
        weights.append(len(members) / len(images))
    mixture = GaussianMixture(torch.tensor(weights, dtype=torch.float64), torch.stack(means), torch.stack(covariances))
    return TestBed("digits_gm", mixture, VPLinear(), 1e-3)
