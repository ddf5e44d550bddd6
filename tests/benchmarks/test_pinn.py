import math

import pytest
import torch

from pdebook.benchmarks import pinn
from pdebook.counting import parameter_count
from pdebook.nn.jets import laplacian

F64 = torch.float64


def points(count, dim):
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(0), dtype=F64)


def test_residuals_vanish_on_exact_solutions_and_not_on_wrong_ones():
    x = points(9, 2)
    assert float(pinn.advection(lambda z: torch.sin(z[..., 1:2] - 0.7 * z[..., 0:1]), x, 0.7).abs().max()) < 1e-14
    assert float(pinn.advection(lambda z: torch.sin(z[..., 1:2] + 0.7 * z[..., 0:1]), x, 0.7).abs().max()) > 0.1

    def front(z):
        # c - tanh((x - c t)/2ν), a viscous shock.
        return 0.3 - torch.tanh((z[..., 1:2] - 0.3 * z[..., 0:1]) / 0.2)

    assert float(pinn.burgers(front, x, 0.1).abs().max()) < 1e-13
    assert float(pinn.burgers(front, x, 0.2).abs().max()) > 0.1


def test_the_system_is_the_one_of_the_paper():
    x = points(5, 3)

    def field(z):
        t, a, b = (z[..., i : i + 1] for i in range(3))
        return torch.cat([torch.sin(a) * torch.cos(2 * b) * torch.exp(t), torch.cos(a) * t], -1)

    t, a, b = x.T
    u, v = torch.sin(a) * torch.cos(2 * b) * torch.exp(t), torch.cos(a) * t
    one = u - 1e-3 * (-5 * u) - (u - u**3 - 5e-3 - v)
    two = torch.cos(a) - 5e-3 * (-v) - (u - v)
    assert torch.allclose(pinn.diffusion_reaction(field, x), torch.stack([one, two], 1))
    assert laplacian(field, x, [1, 2]).shape == (5, 2)


def test_the_summed_loss_is_blind_and_the_vector_is_not():
    # v = 0 and the positive root of 2u - u³ - k = 0: r_1 = u, r_2 = -u, at all points and times.
    root = math.sqrt(2.0)
    for _ in range(50):
        root -= (2 * root - root**3 - 5e-3) / (2 - 3 * root**2)
    residuals = pinn.diffusion_reaction(lambda z: torch.cat([root + 0 * z[..., :1], 0 * z[..., :1]], -1), points(7, 3))
    assert float(pinn.mean_square(residuals, "sum")) < 1e-28
    assert float(pinn.mean_square(residuals)) == pytest.approx(2 * root**2)
    assert torch.allclose(residuals[:, 0], torch.tensor(root, dtype=F64))


def test_sound_solves_the_equations_with_a_pressure_gradient_that_pushes():
    def wave(z):
        p = torch.sin(3 * (z[..., 1:2] - z[..., 0:1]))
        return torch.cat([p, p], -1)

    def left(z):
        p = torch.cos(2 * (z[..., 1:2] + z[..., 0:1]))
        return torch.cat([p, -p], -1)

    for field in (wave, left):
        assert float(pinn.acoustics(field, points(7, 2)).abs().max()) < 1e-14
        assert float(pinn.acoustics(field, points(7, 2), -1.0).abs().max()) > 1


def test_the_network_has_pdebenchs_size_and_learns_an_easy_problem():
    model = pinn.network(2, 1)
    assert parameter_count(model) == 2 * 40 + 40 + 5 * (40 * 40 + 40) + 41
    small = pinn.network(2, 1, width=16, depth=2)

    def start(s):
        return torch.sin(2 * math.pi * s)

    history = pinn.train_pinn(
        small, lambda f, x: pinn.advection(f, x, 0.1), start, end=0.5, steps=600, points=(64, 16, 64), lr=1e-2
    )
    assert float(history.losses[-10:].mean()) < 0.3 * float(history.losses[:5].mean())


def test_the_loss_is_its_three_parts_over_the_whole_box(monkeypatch):
    seen, fit = [], pinn.fit

    def watched(model, loss, batch, **options):
        seen.append((loss, batch, options))
        return fit(model, loss, batch, steps=1)

    monkeypatch.setattr(pinn, "fit", watched)
    pinn.train_pinn(
        pinn.network(2, 1), lambda f, x: pinn.advection(f, x, 2.0), lambda s: 3.0 * s, end=3.0, length=2.0, steps=7
    )
    ((loss, batch, options),) = seen
    assert options["steps"] == 7
    inside, ends, begin = batch(0, 4)
    assert (len(inside), len(ends), len(begin)) == (1000, 1000, 5000)
    for drawn, top in ((inside, (3.0, 2.0)), (ends, (3.0,)), (begin, (2.0,))):
        assert bool((drawn.min(0).values > 0).all())
        assert torch.allclose(drawn.max(0).values, torch.tensor(top), rtol=0.01)
    assert not torch.equal(batch(0, 5)[0], inside)

    class Field(torch.nn.Module):
        def forward(self, z):
            # u_t + 2 u_x = 1 + 4 x; u(t, 2) - u(t, 0) = 4; u(0, x) - 3 x = x² - 3 x.
            t, x = z[..., 0:1], z[..., 1:2]
            return t + x * x

    x, s = inside[:, 1], begin[:, 0]
    expected = (1 + 4 * x).square().mean() + 16 + (s * s - 3 * s).square().mean()
    assert torch.allclose(loss(Field(), (inside, ends, begin)), expected)


def test_frames_are_the_fields_at_all_times_and_places():
    times, x = torch.tensor([0.0, 0.5, 2.0], dtype=F64), torch.tensor([0.1, 0.7])

    def field(z, factor=1.0):
        return factor * torch.stack([z[:, 0] + 10 * z[:, 1], z[:, 0] * z[:, 1]], -1)

    frames = pinn.on_grid([field, lambda z: field(z, 2.0)], times, x)
    assert frames.shape == (2, 3, 2, 2)
    for i, t in enumerate(times.tolist()):
        for k, place in enumerate(x.tolist()):
            assert frames[0, i, :, k].tolist() == pytest.approx([t + 10 * place, t * place])
    assert torch.equal(frames[1], 2 * frames[0])
    assert not pinn.on_grid([pinn.network(2, 1)], times, x).requires_grad


def test_bad_input():
    with pytest.raises(ValueError, match="fields must hold one function for each sample"):
        pinn.on_grid([], torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="combine must be one of vector, sum"):
        pinn.mean_square(torch.ones(2, 2), "mean")
