"""Small problems with reference solutions, for all tests of the package."""

import torch
from torch import Tensor, nn

from pdebook.rng import normal


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    """θ'' = -sin θ."""
    return torch.stack([y[:, 1], -y[:, 0].sin()], 1)


def pendulum_start() -> Tensor:
    """Two pendulums."""
    return torch.tensor([[1.5, 0.0], [0.3, 1.2]], dtype=torch.float64)


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    """Van der Pol's oscillator, μ = 10."""
    return torch.stack([y[:, 1], 10.0 * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1)


def robertson(t: Tensor, y: Tensor) -> Tensor:
    """Robertson's stiff reaction."""
    a, b, c = y.unbind(1)
    return torch.stack([-0.04 * a + 1e4 * b * c, 0.04 * a - 1e4 * b * c - 3e7 * b * b, 3e7 * b * b], 1)


class Network(nn.Module):
    """A smooth field with parameters that depends on time."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size + 1, 8), nn.Linear(8, size)
        self.double()
        for k, p in enumerate(self.parameters()):
            with torch.no_grad():
                p.copy_(normal(11, torch.arange(1), tuple(p.shape), index=k, dtype=torch.float64)[0] * 0.5)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """One hidden layer."""
        return self.outer(self.inner(torch.cat([y, t[:, None]], 1)).tanh())
