"""Exact Riemann solutions: tabulated states, jump conditions, invariants, vacuum."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.pde import riemann
from pdebook.pde.fluids import Euler, ShallowWater

F64 = torch.float64


def state(*numbers):
    return torch.tensor(numbers, dtype=F64)


@pytest.mark.parametrize(
    ("test", "pressure", "velocity"),
    [(1, 0.471293, 1.290992), (3, 445.6259, 18.28121), (4, 1841.822, 8.560449)],
)
def test_star_states_of_the_table(test, pressure, velocity):
    tube = riemann.SOD[test]
    p, v = riemann.euler_star(state(*tube.left), state(*tube.right))
    assert p.item() == pytest.approx(pressure, rel=1e-6)
    assert v.item() == pytest.approx(velocity, rel=1e-6)


def test_sods_tube_of_the_text_books():
    # gamma = 1.4; Toro 2009, table 4.2.
    p, v = riemann.euler_star(state(1.0, 0.0, 1.0), state(0.125, 0.0, 0.1), 1.4)
    assert p.item() == pytest.approx(0.30313, abs=1e-5)
    assert v.item() == pytest.approx(0.92745, abs=1e-5)
    p, v = riemann.euler_star(state(1.0, -2.0, 0.4), state(1.0, 2.0, 0.4), 1.4)
    assert p.item() == pytest.approx(0.00189, abs=1e-5)
    w = riemann.euler(state(1.0, 0.0, 1.0), state(0.125, 0.0, 0.1), state(0.9, 1.0), 1.4)
    assert w[0, 0].tolist() == pytest.approx([0.42632, 0.26557], abs=1e-5)


def test_the_dam_break():
    h, v = riemann.shallow_water_star(state(2.0, 0.0), state(1.0, 0.0))
    assert h.item() == pytest.approx(1.453841, abs=1e-6)
    assert v.item() == pytest.approx(0.416921, abs=1e-6)
    s = h.item() * v.item() / (h.item() - 1)
    assert s == pytest.approx(1.335570, abs=1e-6)
    depth = riemann.shallow_water(state(2.0, 0.0), state(1.0, 0.0), state(s - 1e-9, s + 1e-9))[0, 0]
    assert depth.tolist() == pytest.approx([h.item(), 1.0])


def conservation_defect(law, w_left, w_right, solution, reach):
    """∫ u ds over [-reach, reach] minus what the fluxes at the ends and the initial states say (at t = 1)."""
    n = 50_000
    s = (torch.arange(n, dtype=F64) + 0.5) / n * 2 * reach - reach
    total = law.conserved(solution(s)).mean(2)[0] * 2 * reach
    left, right = w_left[None, :, None], w_right[None, :, None]
    expected = reach * (law.conserved(left) + law.conserved(right)) + law.flux(left, 0) - law.flux(right, 0)
    return float((total - expected[0, :, 0]).abs().max() / expected.abs().max())


GAS = st.tuples(st.floats(0.1, 10), st.floats(-3, 3), st.floats(0.1, 10))


@settings(max_examples=15, deadline=None)
@given(left=GAS, right=GAS, gamma=st.floats(1.1, 3))
def test_the_fan_of_a_gas_conserves_and_is_even_under_reflection(left, right, gamma):
    left, right = state(*left), state(*right)
    fastest = max(abs(w[1]) + 3 * math.sqrt(gamma * w[2] / min(left[0], right[0])) for w in (left, right))
    reach = 4 * float(fastest) + 20
    law = Euler(1, gamma=gamma)
    # A jump is met only to a cell, hence the tolerance.
    assert conservation_defect(law, left, right, lambda s: riemann.euler(left, right, s, gamma), reach) < 3e-3
    s = torch.linspace(-5.01, 5.0, 23, dtype=F64)
    mirror = state(1.0, -1.0, 1.0)
    reflected = riemann.euler(right * mirror, left * mirror, -s, gamma) * mirror[None, :, None]
    torch.testing.assert_close(reflected, riemann.euler(left, right, s, gamma), rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    left=st.tuples(st.floats(0.1, 10), st.floats(-3, 3)),
    right=st.tuples(st.floats(0.1, 10), st.floats(-3, 3)),
    gravity=st.floats(0.5, 10),
)
def test_the_fan_of_water_conserves(left, right, gravity):
    left, right = state(*left), state(*right)
    law = ShallowWater(1, gravity=gravity)
    assert conservation_defect(law, left, right, lambda s: riemann.shallow_water(left, right, s, gravity), 60.0) < 3e-3


def test_nothing_happens_between_equal_states_and_a_contact_moves_with_the_flow():
    s = torch.linspace(-3, 3, 13, dtype=F64)
    w = state(1.3, 0.4, 0.7)
    torch.testing.assert_close(riemann.euler(w, w, s), w[None, :, None].expand(1, 3, 13))
    got = riemann.euler(state(2.0, 0.3, 1.0), state(1.0, 0.3, 1.0), state(0.29, 0.31))
    torch.testing.assert_close(got[0, :, 0], state(2.0, 0.3, 1.0))
    torch.testing.assert_close(got[0, :, 1], state(1.0, 0.3, 1.0))


def test_a_rarefaction_keeps_entropy_and_invariant():
    gamma, left = 1.4, state(1.0, 0.0, 1.0)
    w = riemann.euler(left, state(0.125, 0.0, 0.1), torch.linspace(-1.15, -0.1, 50, dtype=F64), gamma)[0]
    c = (gamma * w[2] / w[0]).sqrt()
    torch.testing.assert_close(w[2] / w[0] ** gamma, torch.ones(50, dtype=F64))
    torch.testing.assert_close(w[1] + 2 * c / (gamma - 1), torch.full((50,), 2 * math.sqrt(1.4) / 0.4, dtype=F64))
    h, v = riemann.shallow_water(state(2.0, 0.0), state(1.0, 0.0), torch.linspace(-1.3, -0.8, 20, dtype=F64))[0]
    torch.testing.assert_close(v + 2 * h.sqrt(), torch.full((20,), 2 * math.sqrt(2), dtype=F64))


def test_a_vacuum_opens_between_gases_that_part_fast_enough():
    left, right = state(1.0, -10.0, 0.4), state(1.0, 10.0, 0.4)
    p, v = riemann.euler_star(left, right, 1.4)
    tail = 5 * math.sqrt(1.4 * 0.4)
    assert p.item() == 0
    assert v.item() == pytest.approx(-10 + tail)
    s = torch.linspace(-15, 15, 601, dtype=F64)
    w = riemann.euler(left, right, s, 1.4)[0]
    empty = s.abs() < 10 - tail
    assert bool((w[0][empty] == 0).all() & (w[2][empty] == 0).all() & (w[0][~empty] >= 0).all())
    torch.testing.assert_close(w[1][empty], s[empty])
    assert float(w[1].diff().min()) >= 0
    law = Euler(1, gamma=1.4)
    s = (torch.arange(200_000, dtype=F64) + 0.5) / 5_000 - 20
    mass = riemann.euler(left, right, s, 1.4)[0, 0].mean() * 40
    assert mass.item() == pytest.approx(20 + 20 - 10 - 10, rel=1e-6)
    assert law.flux(left[None, :, None], 0)[0, 0] == -10


@pytest.mark.parametrize("gas_is_left", [True, False])
def test_a_gas_runs_into_a_vacuum_and_a_dam_onto_dry_ground(gas_is_left):
    gas, nothing, sign = state(1.0, 0.0, 1.0), state(0.0, 0.0, 0.0), 1 if gas_is_left else -1
    pair = (gas, nothing) if gas_is_left else (nothing, gas)
    c = math.sqrt(5 / 3)
    s = sign * state(-2.0, 0.0, 3 * c - 1e-3, 3 * c + 1e-3)
    density, v, pressure = riemann.euler(*pair, s)[0]
    assert density.tolist() == pytest.approx([1.0, (3 / 4) ** 3, 0.0, 0.0], abs=1e-6)
    assert pressure.tolist() == pytest.approx([1.0, (3 / 4) ** 5, 0.0, 0.0], abs=1e-6)
    assert v.tolist()[:3] == pytest.approx([0.0, sign * 3 / 4 * c, sign * 3 * c], abs=1e-2)
    water = (state(1.0, 0.0), state(0.0, 0.0)) if gas_is_left else (state(0.0, 0.0), state(1.0, 0.0))
    # Ritter 1892: h = (2c - s)²/9g.
    depth = riemann.shallow_water(*water, sign * state(-2.0, 0.0, 1.0, 2.1))[0, 0]
    assert depth.tolist() == pytest.approx([1.0, 4 / 9, 1 / 9, 0.0])
    assert riemann.shallow_water_star(*water)[0].item() == 0


def test_a_flood_parts_and_leaves_dry_ground():
    h, _ = riemann.shallow_water_star(state(1.0, -3.0), state(1.0, 3.0))
    assert h.item() == 0
    depth, v = riemann.shallow_water(state(1.0, -3.0), state(1.0, 3.0), state(-0.5, 0.5))[0]
    assert depth.tolist() == [0, 0]
    assert v.tolist() == [-0.5, 0.5]


def test_states_are_batched_and_each_has_its_gamma_and_points():
    left = torch.rand(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.5
    right = left.flip(0)
    gamma, s = torch.linspace(1.2, 2, 4, dtype=F64), torch.linspace(-2, 2, 28, dtype=F64).view(4, 7)
    together = riemann.euler(left, right, s, gamma)
    for k in range(4):
        torch.testing.assert_close(together[k : k + 1], riemann.euler(left[k], right[k], s[k], float(gamma[k])))
    assert riemann.euler(left.float(), right.float(), s.float()).dtype == torch.float32


def test_star_states_have_gradients():
    # Two rarefactions, two shocks, one of each.
    left = torch.tensor([[1.0, -0.3, 1.0], [1.0, 2.0, 0.4], [1.0, 0.0, 1000.0]], dtype=F64, requires_grad=True)
    right = torch.tensor([[0.5, 0.2, 0.7], [1.0, -2.0, 0.5], [1.0, 0.0, 0.01]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: riemann.euler_star(a, b, 1.4), (left, right))
    wet = [value[:, :2].detach().requires_grad_() for value in (left, right)]
    assert torch.autograd.gradcheck(riemann.shallow_water_star, tuple(wet))


def test_extreme_pressures_converge():
    for ratio in (1e-12, 1e12):
        p, v = riemann.euler_star(state(1.0, 0.0, 1.0), state(1.0, 0.0, ratio))
        assert bool(torch.isfinite(p) & torch.isfinite(v))
        w = riemann.euler(state(1.0, 0.0, 1.0), state(1.0, 0.0, ratio), v + state(-1e-9, 1e-9) * v.abs())
        assert w[0, 2, 0].item() == pytest.approx(w[0, 2, 1].item(), rel=1e-6)
    # Two colliding streams: p = ρ v² (γ + 1)/2 for v much above c.
    p, _ = riemann.euler_star(state(1.0, 1e4, 1.0), state(1.0, -1e4, 1.0), 1.4)
    assert p.item() == pytest.approx(1.2e8, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: riemann.euler_star(state(1.0, 0.0), state(1.0, 0.0, 1.0)), "left must have 3 numbers, got 2"),
        (
            lambda: riemann.euler_star(state(1.0, 0.0, 1.0), state(1.0, 0.0, -1.0)),
            r"right must be finite, and .* \[0, 2\]",
        ),
        (lambda: riemann.euler_star(state(math.nan, 0.0, 1.0), state(1.0, 0.0, 1.0)), "left must be finite"),
        (lambda: riemann.euler_star(state(1.0, 0.0, 1.0), state(1.0, 0.0, 1.0), 1.0), "gamma must be more than 1"),
        (
            lambda: riemann.euler_star(torch.ones(2, 3), torch.ones(3, 3)),
            r"left, right, gamma must have one row or the same number, got \[2, 3, 1\]",
        ),
        (
            lambda: riemann.shallow_water_star(torch.ones(2, 2), torch.ones(2, 2), torch.ones(3)),
            "left, right, gravity must",
        ),
        (
            lambda: riemann.euler(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(3, 4)),
            r"s must have shape \(points,\) or \(2, points\), got \(3, 4\)",
        ),
        (lambda: riemann.shallow_water_star(state(-1.0, 0.0), state(1.0, 0.0)), "left must be finite, and"),
        (lambda: riemann.shallow_water_star(state(1.0, 0.0), state(1.0, 0.0), 0), "gravity must be positive, got 0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
