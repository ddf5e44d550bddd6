import pytest
import torch

from pdebook.benchmarks.inversion import interpolate, invert

F64 = torch.float64


def test_interpolation_is_the_identity_keeps_constants_and_is_exact_for_lines():
    z = torch.randn(2, 1, 8, dtype=F64)
    assert torch.equal(interpolate(z, [8]), z)
    assert torch.allclose(interpolate(torch.full((1, 2, 4, 4), 3.0), [8, 12]), torch.tensor(3.0))
    coarse, fine = (torch.arange(n, dtype=F64) + 0.5 for n in (8, 32))
    line = interpolate((coarse / 8)[None, None], [32], periodic=False)[0, 0]
    assert torch.allclose(line[4:-4], (fine / 32)[4:-4])


@pytest.mark.parametrize("shape", [(8,), (4, 6), (2, 4, 2)])
def test_interpolation_commutes_with_shifts_only_if_periodic(shape):
    z = torch.randn(1, 1, *shape, dtype=F64)
    size = [3 * n for n in shape]
    for periodic in (True, False):
        moved = interpolate(z.roll(1, -1), size, periodic=periodic)
        assert torch.allclose(moved, interpolate(z, size, periodic=periodic).roll(3, -1)) == periodic


def test_a_linear_forward_map_is_inverted_sample_by_sample():
    truth = torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    matrix = torch.eye(8, dtype=F64) + 0.1 * torch.ones(8, 8, dtype=F64)
    end = truth @ matrix
    found = invert(lambda u: u @ matrix, end, latent=8, steps=600, lr=0.05)
    assert float((found.start - truth).abs().max()) < 1e-3
    assert found.misfits.shape == (600, 3)
    assert torch.allclose(found.misfits[0], torch.ones(3, dtype=F64))
    alone = invert(lambda u: u @ matrix, end[1:2], latent=8, steps=50, lr=0.05)
    together = invert(lambda u: u @ matrix, end, latent=8, steps=50, lr=0.05)
    assert torch.allclose(alone.start[0], together.start[1])


def test_the_search_begins_where_it_is_told_and_sees_the_end_alone():
    end = torch.ones(1, 1, 8, dtype=F64)
    found = invert(lambda u: u, end, latent=8, steps=1, first=end)
    assert float(found.misfits[0]) == 0
    assert torch.equal(found.start, end)
    # Where the end does not depend on the start, nothing moves: there is no decay towards zero.
    first = torch.full((1, 1, 4), 2.0, dtype=F64)
    still = invert(lambda u: 0 * u + 1, torch.full((1, 1, 8), 3.0, dtype=F64), latent=4, steps=20, first=first)
    assert torch.equal(still.latent, first)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interpolate(torch.ones(1, 1, 5), [8]), "size must hold multiples of"),
        (lambda: invert(lambda u: u, torch.ones(1, 1, 8), latent=8, steps=0), "steps and lr must be positive"),
        (lambda: invert(lambda u: u, torch.ones(1, 1, 8), latent=3, steps=1), "size must hold multiples of"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
