"""Forecasts: exact flows, the loss, and batches that grow."""

import pytest
import torch
from torch import Tensor

from pdebook.diffeq.forecasts import forecast, forecast_loss, growing_horizon
from pdebook.diffeq.neural_differential_equations import HybridField
from pdebook.nn.mlp import MLP

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_forecast_hits_the_times_and_substeps_refine_it() -> None:
    y, times = normal(4, 2), torch.tensor([0.5, 0.7, 1.5, 1.6], dtype=F64)
    rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)

    def error(substeps: int) -> float:
        result = forecast(lambda t, y: y @ rotation.T, y, times, substeps=substeps)
        exact = torch.stack([y @ torch.linalg.matrix_exp(float(t - times[0]) * rotation).T for t in times], 1)
        assert torch.equal(result[:, 0], y)
        return float((result - exact).abs().max())

    # Fourth order: halving the steps divides the error by 16, up to the next order.
    assert 12 < error(1) / error(2) < 20


def test_forecast_loss_is_the_mean_square_from_the_first_state() -> None:
    field, times, data = HybridField(MLP(2, 2, width=4)).double(), torch.linspace(0, 1, 5, dtype=F64), normal(3, 5, 2)
    expected = ((forecast(field, data[:, 0], times) - data) ** 2).sum() / data.numel()
    torch.testing.assert_close(forecast_loss(field, (times, data)), expected)


def test_horizon_grows_linearly_from_first_to_all() -> None:
    times, data = torch.arange(21.0), torch.randn(4, 21, 2)
    batches = growing_horizon(times, data, first=5, over=100)
    lengths = [len(batches(0, step)[0]) - 1 for step in (0, 6, 7, 50, 99, 100, 1000)]
    assert lengths == [5, 5, 6, 12, 19, 20, 20]
    clock, cut = batches(0, 50)
    assert torch.equal(clock, times[:13])
    assert torch.equal(cut, data[:, :13])
    assert len(growing_horizon(times, data, first=5, over=0)(0, 0)[0]) == 21


@pytest.mark.parametrize(
    ("first", "over", "message"),
    [(0, 1, "first must be in 1 to 4"), (5, 1, "got 5 and 1"), (1, -1, "over not negative")],
)
def test_bad_horizons(first: int, over: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        growing_horizon(torch.arange(5.0), torch.zeros(1, 5, 2), first=first, over=over)
