"""Points of domains: where they lie, how they are spread, what they depend on."""

import pytest
import torch

from pdebook.nn import collocation
from pdebook.nn.collocation import ball, box, faces, sphere

LOW, HIGH = (-1.0, 2.0), (1.0, 5.0)


@pytest.mark.parametrize("law", ["uniform", "latin", "sobol"])
def test_points_fill_the_box_and_depend_on_seed_and_stream(law):
    x = box(LOW, HIGH, 4096, law=law, seed=1, dtype=torch.float64)
    assert x.shape == (4096, 2)
    assert (x >= torch.tensor(LOW)).all()
    assert (x <= torch.tensor(HIGH)).all()
    torch.testing.assert_close(x.mean(0), torch.tensor([0.0, 3.5], dtype=torch.float64), atol=0.06, rtol=0)
    torch.testing.assert_close(x.var(0), torch.tensor([4 / 12, 9 / 12], dtype=torch.float64), atol=0.04, rtol=0)
    assert abs(float(torch.corrcoef(x.T)[0, 1])) < 0.06
    assert torch.equal(x, box(LOW, HIGH, 4096, law=law, seed=1, dtype=torch.float64))
    for other in ({"seed": 2}, {"seed": 1, "stream": 1}):
        assert not torch.equal(x, box(LOW, HIGH, 4096, law=law, dtype=torch.float64, **other))


def test_latin_points_have_one_in_each_stratum_of_each_axis():
    x = box(LOW, HIGH, 50, law="latin", dtype=torch.float64)
    strata = ((x - torch.tensor(LOW)) / torch.tensor([2.0, 3.0]) * 50).floor().long()
    for axis in range(2):
        assert strata[:, axis].sort().values.tolist() == list(range(50))
    assert not torch.equal(strata[:, 0], strata[:, 1])


def test_streams_have_their_own_strata_directions_and_radii():
    strata = [(box((0.0,), (1.0,), 50, law="latin", stream=k) * 50).floor().long().flatten() for k in (0, 1)]
    assert not torch.equal(*strata)
    for change in ({"stream": 1}, {"seed": 1}):
        a, b = ball(3, 50), ball(3, 50, **change)
        assert (a.norm(dim=1) - b.norm(dim=1)).abs().max() > 0.1
        assert (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).abs().max() > 0.1


def test_sobol_integrates_better_than_independent_points():
    def error(law: str) -> float:
        runs = [box((0, 0), (1, 1), 1024, law=law, seed=s, dtype=torch.float64) for s in range(8)]
        return float(torch.stack([(x[:, 0] * x[:, 1]).mean() - 0.25 for x in runs]).square().mean().sqrt())

    assert error("sobol") < 0.2 * error("uniform")


def test_grid_points_are_midpoints():
    assert box((0.0,), (1.0,), 4, law="grid").flatten().tolist() == [0.125, 0.375, 0.625, 0.875]
    x = box(LOW, HIGH, 3, law="grid", dtype=torch.float64)
    assert x.shape == (9, 2)
    torch.testing.assert_close(x[1], torch.tensor([-2 / 3, 3.5], dtype=torch.float64))


def test_faces_lie_on_their_sides_and_opposite_ones_are_partners():
    f = faces(LOW, HIGH, 7, seed=3)
    assert f.shape == (2, 2, 7, 2)
    assert (f[0, 0, :, 0] == -1).all()
    assert (f[0, 1, :, 0] == 1).all()
    assert (f[1, 0, :, 1] == 2).all()
    assert (f[1, 1, :, 1] == 5).all()
    assert torch.equal(f[0, 0, :, 1], f[0, 1, :, 1])
    assert torch.equal(faces(LOW, HIGH, 7, seed=3, axes=[1]), f[1:])


def test_sphere_and_ball_have_their_laws():
    s = sphere(3, 4000, dtype=torch.float64)
    torch.testing.assert_close(s.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    torch.testing.assert_close(s.T @ s / 4000, torch.eye(3, dtype=torch.float64) / 3, atol=0.02, rtol=0)
    for radius, power in (("volume", 5.0), ("uniform", 1.0)):
        r = ball(5, 4000, radius=radius, seed=1, dtype=torch.float64).norm(dim=1) ** power
        torch.testing.assert_close(
            r.sort().values, (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000, atol=0.035, rtol=0
        )
    both = ball(2, 4000, radius="uniform", dtype=torch.float64)
    assert abs(float(torch.corrcoef(torch.stack([both.norm(dim=1), both[:, 0] / both.norm(dim=1)]))[0, 1])) < 0.06


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: box((0.0,), (0.0,), 3), r"low below high, got \(0.0,\)"),
        (lambda: box((0.0, 0.0), (1.0,), 3), "of one length"),
        (lambda: box((), (), 3), "of one length"),
        (lambda: box((0.0,), (1.0,), 0), "points must be at least 1, an integer, got 0"),
        (lambda: box((0.0,), (float("inf"),), 3), "low and high must be finite"),
        (lambda: box((0.0,), (1.0,), 3, law="sobol", stream=-1), "stream must not be negative, got -1"),
        (lambda: box((0.0,), (1.0,), 3, law="halton"), "law must be one of uniform, latin, sobol, grid, got 'halton'"),
        (lambda: faces((0.0,), (1.0,), 3, axes=[1]), r"axes must be from 0 to 0, got \(1,\)"),
        (lambda: sphere(0, 3), "dim must be at least 1"),
        (lambda: sphere(3, 0), "points must be at least 1"),
        (lambda: ball(3, 3, radius="r"), "radius must be 'volume' or 'uniform', got 'r'"),
        (lambda: collocation.box((0.0,), (1.0,), 3, seed=-1), "seed must be an integer"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
