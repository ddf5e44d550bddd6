"""Limiters and reconstructions: exact values, symmetry, bounds, orders."""

import pytest
import torch

from pdebook.metrics.order import observed_order
from pdebook.pde import reconstruction as rc

F64 = torch.float64
LIMITED = {name: limiter for name, limiter in rc.LIMITERS.items() if name != "central"}


def pair(a, b):
    return torch.tensor([a], dtype=F64), torch.tensor([b], dtype=F64)


@pytest.mark.parametrize(
    ("name", "a", "b", "value"),
    [
        ("minmod", 1.0, 3.0, 1.0),
        ("minmod", -4.0, -3.0, -3.0),
        ("mc", 1.0, 2.0, 1.5),
        ("mc", 1.0, 9.0, 2.0),
        ("mc", -9.0, -1.0, -2.0),
        ("van-leer", 1.0, 3.0, 1.5),
        ("van-leer", -1.0, -3.0, -1.5),
        ("van-albada", 1.0, 3.0, 1.2),
        ("superbee", 1.0, 3.0, 2.0),
        ("superbee", 2.0, 3.0, 3.0),
        ("superbee", -2.0, -9.0, -4.0),
        ("superbee", -3.0, -2.0, -3.0),
        ("central", 1.0, -3.0, -1.0),
    ],
)
def test_known_values(name, a, b, value):
    assert rc.LIMITERS[name](*pair(a, b)).item() == pytest.approx(value)


def all_pairs():
    values = torch.cat([torch.zeros(1, dtype=F64), torch.logspace(-3, 2, 26, dtype=F64)])
    values = torch.cat([-values, values])
    return values[:, None].expand(54, 54), values[None].expand(54, 54)


@pytest.mark.parametrize("name", LIMITED)
def test_limiters_are_symmetric_odd_exact_for_lines_and_between_zero_and_twice_the_smaller(name):
    limiter = LIMITED[name]
    a, b = all_pairs()
    slope = limiter(a, b)
    torch.testing.assert_close(limiter(b, a), slope)
    torch.testing.assert_close(limiter(-a, -b), -slope)
    torch.testing.assert_close(slope.diagonal(), a.diagonal())
    assert bool((slope[a * b <= 0] == 0).all())
    agree = a * b > 0
    assert bool((slope * a > 0)[agree].all())
    assert bool((slope.abs() <= 2 * torch.minimum(a.abs(), b.abs()) * (1 + 1e-12))[agree].all())


@pytest.mark.parametrize("theta", [1, 1.3, 2])
def test_the_family_runs_from_minmod_to_monotonised_central(theta):
    a, b = all_pairs()
    torch.testing.assert_close(rc.generalised_minmod(1)(a, b), rc.minmod(a, b))
    torch.testing.assert_close(rc.generalised_minmod(2)(a, b), rc.mc(a, b))
    three = torch.stack([theta * a, (a + b) / 2, theta * b])
    expected = three.amin(0).clamp_min(0) + three.amax(0).clamp_max(0)
    torch.testing.assert_close(rc.generalised_minmod(theta)(a, b), expected)


SCHEMES = {
    "constant": rc.Constant(),
    **{name: rc.Muscl(name) for name in rc.LIMITERS},
    "theta": rc.Muscl(rc.generalised_minmod(1.5)),
    "weno5z": rc.Weno5Z(),
}


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("axis", [2, 3])
def test_faces_lie_where_they_should_and_constants_and_lines_are_exact(name, axis):
    scheme = SCHEMES[name]
    n, g = 5, scheme.ghosts
    x = torch.arange(-g, n + g, dtype=F64) + 0.5  # cell means of u = x are the centres
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    u = (3.0 + 2.0 * x).view(shape).expand(1, 2, *(4 if d != axis else n + 2 * g for d in (2, 3)))
    lower, upper = scheme(u, axis)
    faces = (3.0 + 2.0 * torch.arange(n + 1, dtype=F64)).view(shape)
    shift = 1.0 if name == "constant" else 0.0
    torch.testing.assert_close(lower, (faces - shift).expand_as(lower))
    torch.testing.assert_close(upper, (faces + shift).expand_as(upper))
    assert lower.shape[axis] == n + 1
    flat = torch.full_like(u, 7.0)
    for side in scheme(flat, axis):
        torch.testing.assert_close(side, torch.full_like(side, 7.0))


@pytest.mark.parametrize("name", SCHEMES)
def test_mirror_images_have_mirrored_faces(name):
    scheme = SCHEMES[name]
    u = torch.randn(2, 1, 6 + 2 * scheme.ghosts, dtype=F64, generator=torch.Generator().manual_seed(1))
    lower, upper = scheme(u, 2)
    low, up = scheme(u.flip(2), 2)
    torch.testing.assert_close(low.flip(2), upper, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(up.flip(2), lower, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.bounded])
def test_bounded_schemes_stay_between_neighbours(name):
    scheme = SCHEMES[name]
    g = scheme.ghosts
    u = torch.randn(50, 1, 4 + 2 * g, dtype=F64, generator=torch.Generator().manual_seed(2)).exp()
    lower, upper = scheme(u, 2)
    below, above = u[..., g - 1 : -g], u[..., g : u.shape[2] - g + 1]
    smallest, largest = torch.minimum(below, above), torch.maximum(below, above)
    for side in (lower, upper):
        assert bool((side >= smallest - 1e-12).all())
        assert bool((side <= largest + 1e-12).all())


def test_only_what_may_leave_the_neighbours_range_is_unbounded():
    assert [name for name, scheme in SCHEMES.items() if not scheme.bounded] == ["central", "theta", "weno5z"]


def means_of_sine(n, g):
    edges = torch.arange(-g, n + g + 1, dtype=F64) / n * 2 * torch.pi
    return (-edges.cos().diff() / (2 * torch.pi / n))[None, None]


@pytest.mark.parametrize(("name", "order"), [("constant", 1), ("central", 2), ("van-albada", 2), ("weno5z", 5)])
def test_order_at_faces_of_a_sine(name, order):
    scheme = SCHEMES[name]
    ns, errors = (32, 64, 128), []
    for n in ns:
        faces = torch.sin(torch.arange(n + 1, dtype=F64) / n * 2 * torch.pi)
        # The mean error, which a limiter at an extremum does not spoil.
        errors.append(float((scheme(means_of_sine(n, scheme.ghosts), 2)[0][0, 0] - faces).abs().mean()))
    assert observed_order(errors, n=ns).order == pytest.approx(order, abs=0.25)


def test_weno_is_the_formula_of_the_paper():
    # Borges et al. 2008, equations 8 to 10 and 25 with q = 2, in the values themselves.
    cells = torch.randn(6, 300, dtype=F64, generator=torch.Generator().manual_seed(0))

    def paper(a, b, c, d, e):
        beta = (
            13 / 12 * (a - 2 * b + c) ** 2 + 1 / 4 * (a - 4 * b + 3 * c) ** 2,
            13 / 12 * (b - 2 * c + d) ** 2 + 1 / 4 * (b - d) ** 2,
            13 / 12 * (c - 2 * d + e) ** 2 + 1 / 4 * (3 * c - 4 * d + e) ** 2,
        )
        value = ((2 * a - 7 * b + 11 * c) / 6, (-b + 5 * c + 2 * d) / 6, (2 * c + 5 * d - e) / 6)
        alpha = [w * (1 + ((beta[0] - beta[2]) / s) ** 2) for w, s in zip((0.1, 0.6, 0.3), beta, strict=True)]
        return sum(w * v for w, v in zip(alpha, value, strict=True)) / sum(alpha)

    left, right = rc.Weno5Z()(cells, 0)
    torch.testing.assert_close(left[0], paper(*cells[:5]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(right[0], paper(*cells[1:].flip(0)), rtol=1e-9, atol=1e-9)


def test_weno_sees_jumps_and_does_not_ring_in_float32_with_large_values():
    scheme = rc.Weno5Z()
    u = torch.ones(1, 1, 40)
    u[..., 20:] = 1e6
    lower, upper = scheme(u, 2)
    for side in (lower, upper):
        assert bool(side.isfinite().all())
        assert float(side.max()) < 1e6 * (1 + 1e-3)
        assert float(side.min()) > 1 - 1e3 * 1e-2


@pytest.mark.parametrize("name", ["constant", "mc", "superbee", "van-leer", "van-albada", "minmod", "weno5z"])
def test_reconstructions_have_gradients(name):
    scheme = SCHEMES[name]
    u = torch.randn(1, 2, 3 + 2 * scheme.ghosts, dtype=F64, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(lambda u: scheme(u, 2), u.requires_grad_())


@pytest.mark.parametrize("name", SCHEMES)
def test_gradients_are_finite_where_a_field_is_constant(name):
    scheme = SCHEMES[name]
    u = torch.ones(1, 1, 4 + 2 * scheme.ghosts, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(sum(side.sum() for side in scheme(u, 2)), u)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rc.Muscl("sweby"), "limiter must be a function or one of minmod, mc, .* got 'sweby'"),
        (lambda: rc.generalised_minmod(0.9), "theta must be from 1 to 2, got 0.9"),
        (lambda: rc.generalised_minmod(2.5), "theta must be from 1 to 2"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
