"""Random numbers: the generator's published answers, and that a sample depends on its number alone."""

import numpy as np
import pytest
import scipy.stats
import torch

from pdebook import rng

# Known answers of Random123 (kat_vectors, philox 4x32, 10 rounds).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer, device):
    words = rng.philox([torch.tensor([c], device=device) for c in counter], key)
    assert tuple(int(word) for word in words) == answer


def test_bits_use_seed_stream_sample_and_index():
    samples, index = torch.tensor([3, 2**40]), torch.tensor([0, 2**62])
    bits = rng.random_bits(2**40 + 7, samples, index)
    assert bits.shape == (2, 2, 4)
    words = {tuple(row) for row in bits.reshape(-1, 4).tolist()}
    words |= {tuple(row) for row in rng.random_bits(7, samples, index).reshape(-1, 4).tolist()}
    words |= {tuple(row) for row in rng.random_bits(7, samples, index, stream=1).reshape(-1, 4).tolist()}
    assert len(words) == 12


@pytest.mark.parametrize("draw", [rng.uniform, rng.normal])
def test_a_sample_does_not_depend_on_its_batch(draw, device):
    whole = draw(5, torch.arange(20), (3, 5), dtype=torch.float64, device=device)
    order = torch.tensor([13, 4, 19])
    part = draw(5, order, (3, 5), dtype=torch.float64, device=device)
    torch.testing.assert_close(part, whole[order.to(device)], rtol=1e-14, atol=0)
    # A shorter draw is the beginning of a longer one.
    flat = draw(5, order, (7,), dtype=torch.float64, device=device)
    torch.testing.assert_close(flat, part.flatten(1)[:, :7], rtol=1e-14, atol=0)


def test_float32_is_the_rounded_float64():
    double = rng.normal(1, torch.arange(50), (4,), dtype=torch.float64)
    assert torch.equal(rng.normal(1, torch.arange(50), (4,)), double.float())


def test_distributions():
    # 2e5 draws: the p-values are deterministic; a wrong transform gives 0.
    u = rng.uniform(3, torch.arange(2000), (100,), dtype=torch.float64).flatten().numpy()
    z = rng.normal(3, torch.arange(2000), (100,), dtype=torch.float64).numpy()
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(z.flatten(), "norm").pvalue > 1e-3
    # Neighbours in a draw, samples and draws are uncorrelated: 4 standard errors.
    again = rng.normal(3, torch.arange(2000), (100,), index=1, dtype=torch.float64).numpy()
    other = rng.normal(3, torch.arange(2000), (100,), stream=1, dtype=torch.float64).numpy()
    for a, b in [(z[:, 0::2], z[:, 1::2]), (z[:-1], z[1:]), (z, again), (z, other)]:
        assert abs(np.mean(a * b)) < 4 / np.sqrt(a.size)


def test_noise_source_draws_by_number_and_offset():
    x = torch.zeros(6, 2, 3)
    source = rng.NoiseSource(9)
    assert source(2, x).shape == x.shape
    assert torch.equal(source(2, x), source(2, x))
    assert not torch.equal(source(2, x), source(3, x))
    assert torch.equal(rng.NoiseSource(9, offset=4)(2, x[:2]), source(2, x)[4:])


def test_fold_in_separates_names():
    seeds = {rng.fold_in(0, "data"), rng.fold_in(0, "noise"), rng.fold_in(1, "data"), rng.fold_in(0, 1)}
    assert len(seeds) == 4
    assert rng.fold_in(0, "data") == rng.fold_in(0, "data")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rng.uniform(-1, torch.arange(2)), "seed"),
        (lambda: rng.uniform(2**63, torch.arange(2)), "seed"),
        (lambda: rng.uniform(0, torch.arange(2), stream=-3), "stream"),
        (lambda: rng.uniform(0, torch.arange(2), index=-1), "index"),
        (lambda: rng.normal(0, torch.tensor([-1])), "samples"),
        (lambda: rng.normal(0, torch.arange(1), (2**13, 2**13)), "shape"),
        (lambda: rng.NoiseSource(0, offset=-1), "offset"),
        (lambda: rng.fold_in(-1, "a"), "seed"),
        (lambda: rng.normal(0, torch.tensor([0.5])), "samples must be integers"),
        (lambda: rng.integers(0, torch.arange(2), 0), "high"),
        (lambda: rng.permutation(0, -1), "size"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_normals_at_are_those_of_the_draw():
    samples = torch.arange(3, 6)
    pairs = rng.normals_at(4, samples, torch.arange(5) + (7 << 24), stream=2)
    draw = rng.normal(4, samples, (10,), stream=2, index=7, dtype=torch.float64)
    assert torch.equal(pairs.flatten(1), draw)


def test_chunks_do_not_show(monkeypatch):
    whole = rng.random_bits(2, torch.arange(7), torch.arange(30).reshape(5, 6))
    monkeypatch.setattr(rng, "_CHUNK", 11)
    assert torch.equal(rng.random_bits(2, torch.arange(7), torch.arange(30).reshape(5, 6)), whole)


def test_rounding_reaches_neither_0_nor_1():
    # Float16 rounds 1 in 4096 of these to 1.
    u = rng.uniform(0, torch.arange(100_000), dtype=torch.float16)
    assert float(u.min()) > 0
    assert float(u.max()) == 1 - 2**-11


def test_doubles_have_all_their_bits():
    u = rng.uniform(0, torch.arange(1000), dtype=torch.float64)
    z = rng.normal(0, torch.arange(1000), dtype=torch.float64)
    for numbers in (u, z):
        assert float((numbers == numbers.float().double()).double().mean()) < 0.01
    # The last of the 53 bits is set in every second number below 1/2; above, the shift by half a unit rounds it away.
    odd = ((u[u < 0.5] * 2**53 - 0.5).long() & 1).double().mean()
    assert 0.4 < float(odd) < 0.6


def test_integers_are_uniform():
    values = rng.integers(6, torch.arange(3000), 7, (20,))
    assert values.min() == 0
    assert values.max() == 6
    assert scipy.stats.chisquare(values.flatten().bincount().numpy()).pvalue > 1e-3
    assert rng.integers(6, torch.arange(5), 1).tolist() == [0] * 5


def test_permutations():
    orders = torch.stack([rng.permutation(seed, 10) for seed in range(2000)])
    assert torch.equal(orders.sort(1).values, torch.arange(10).expand(2000, 10))
    # Each position sees each number equally often: chi-squared, one degree of freedom lost a row.
    for place in range(10):
        assert scipy.stats.chisquare(orders[:, place].bincount(minlength=10).numpy()).pvalue > 1e-4
    assert rng.permutation(0, 0).tolist() == []


def test_streams_are_independent_of_seeds_made_from_names():
    assert not torch.equal(rng.normal(rng.fold_in(0, 1), torch.arange(9)), rng.normal(0, torch.arange(9), stream=1))


def test_signs_are_fair_and_belong_to_their_sample(device):
    signs = rng.rademacher(2, torch.arange(400), (100,), dtype=torch.float64, device=device)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    # 40,000 signs: the mean's standard error is 0.005.
    assert abs(float(signs.mean())) < 0.02
    assert torch.equal(rng.rademacher(2, torch.tensor([7]), (100,), dtype=torch.float64, device=device), signs[7:8])
    assert not torch.equal(rng.rademacher(3, torch.arange(400), (100,), dtype=torch.float64, device=device), signs)


def test_normals_of_pairs_are_those_of_the_whole(device):
    samples, index = torch.tensor([3, 8, 5], device=device), torch.tensor([0, 7, 2**40], device=device)
    whole = rng.normals_at(6, samples, index, stream=2)
    torch.testing.assert_close(rng.normals_of(6, samples, index, stream=2), whole[range(3), range(3)], rtol=0, atol=0)
    torch.testing.assert_close(rng.normals_of(6, samples[:, None], index, stream=2), whole, rtol=0, atol=0)
