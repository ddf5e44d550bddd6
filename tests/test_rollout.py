"""Rollout: an oracle gives the exact trajectory; gradients, noise and bundles go where they should."""

import math

import pytest
import torch
from torch import nn

from pdebook.data.normalizers import Normalizer
from pdebook.rng import NoiseSource
from pdebook.rollout import gaussian_noise, rollout


def history(batch: int = 2, times: int = 3, channels: int = 2, size: tuple[int, ...] = (4,)) -> torch.Tensor:
    return torch.randn(batch, times, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def fibonacci(window: torch.Tensor) -> torch.Tensor:
    """u_{t+1} = u_t + 0.5 u_{t-1} for two channels: the order of times matters."""
    return window[:, -2:] + 0.5 * window[:, -4:-2]


def by_hand(start: torch.Tensor, steps: int) -> torch.Tensor:
    states = list(start.unbind(1))
    for _ in range(steps):
        states.append(states[-1] + 0.5 * states[-2])
    return torch.stack(states[-steps:], 1)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("chunk", [0, 1, 3])
@pytest.mark.parametrize("size", [(4,), (4, 3), (2, 3, 4)])
def test_a_known_recurrence(steps, chunk, size):
    start = history(size=size)
    torch.testing.assert_close(rollout(fibonacci, start, steps, chunk=chunk), by_hand(start, steps))


@pytest.mark.parametrize("steps", [1, 3, 4, 7])
def test_bundles_of_times(steps):
    start = history()
    bundled = lambda window: by_hand(window.unflatten(1, (3, 2)), 3).flatten(1, 2)  # noqa: E731
    for chunk in (0, 2):
        torch.testing.assert_close(rollout(bundled, start, steps, bundle=3, chunk=chunk), by_hand(start, steps))
    # A bundle may be longer than the history.
    longer = lambda window: torch.arange(1.0, 6)[None, :, None] + window[:, -1:]  # noqa: E731
    found = rollout(longer, torch.zeros(1, 2, 1, 1), 12, bundle=5)
    assert found.flatten().tolist() == list(range(1, 13))


def test_the_loop_runs_on_encoded_states_and_decodes_once():
    normalizer = Normalizer(2, dims=1).double()
    start = 5.0 + 3.0 * history()
    normalizer.update(start)
    seen = []

    def step(window):
        seen.append(window)
        return window[:, -2:]

    found = rollout(step, start, 3, encode=normalizer.encode, decode=normalizer.decode)
    torch.testing.assert_close(seen[0], normalizer.encode(start).flatten(1, 2))
    torch.testing.assert_close(found, start[:, -1:].expand(-1, 3, -1, -1))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.1).double())

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.factor * window


def test_gradient_calls_count_calls_and_not_times():
    """Six times in three calls of two: the last call's gradient alone."""
    model, start = Scale(), torch.ones(1, 2, 1, 1).double()
    found = rollout(model, start, 6, bundle=2, gradient_calls=1)
    assert found.shape[1] == 6
    found[:, -1].sum().backward()
    assert model.factor.grad.item() == pytest.approx(1.1**2)


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_gradient_flows_through_the_last_calls_alone(chunk):
    model, start = Scale(), torch.ones(1, 1, 1, 1).double()
    for calls, expected in ((None, 5 * 1.1**4), (5, 5 * 1.1**4), (2, 2 * 1.1**4), (1, 1.1**4), (9, 5 * 1.1**4)):
        model.zero_grad()
        found = rollout(model, start, 5, gradient_calls=calls, chunk=chunk)
        assert found[0, -1].item() == pytest.approx(1.1**5)
        found[:, -1].sum().backward()
        assert model.factor.grad.item() == pytest.approx(expected)
    assert not rollout(model, start, 5, gradient_calls=0, chunk=chunk).requires_grad


def test_gradient_reaches_the_start():
    start = history(1, 2, 1, (2,)).requires_grad_()
    step = lambda window: (window[:, 1:] * window[:, :1]).sin()  # noqa: E731
    assert torch.autograd.gradcheck(lambda u: rollout(step, u, 3), (start,))
    assert torch.autograd.gradcheck(lambda u: rollout(step, u, 3, chunk=2), (start,))


def test_chunks_save_memory():
    """What the backward pass holds: with chunks only the windows between them."""
    model = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Conv1d(4, 4, 1), nn.Tanh())])
    start, held = torch.randn(2, 1, 4, 32), {}
    for chunk in (0, 2):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            rollout(model, start, 8, chunk=chunk)
        held[chunk] = sum(saved)
    assert held[2] < 0.2 * held[0]


def test_free_calls_leave_running_statistics_alone():
    model, start = nn.BatchNorm1d(1), 3 + torch.randn(4, 1, 1, 8)
    rollout(model, start, 4, gradient_calls=0)
    assert model.num_batches_tracked == 0
    assert model.running_mean == 0
    rollout(model, start, 4, gradient_calls=1)
    assert model.num_batches_tracked == 1
    # Evaluation uses the running statistics in all calls.
    model.eval()
    mean, var = model.running_mean.clone(), model.running_var.clone()
    found = rollout(model, start, 1, gradient_calls=0)
    torch.testing.assert_close(found, (start - mean) / (var + 1e-5).sqrt())


def test_noise_goes_into_the_inputs_and_depends_on_sample_and_call_alone():
    start, noise = history(), gaussian_noise(0.1, seed=7)
    windows = []

    def step(window):
        windows.append(window)
        return window[:, -2:]

    found = rollout(step, start, 2, perturb=noise)
    expected = start.flatten(1, 2) + 0.1 * NoiseSource(7)(0, start.flatten(1, 2))
    torch.testing.assert_close(windows[0], expected)
    # The window keeps the clean history; the noise of the second call is another.
    torch.testing.assert_close(windows[1][:, :4], start[:, 1:].flatten(1, 2) + 0.1 * NoiseSource(7)(1, expected)[:, :4])
    torch.testing.assert_close(rollout(step, start[:1], 2, perturb=noise), found[:1])
    assert torch.equal(gaussian_noise(0, 1)(0, start), start)


def test_hook_replaces_the_prediction_that_is_fed_back():
    found = rollout(fibonacci, history(), 3, hook=lambda i, u: torch.full_like(u, float(i)))
    assert found[:, 0].unique().tolist() == [0]
    assert found[:, 2].unique().tolist() == [2]
    fed = rollout(lambda w: w[:, -2:], history(), 3, hook=lambda i, u: u + 1)
    torch.testing.assert_close(fed[:, 2], history()[:, -1] + 3)


H = torch.zeros(2, 3, 2, 4)
BAD = [
    (lambda: rollout(fibonacci, torch.zeros(2, 3, 4), 2), r"history must be \(batch, times, channels, \*grid\), got"),
    (lambda: rollout(fibonacci, H, 0), "steps and bundle must be at least 1, chunk not negative, got 0, 1 and 0"),
    (lambda: rollout(fibonacci, H, 1, bundle=0), "steps and bundle must be at least 1"),
    (lambda: rollout(fibonacci, H, 1, chunk=-1), "chunk not negative"),
    (lambda: rollout(fibonacci, H, 1, gradient_calls=-1), "gradient_calls must not be negative, got -1"),
    (
        lambda: rollout(fibonacci, H, 2, bundle=2),
        r"model must return 2 x 2 channels for inputs \(2, 6, 4\), got \(2, 2, 4\)",
    ),
    (lambda: rollout(lambda w: w[:, :2, :2], H, 2), r"model must return 1 x 2 channels .* got \(2, 2, 2\)"),
    (lambda: rollout(fibonacci, H[:, :0], 2), r"history must hold a time or more, got shape \(2, 0, 2, 4\)"),
    (
        lambda: rollout(lambda w: w[:, -2:], H, 2, hook=lambda i, p: p[..., :3]),
        r"hook must return shape \(2, 1, 2, 4\), got \(2, 1, 2, 3\)",
    ),
    (lambda: gaussian_noise(math.nan, 0), "std must not be negative, got nan"),
    (lambda: gaussian_noise(-0.1, 0), "std must not be negative, got -0.1"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
