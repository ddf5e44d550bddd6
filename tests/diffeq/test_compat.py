"""The adaptors: signatures, shapes and values of torchdiffeq's and torchsde's functions."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdebook.diffeq.brownian import BrownianTree
from pdebook.diffeq.compat import ODE_METHODS, SDE_METHODS, odeint, sdeint

T = torch.linspace(0.0, 1.0, 5).double()


@pytest.mark.parametrize("method", ODE_METHODS)
def test_odeint(method: str) -> None:
    options: dict[str, Any] = {"step_size": 1e-3} if method in ("euler", "midpoint") else {}
    ys = odeint(lambda t, y: -y * t, torch.ones(2, 3).double(), T, method=method, **options)
    assert ys.shape == (5, 2, 3)
    goal = (-0.5 * T**2).exp()[:, None, None].expand(5, 2, 3)
    torch.testing.assert_close(ys, goal, rtol=0, atol=1e-3 if method in ("euler", "rk4") else 1e-6)


def test_odeint_of_a_tuple_backwards_and_with_gradients() -> None:
    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(-1.0).double())

        def forward(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return self.rate * y[0], y[0].sum().reshape(1)

    field = Field()
    y, total = odeint(field, (torch.ones(2, 2).double(), torch.zeros(1).double()), T)
    assert y.shape == (5, 2, 2)
    assert float(total[-1].detach()) == pytest.approx(4 * (1 - math.exp(-1)), rel=1e-6)
    y[-1].sum().backward()
    assert float(field.rate.grad) == pytest.approx(4 * math.exp(-1), rel=1e-6)
    back = odeint(lambda t, y: -y, torch.ones(2).double(), T.flip(0))
    assert float(back[-1, 0]) == pytest.approx(math.e, rel=1e-6)


class Geometric:
    """dy = y/2 dt + 0.8 y dW in torchsde's manner."""

    def __init__(self, noise: str, calculus: str) -> None:
        self.noise_type, self.sde_type = noise, calculus

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.5 * y

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.8 * y if self.noise_type == "diagonal" else 0.8 * y[..., None]


@pytest.mark.parametrize("noise", ["diagonal", "scalar"])
@pytest.mark.parametrize(("calculus", "method"), [*SDE_METHODS, ("ito", None), ("stratonovich", None)])
def test_sdeint(noise: str, calculus: str, method: str | None) -> None:
    ts = torch.tensor([0.0, 0.3, 1.0]).double()
    path = BrownianTree(1, 0.0, 1.0, (1,), tolerance=1e-3, samples=200, space_time=True)
    y = sdeint(Geometric(noise, calculus), torch.ones(200, 1).double(), ts, bm=path, method=method, dt=0.01)
    assert y.shape == (3, 200, 1)
    drift = 0.5 - (0.32 if calculus == "ito" else 0.0)
    for k in (1, 2):
        goal = (drift * ts[k] + 0.8 * path.value(float(ts[k]))).exp()
        assert float((y[k] - goal).abs().mean()) < (0.12 if method == "euler" else 0.03)
    # Without a path, one of the seed.
    a, b, c = (sdeint(Geometric(noise, calculus), torch.ones(3, 1).double(), ts, dt=0.1, seed=s) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    # It resolves the smallest step, which from 0.2 to 0.3 and from 0.9 to 1 is 0.1.
    own = BrownianTree(1, 0.0, 1.0, (1,), tolerance=0.04, samples=3, space_time=calculus == "ito")
    given = sdeint(Geometric(noise, calculus), torch.ones(3, 1).double(), ts, dt=0.1, bm=own)
    torch.testing.assert_close(a, given, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: odeint(lambda t, y: y, torch.ones(2), T, method="rk5"), "method must be one of dopri8"),
        (lambda: odeint(lambda t, y: y, torch.ones(2), T[:1]), "t must be a tensor of at least two"),
        (lambda: odeint(lambda t, y: y, torch.ones(2), T[[0, 2, 1]]), "t must rise or fall"),
        (lambda: odeint(lambda t, y: y, torch.tensor(1.0), T), "y0 must have at least one axis"),
        (
            lambda: sdeint(Geometric("diagonal", "ito"), torch.ones(2, 1), T, method="heun"),
            "method must be one of euler",
        ),
        (lambda: sdeint(Geometric("diagonal", "ito"), torch.ones(2, 1), T, dt=0.0), "dt must be positive"),
        (lambda: sdeint(Geometric("diagonal", "ito"), torch.ones(2, 1), T.flip(0)), "ts must hold at least two rising"),
    ],
)
def test_bad_input(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
