"""Numerical fluxes: consistency, symmetry, upwinding, exact contacts and shocks, the textbook's formulas."""

import math

import pytest
import torch
from torch.func import jacfwd

from pdebook.pde import fluxes, riemann
from pdebook.pde.fluids import Euler, ShallowWater
from pdebook.pde.laws import Advection, Burgers, Law, Traffic

F64 = torch.float64

SCALARS = {
    "advection": Advection(1, speed=-0.7),
    "burgers": Burgers(1),
    "traffic": Traffic(1, speed=1.5, capacity=3.0),
}
FLUIDS = {
    "water1": ShallowWater(1, gravity=2.0),
    "water2": ShallowWater(2, scalars=1, gravity=0.7),
    "gas1": Euler(1),
    "gas2": Euler(2, gamma=1.4),
    "gas3": Euler(3, scalars=1, gamma=1.3),
}
CASES = [(law, name) for law in SCALARS.values() for name in ("godunov", "rusanov", "hll", "roe")] + [
    (law, name) for law in FLUIDS.values() for name in ("rusanov", "hll", "hllc", "roe")
]
CASES = [(law, fluxes.FLUXES[name]) for law, name in CASES] + [
    (FLUIDS["gas2"], fluxes.HLLC("einfeldt")),
    (FLUIDS["gas1"], fluxes.HLL("einfeldt")),
    (FLUIDS["water2"], fluxes.HLLC("einfeldt")),
    (SCALARS["burgers"], fluxes.HLL("einfeldt")),
    (FLUIDS["gas1"], fluxes.Roe(entropy_fix=False)),
]
NAMES = [f"{type(law).__name__}{law.dims}-{flux}" for law, flux in CASES]
every = pytest.mark.parametrize(("law", "flux"), CASES, ids=NAMES)


def states(law, batch=40, seed=0):
    """Random primitive states on the sides of faces, one to a sample."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(batch, law.channels, *[1] * law.dims, dtype=F64, generator=generator)
    for channel in law.positive:
        w[:, channel] = w[:, channel].exp()
    return w


def mirror(law, axis):
    signs = torch.ones(law.channels, dtype=F64)
    signs[list(law.odd(axis))] = -1
    return signs.view(-1, *[1] * law.dims)


@every
def test_equal_states_give_the_laws_flux(law, flux):
    w = states(law)
    for axis in range(law.dims):
        torch.testing.assert_close(flux(law, w, w, axis), law.flux(w, axis))


@pytest.mark.parametrize(("law", "flux"), [case for case in CASES if case[0].positive])
def test_the_mirror_image_has_the_mirrored_flux(law, flux):
    left, right = states(law, seed=1), states(law, seed=2)
    for axis in range(law.dims):
        m = mirror(law, axis)
        torch.testing.assert_close(flux(law, right * m, left * m, axis), -flux(law, left, right, axis) * m)


@pytest.mark.parametrize(("law", "flux"), [case for case in CASES if not isinstance(case[1], fluxes.Rusanov)])
def test_fast_flow_takes_the_upwind_side(law, flux):
    left, right = states(law, seed=1), states(law, seed=2)
    if isinstance(law, Advection):
        left_wins, right_wins = Advection(1, speed=2.0), Advection(1, speed=-2.0)
        torch.testing.assert_close(flux(left_wins, left, right, 0), left_wins.flux(left, 0))
        torch.testing.assert_close(flux(right_wins, left, right, 0), right_wins.flux(right, 0))
        return
    for axis in range(law.dims):
        for sign, upwind in ((1.0, left), (-1.0, right)):
            if isinstance(law, Traffic):
                shift = torch.zeros_like(left) + sign * -10.0
            else:
                shift = torch.zeros_like(left)
                shift[:, law.odd(axis)[0] if law.positive else 0] = sign * 100.0
            got = flux(law, left + shift, right + shift, axis)
            torch.testing.assert_close(got, law.flux(upwind + shift, axis), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("name", SCALARS)
def test_godunov_is_the_least_or_largest_flux_between_the_sides(name):
    law = SCALARS[name]
    left, right = states(law, seed=1) * 2, states(law, seed=2) * 2
    between = left + (right - left) * torch.linspace(0, 1, 2001, dtype=F64)
    values = law.flux(between, 0)
    expected = torch.where(left <= right, values.amin(2, keepdim=True), values.amax(2, keepdim=True))
    torch.testing.assert_close(fluxes.Godunov()(law, left, right, 0), expected, rtol=0, atol=1e-5)


def test_roe_without_fix_is_the_flux_of_the_released_burgers_data():
    left, right = states(Burgers(1), seed=1), states(Burgers(1), seed=2)
    expected = (left**2 + right**2) / 4 - 0.5 * ((left + right) / 2).abs() * (right - left)
    torch.testing.assert_close(fluxes.Roe(entropy_fix=False)(Burgers(1), left, right, 0), expected)


def test_the_entropy_fix_opens_the_sonic_point_and_leaves_shocks_alone():
    law = Burgers(1)
    left, right = torch.full((1, 1, 1), -1.0, dtype=F64), torch.full((1, 1, 1), 1.0, dtype=F64)
    assert fluxes.Roe(entropy_fix=False)(law, left, right, 0).item() == 0.5  # a standing expansion shock
    assert fluxes.Roe()(law, left, right, 0).item() == -0.5
    assert fluxes.Roe()(law, right, left, 0).item() == 0.5
    gas = Euler(1)
    low = torch.tensor([1.0, -1.29, 1.0], dtype=F64).view(1, 3, 1)
    high = torch.tensor([0.3, 1.29, 0.2], dtype=F64).view(1, 3, 1)
    with_fix, without = (fluxes.Roe(fix)(gas, low, high, 0) for fix in (True, False))
    assert not torch.allclose(with_fix, without)


@pytest.mark.parametrize("name", FLUIDS)
def test_contacts_and_shear_stand_still_with_hllc_and_roe_and_not_with_hll(name):
    law = FLUIDS[name]
    for axis in range(law.dims):
        left, right = states(law, seed=3), states(law, seed=4)
        same = [0] if isinstance(law, ShallowWater) else [1 + law.dims]  # depth, or pressure
        right[:, same] = left[:, same]
        left[:, 1 + axis] = right[:, 1 + axis] = 0.0
        still = law.flux(left, axis)
        for flux in (fluxes.HLLC(), fluxes.HLLC("einfeldt"), fluxes.Roe()):
            torch.testing.assert_close(flux(law, left, right, axis), still, rtol=1e-13, atol=1e-13)
        for flux in (fluxes.HLL(), fluxes.Rusanov()):
            moved = (flux(law, left, right, axis) - still).abs().max()
            assert bool(moved > 0.1) == (name != "water1")


def standing_shock(gamma=1.4, mach=2.0):
    """Gas that runs into a shock at rest, and what leaves it (Rankine and Hugoniot)."""
    left = torch.tensor([1.0, mach * math.sqrt(gamma), 1.0], dtype=F64)
    ratio = (gamma + 1) * mach**2 / ((gamma - 1) * mach**2 + 2)
    pressure = 1 + 2 * gamma / (gamma + 1) * (mach**2 - 1)
    right = torch.tensor([ratio, mach * math.sqrt(gamma) / ratio, pressure], dtype=F64)
    return left.view(1, 3, 1), right.view(1, 3, 1)


def test_shocks_stand_still_with_roe_and_einfeldts_hllc():
    law = Euler(1, gamma=1.4)
    left, right = standing_shock()
    torch.testing.assert_close(law.flux(left, 0), law.flux(right, 0))
    for flux in (fluxes.Roe(), fluxes.Roe(False), fluxes.HLLC("einfeldt"), fluxes.HLL("einfeldt")):
        torch.testing.assert_close(flux(law, left, right, 0), law.flux(left, 0))
    assert not torch.allclose(fluxes.Rusanov()(law, left, right, 0), law.flux(left, 0), rtol=1e-2)


def hllc_of_the_text_book(law, left, right, axis):
    """F_K + S_K (U*_K - U_K), worked out on both sides and then chosen (Toro 2009, 10.38)."""
    slow, fast = fluxes.davis(law, left, right, axis)
    n, p = 1 + axis, 1 + law.dims
    rho = left[:, 0], right[:, 0]
    v = left[:, n], right[:, n]
    contact = (right[:, p] - left[:, p] + rho[0] * v[0] * (slow - v[0]) - rho[1] * v[1] * (fast - v[1])) / (
        rho[0] * (slow - v[0]) - rho[1] * (fast - v[1])
    )
    results = []
    for w, s in ((left, slow), (right, fast)):
        u = law.conserved(w)
        factor = w[:, 0] * (s - w[:, n]) / (s - contact)
        star = factor.unsqueeze(1) * w.clone()
        star[:, 0] = factor
        star[:, n] = factor * contact
        star[:, p] = factor * (
            u[:, p] / w[:, 0] + (contact - w[:, n]) * (contact + w[:, p] / (w[:, 0] * (s - w[:, n])))
        )
        results.append(law.flux(w, axis) + s.unsqueeze(1) * (star - u))
    below, above = law.flux(left, axis), law.flux(right, axis)
    pick = torch.where((contact >= 0).unsqueeze(1), results[0], results[1])
    return torch.where((slow >= 0).unsqueeze(1), below, torch.where((fast <= 0).unsqueeze(1), above, pick))


@pytest.mark.parametrize("name", ["gas1", "gas2", "gas3"])
def test_hllc_is_the_text_books(name):
    law = FLUIDS[name]
    left, right = states(law, 200, seed=5), states(law, 200, seed=6)
    for axis in range(law.dims):
        expected = hllc_of_the_text_book(law, left, right, axis)
        torch.testing.assert_close(fluxes.HLLC()(law, left, right, axis), expected)


@pytest.mark.parametrize("name", ["water1", "water2"])
def test_hllc_for_water_is_the_text_books(name):
    # Toro 2001, section 10.6: h* = h (S - v)/(S - S*), all else carried along with the normal velocity S*.
    law = FLUIDS[name]
    left, right = states(law, 200, seed=5), states(law, 200, seed=6)
    for axis in range(law.dims):
        n = 1 + axis
        slow, fast = fluxes.SPEEDS["davis"](law, left, right, axis)
        into, out = left[:, 0] * (left[:, n] - slow), right[:, 0] * (right[:, n] - fast)
        contact = (slow * out - fast * into) / (out - into)
        sides = []
        for w, s in ((left, slow), (right, fast)):
            star = w.clone()
            star[:, 0], star[:, n] = w[:, 0] * (s - w[:, n]) / (s - contact), contact
            sides.append(law.flux(w, axis) + s.unsqueeze(1) * (law.conserved(star) - law.conserved(w)))
        pick = torch.where((contact >= 0).unsqueeze(1), *sides)
        pick = torch.where((fast <= 0).unsqueeze(1), law.flux(right, axis), pick)
        expected = torch.where((slow >= 0).unsqueeze(1), law.flux(left, axis), pick)
        torch.testing.assert_close(fluxes.HLLC()(law, left, right, axis), expected)
    # Where both depths and speeds are mirrored the contact stands.
    still = law.contact(left, left * mirror(law, 0), *(s * (left[:, 0] * 0 + 1) for s in (-9.0, 9.0)), 0)
    torch.testing.assert_close(still, torch.zeros_like(still))


@pytest.mark.parametrize("name", ["water1", "gas2"])
@pytest.mark.parametrize("speeds", fluxes.SPEEDS)
def test_hll_is_the_formula_and_its_speeds_hold_the_exact_ones(name, speeds):
    law = FLUIDS[name]
    left, right = states(law, seed=5), states(law, seed=6)
    slow, fast = (s.unsqueeze(1) for s in fluxes.SPEEDS[speeds](law, left, right, 0))
    f_left, f_right = law.flux(left, 0), law.flux(right, 0)
    middle = fast * f_left - slow * f_right + slow * fast * (law.conserved(right) - law.conserved(left))
    expected = torch.where(slow >= 0, f_left, torch.where(fast <= 0, f_right, middle / (fast - slow)))
    torch.testing.assert_close(fluxes.HLL(speeds)(law, left, right, 0), expected)
    (v_left, c_left), (v_right, c_right) = law.waves(left, 0), law.waves(right, 0)
    assert bool((slow[:, 0] <= v_left - c_left + 1e-12).all())
    assert bool((fast[:, 0] >= v_right + c_right - 1e-12).all())


def test_davis_speeds_are_those_of_the_released_data():
    law = Euler(1)
    left, right = states(law, seed=5), states(law, seed=6)
    (v_left, c_left), (v_right, c_right) = law.waves(left, 0), law.waves(right, 0)
    slow, fast = fluxes.davis(law, left, right, 0)
    c = torch.maximum(c_left, c_right)
    torch.testing.assert_close(slow, torch.minimum(v_left, v_right) - c)
    torch.testing.assert_close(fast, torch.maximum(v_left, v_right) + c)


@pytest.mark.parametrize("name", FLUIDS)
def test_roes_mean_turns_the_jump_of_the_state_into_that_of_the_flux_and_gives_its_dissipation(name):
    law = FLUIDS[name]
    for seed in range(5):
        left, right = states(law, 1, seed=seed), states(law, 1, seed=seed + 50)
        for axis in range(law.dims):
            weight = right[:, 0].sqrt() / (left[:, 0].sqrt() + right[:, 0].sqrt())
            mean = torch.lerp(left, right, weight.unsqueeze(1))
            _, c = law.roe(left, right, axis)
            if isinstance(law, ShallowWater):
                mean[:, 0] = c * c / law.gravity
            else:
                mean[:, 1 + law.dims] = c * c * mean[:, 0] / law.gamma

            def flux(u, axis=axis):
                return law.flux(law.primitive(u.view(1, -1, *[1] * law.dims)), axis).flatten()

            matrix = jacfwd(flux)(law.conserved(mean).flatten())
            jump = (law.conserved(right) - law.conserved(left)).flatten()
            torch.testing.assert_close(matrix @ jump, (law.flux(right, axis) - law.flux(left, axis)).flatten())
            values, vectors = torch.linalg.eig(matrix)
            absolute = (vectors @ torch.diag(values.abs().to(values.dtype)) @ torch.linalg.inv(vectors)).real
            expected = (law.flux(left, axis) + law.flux(right, axis)).flatten() / 2 - absolute @ jump / 2
            got = fluxes.Roe(entropy_fix=False)(law, left, right, axis).flatten()
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("flux", [fluxes.HLLC(), fluxes.HLLC("einfeldt"), fluxes.Roe()], ids=str)
def test_fluxes_are_near_the_exact_one(flux):
    law = Euler(1)
    left, right = states(law, 60, seed=7), states(law, 60, seed=8)
    left[:, 1] *= 0.3
    right[:, 1] *= 0.3
    exact = law.flux(riemann.euler(left[..., 0], right[..., 0], torch.zeros(1, dtype=F64)), 0)
    scale = law.flux(left, 0).abs() + law.flux(right, 0).abs()
    assert float(((flux(law, left, right, 0) - exact).abs() / scale.amax(1, keepdim=True)).mean()) < 0.1


@every
def test_fluxes_have_gradients(law, flux):
    left, right = states(law, 3, seed=9).requires_grad_(), states(law, 3, seed=10).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: flux(law, a, b, law.dims - 1), (left, right))


def test_at_rest_a_flux_has_a_gradient():
    for flux in (fluxes.HLL(), fluxes.Rusanov()):
        pair = torch.zeros(2, 1, 1, 1, dtype=F64, requires_grad=True)
        (slope,) = torch.autograd.grad(flux(Burgers(1), pair[0], pair[1], 0).sum(), pair)
        assert slope.abs().max() == 0, flux


def test_nothing_moves_where_both_speeds_vanish():
    zero = torch.zeros(1, 1, 1, requires_grad=True)
    flux = fluxes.HLL()(Burgers(1), zero, zero, 0)
    assert flux.item() == 0
    assert bool(torch.autograd.grad(flux.sum(), zero)[0].isfinite().all())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fluxes.HLL("toro"), "speeds must be one of davis, einfeldt, got 'toro'"),
        (lambda: fluxes.HLLC("toro"), "speeds must be one of davis, einfeldt"),
        (lambda: fluxes.Godunov()(Euler(1), *[states(Euler(1))] * 2, 0), "Godunov's is for scalar laws, not for Euler"),
        (lambda: fluxes.HLLC()(Burgers(1), *[states(Burgers(1))] * 2, 0), "HLLC is for fluids, not for Burgers"),
        (lambda: fluxes.Roe()(Own(), *[torch.zeros(1, 1, 1)] * 2, 0), "must not be Roe's for Own"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


class Own(Law):
    """A law that is neither scalar nor a fluid to the fluxes."""

    dims = 1
    names = ("u",)

    def flux(self, w, axis):
        return w**3

    def waves(self, w, axis):
        return 3 * w[:, 0] ** 2, None


def test_a_law_of_ones_own_has_rusanovs_and_hll():
    left, right = torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 1.0)
    assert fluxes.HLL()(Own(), left, right, 0).item() == 0.125
    assert fluxes.Rusanov()(Own(), left, right, 0).item() == pytest.approx((0.125 + 1 - 3 * 0.5) / 2)
