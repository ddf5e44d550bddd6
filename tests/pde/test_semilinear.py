"""The stepper: orders against the transform of Cole and Hopf, coefficients against fifty digits, batches, gradients, failures."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from pdebook.diffeq.butcher import ButcherTableau
from pdebook.diffeq.tableaus import HEUN, IMPLICIT_EULER, THREE_EIGHTHS
from pdebook.metrics.order import observed_order
from pdebook.pde import etd, exact, imex
from pdebook.pde.equation import Semilinear, parameter
from pdebook.pde.equations import Advection, Burgers, Diffusion, FisherKPP, FitzHughNagumo, GrayScott, KortewegDeVries
from pdebook.pde.grid import Grid
from pdebook.pde.navier_stokes import Vorticity
from pdebook.pde.semilinear import METHODS, Diverged, Stepper
from pdebook.pde.spectral import Spectral

LINE = Grid(128)


def sine(grid: Grid, amplitudes: tuple[float, ...] = (1.0,)) -> Tensor:
    (x,) = grid.coordinates("nodes")
    scale = torch.tensor(amplitudes, dtype=torch.float64)[:, None, None]
    return scale * torch.sin(2 * math.pi * x / grid.length[0])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def burgers() -> tuple[Burgers, Tensor]:
    """The problem of PDEBench's check C2 and its solution at t = 0.5."""
    return Burgers(LINE, 0.05), exact.cole_hopf(sine(LINE), 0.5, 0.05)


@pytest.mark.parametrize("name", METHODS)
def test_orders(name: str, burgers: tuple[Burgers, Tensor]) -> None:
    equation, end = burgers
    counts = (25, 50)
    with torch.no_grad():
        errors = [
            float((Stepper(equation, 0.5 / n, name).rollout(sine(LINE), n, n)[:, 0] - end).abs().max()) for n in counts
        ]
    order = METHODS[name].order
    # ars443 reaches its order late where the implicit part matters.
    slack = 0.15 if name == "ars443" else 0.1
    assert observed_order(errors, n=counts).order == pytest.approx(order, abs=slack)
    if name == "etdrk4":
        assert errors == pytest.approx([3.8e-7, 2.5e-8], rel=0.03)


@pytest.mark.parametrize("name", METHODS)
def test_orders_with_coupled_channels_and_a_source_in_time(name: str) -> None:
    """u is made a solution by its source; the linear part is a matrix for each mode."""
    grid = Grid(16, 2.0)
    (x,) = grid.coordinates("nodes")
    wave = torch.stack([torch.cos(math.pi * x), 0.5 * torch.sin(math.pi * x)])

    def at(t: float) -> Tensor:
        return (1.0 + 0.3 * math.sin(2 * t)) * wave[None]

    def rate(t: float) -> Tensor:
        return 0.6 * math.cos(2 * t) * wave[None]

    bare = FitzHughNagumo(grid, (0.1, 0.2), 0.1)
    equation = FitzHughNagumo(grid, (0.1, 0.2), 0.1, source=lambda t: rate(t) - bare.rhs(at(t)))
    counts = (10, 20)
    with torch.no_grad():
        errors = [
            float((Stepper(equation, 1.0 / n, name).rollout(at(0.5), n, n, t=0.5)[:, 0] - at(1.5)).abs().max())
            for n in counts
        ]
    # The better ones come from above.
    assert METHODS[name].order - 0.2 < observed_order(errors, n=counts).order < METHODS[name].order + 1.2


def phi(k: int, z: complex) -> mpmath.mpc:
    """φ_k to fifty digits: by its series near zero."""
    z = mpmath.mpmathify(z)
    if abs(z) < 1:
        return mpmath.fsum(z**j / mpmath.factorial(j + k) for j in range(60))
    return (mpmath.exp(z) - mpmath.fsum(z**j / mpmath.factorial(j) for j in range(k))) / z**k


PLACES = [0.0, -1e-9, -1e-4, -0.3, -1.0, 1.0, -5.0, -60.0, -1e4]


@pytest.mark.parametrize("z", [*PLACES, 1e-6j, 1j, 30j, -2.0 + 3j])
@pytest.mark.parametrize("method", [etd.ETDRK1, etd.ETDRK2, etd.ETDRK3, etd.ETDRK4, etd.KROGSTAD4, etd.IFRK4])
def test_coefficients_to_fifty_digits(method: etd.ExponentialMethod, z: complex) -> None:
    rows = method.rows(torch.tensor([z], dtype=torch.complex128 if isinstance(z, complex) else torch.float64), 0.7)
    with mpmath.workdps(50):
        for (decay, weights), c, entries in zip(rows, method.nodes, method.entries, strict=True):
            truth = complex(mpmath.exp(c * mpmath.mpmathify(z)))
            assert abs(complex(decay[0]) - truth) <= 1e-12 * abs(truth)
            for weight, entry in zip(weights, entries, strict=True):
                assert (weight is None) == (not entry)
                if weight is not None:
                    truth = complex(0.7 * mpmath.fsum(w * phi(k, s * mpmath.mpmathify(z)) for w, k, s in entry))
                    # One weight vanishes at z = 0 and has no relative accuracy there.
                    assert abs(complex(weight[0]) - truth) <= 1e-12 * abs(truth) + 1e-15


@pytest.mark.parametrize("method", [etd.ETDRK4, etd.KROGSTAD4, etd.IFRK4, imex.ARS222, imex.CNHEUN])
def test_coefficients_of_a_matrix(method: Any) -> None:
    """Those of its eigenvalues, turned back."""
    values = torch.tensor([[-1e-7, -0.8], [-40.0, -3.0]], dtype=torch.float64)
    turn = torch.tensor([[1.0, 0.4], [-0.3, 1.0]], dtype=torch.float64)
    z = turn @ torch.diag_embed(values) @ turn.inverse()
    for (decay, weights), (own, own_weights) in zip(method.rows(z, 0.3, True), method.rows(values, 0.3), strict=True):
        torch.testing.assert_close(decay, turn @ torch.diag_embed(own) @ turn.inverse(), rtol=1e-11, atol=1e-12)
        for weight, plain in zip(weights, own_weights, strict=True):
            if weight is not None and plain is not None:
                torch.testing.assert_close(
                    weight, turn @ torch.diag_embed(plain) @ turn.inverse(), rtol=1e-11, atol=1e-12
                )


def test_multistep_coefficients_of_a_matrix() -> None:
    values = torch.tensor([[-0.5, -3.0]], dtype=torch.float64)
    turn = torch.tensor([[1.0, 0.4], [-0.3, 1.0]], dtype=torch.float64)
    z = turn @ torch.diag_embed(values) @ turn.inverse()
    for matrices, numbers in zip(
        imex.CNAB2.coefficients(z, 0.3, True), imex.CNAB2.coefficients(values, 0.3), strict=True
    ):
        for matrix, number in zip(matrices, numbers, strict=True):
            torch.testing.assert_close(matrix, turn @ torch.diag_embed(number) @ turn.inverse())


@pytest.mark.parametrize(
    ("method", "factor"),
    [
        (imex.IMEX_EULER, lambda z: 1 / (1 - z)),
        (imex.CNHEUN, lambda z: (1 + z / 2) / (1 - z / 2)),
        (imex.ARS222, lambda z: (1 + (1 - 2 * imex._G) * z) / (1 - imex._G * z) ** 2),
        (
            imex.CARPENTER_KENNEDY4,
            lambda z: math.prod(
                (1 + (b - a) / 2 * z) / (1 - (b - a) / 2 * z)
                for a, b in pairwise((0.0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1.0))
            ),
        ),
    ],
)
def test_what_implicit_methods_make_of_a_mode(method: imex.ImexMethod, factor: Callable[[float], float]) -> None:
    grid, z = Grid(8, 2 * math.pi), -1.7
    u = Stepper(Diffusion(grid, 17.0), 0.1, method).step(sine(grid))
    torch.testing.assert_close(u, factor(z) * sine(grid))


def test_stiff_modes_die_where_they_should() -> None:
    z = torch.tensor([-1e12], dtype=torch.float64)
    for method in (imex.IMEX_EULER, imex.ARS222, imex.ARS443):
        assert abs(float(method.rows(z, 1.0)[-1][0])) < 1e-5
    states, _ = imex.SBDF2.coefficients(z, 1.0)
    assert max(abs(float(value)) for value in states) < 1e-5


@pytest.mark.parametrize("tableau", [HEUN, THREE_EIGHTHS])
def test_any_explicit_tableau_becomes_an_integrating_factor_method(
    tableau: ButcherTableau, burgers: tuple[Burgers, Tensor]
) -> None:
    equation, end = burgers
    method = etd.lawson(tableau)
    errors = [
        float((Stepper(equation, 0.5 / n, method).rollout(sine(LINE), n, n)[:, 0] - end).abs().max()) for n in (50, 100)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(tableau.order, abs=0.1)


def test_a_linear_equation_is_solved_exactly_at_any_step() -> None:
    grid = Grid((8, 6), (1.0, 2.0))
    u = noise(2, 3, 8, 6)
    equation = Advection(grid, (0.3, -0.7), 0.02, channels=3)
    once = Stepper(equation, 0.5).rollout(u, 2, 1, start=True)
    assert once.shape == (2, 3, 3, 8, 6)
    assert torch.equal(once[:, 0], u)
    torch.testing.assert_close(once[:, 2], Stepper(equation, 1.0, "etdrk1").step(u))


def test_a_field_that_is_constant_in_time_comes_back_from_a_steady_source() -> None:
    """ν u_xx + s = 0. Methods whose stages are not all consistent with their own end lack this."""
    grid = Grid(16)
    s = sine(grid, (1.0, 2.0))
    for name in ("etdrk1", "etdrk2", "etdrk3", "etdrk4", "krogstad4", "imex-euler", "cn-heun"):
        u = Stepper(Diffusion(grid, 0.5, source=s), 0.1, name).rollout(s * 2 / (2 * math.pi) ** 2, 4, 4)[:, 0]
        torch.testing.assert_close(u, s * 2 / (2 * math.pi) ** 2)


def test_modes_beyond_the_mask_see_the_linear_part_alone() -> None:
    grid, t = Grid(32), 0.05
    (x,) = grid.coordinates("nodes")
    high = 0.3 * torch.cos(2 * math.pi * 14 * x)[None, None]
    stepper = Stepper(Burgers(grid, 0.01), t / 10)
    both = stepper.rollout(sine(grid) + high, 10, 5)
    alone = stepper.rollout(sine(grid), 10, 5)
    for k in (0, 1):
        decay = math.exp(-0.01 * (2 * math.pi * 14) ** 2 * t * (k + 1) / 2)
        torch.testing.assert_close(both[:, k] - alone[:, k], decay * high)
    # A coupled one too, against its whole basis.
    equation = FitzHughNagumo(grid, (1e-3, 5e-3))
    whole = FitzHughNagumo(grid, (1e-3, 5e-3), dealias=False)
    tiny = torch.cat([high, -high], 1) * 1e-8
    torch.testing.assert_close(
        Stepper(equation, 0.1).step(tiny) - Stepper(equation, 0.1).step(0 * tiny),
        Stepper(whole, 0.1).step(tiny) - Stepper(whole, 0.1).step(0 * tiny),
        rtol=1e-5,
        atol=1e-14,
    )


@pytest.mark.parametrize("name", ["etdrk4", "sbdf3", "cnab2"])
def test_saving_does_not_change_the_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = Stepper(Burgers(LINE, 0.05), 0.01, name)
    u = sine(LINE, (1.0, 0.5))
    every = stepper.rollout(u, 6)
    assert every.shape == (2, 6, 1, 128)
    torch.testing.assert_close(stepper.rollout(u, 6, 3), every[:, 2::3])
    monkeypatch.setattr("pdebook.pde.semilinear._STRETCH", 2)
    torch.testing.assert_close(stepper.rollout(u, 6, 3), every[:, 2::3])
    if name == "etdrk4":
        for k in range(6):
            u = stepper.step(u)
            torch.testing.assert_close(u, every[:, k])


def equations(batch: int, samples: slice, wanted: bool = False) -> list[tuple[Semilinear, Tensor]]:
    """Equations whose parameters differ by sample, for some samples of a batch, with starts for all."""

    def spread(low: float, high: float) -> Tensor:
        return torch.linspace(low, high, batch, dtype=torch.float64)[samples].requires_grad_(wanted)

    line, plane = Grid(12), Grid((12, 12))
    force = noise(batch, 1, 12, seed=1)[samples]
    return [
        (Burgers(line, spread(0.01, 0.1), source=force), noise(batch, 1, 12)),
        (KortewegDeVries(line, spread(1, 6), spread(1e-3, 2e-3), spread(0, 1e-5)), noise(batch, 1, 12)),
        (Advection(plane, (spread(0, 1), 0.5), spread(0, 0.1)), noise(batch, 1, 12, 12)),
        (FisherKPP(line, spread(0.01, 0.1), spread(1, 2)), noise(batch, 1, 12).sigmoid()),
        (FitzHughNagumo(plane, (spread(0.01, 0.02), 0.02), spread(0, 0.1)), noise(batch, 2, 12, 12)),
        (GrayScott(plane, (0.02, spread(0.01, 0.02)), spread(0.02, 0.04), spread(0.05, 0.06)), noise(batch, 2, 12, 12)),
        (Vorticity(plane, spread(0.01, 0.1), drag=spread(0, 1), beta=spread(0, 10)), noise(batch, 1, 12, 12)),
    ]


@pytest.mark.parametrize("index", range(7))
def test_samples_with_their_own_parameters_are_those_computed_alone(
    index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    equation, u = equations(5, slice(None))[index]
    stepper = Stepper(equation, 0.01)
    together = stepper.rollout(u, 3, 3)
    for i in range(5):
        alone = Stepper(equations(5, slice(i, i + 1))[index][0], 0.01).rollout(u[i : i + 1], 3, 3)
        torch.testing.assert_close(together[i : i + 1], alone)
    # Without gradients a batch goes in blocks.
    monkeypatch.setattr("pdebook.pde.semilinear._BLOCK", 2 * u[0].numel())
    with torch.no_grad():
        assert stepper._block(u) == 2
        torch.testing.assert_close(stepper.rollout(u, 3, 3), together)
        torch.testing.assert_close(stepper.rollout(u, 3, 3), together)
    assert stepper._block(u) == 5


@pytest.mark.parametrize(
    ("index", "method"),
    [
        (0, "etdrk4"),
        (0, "sbdf2"),
        (1, "etdrk2"),
        (2, "cn-heun"),
        (3, "etdrk1"),
        (4, "etdrk2"),
        (5, "ars222"),
        (6, "ifrk4"),
    ],
)
def test_gradients(index: int, method: str) -> None:
    equation, u = equations(2, slice(None), wanted=True)[index]
    u = (0.3 * u).requires_grad_()
    names = [name for name, value in equation.parameters.items() if isinstance(value, Tensor)]
    stepper = Stepper(equation, 0.01, method)
    assert equation.requires_grad

    def end(u: Tensor, *values: Tensor) -> Tensor:
        for name, value in zip(names, values, strict=True):
            equation.parameters[name] = parameter(value, name, equation.grid.dims)
        return stepper.rollout(u, 2, 2)

    leaves = [torch.linspace(0.1, 0.2, 2, dtype=torch.float64).requires_grad_() for _ in names]
    assert torch.autograd.gradcheck(end, (u, *leaves), fast_mode=True)


def test_a_source_has_gradients_and_a_parameter_is_not_kept_from_an_earlier_value() -> None:
    force = noise(1, 1, 12).requires_grad_()
    equation = Burgers(Grid(12), 0.05, source=force)
    stepper = Stepper(equation, 0.01)
    assert torch.autograd.gradcheck(lambda f: _with_source(equation, stepper, f), force)
    viscosity = torch.tensor([0.01], dtype=torch.float64, requires_grad=True)
    stepper = Stepper(Burgers(Grid(12), viscosity), 0.01)
    with torch.no_grad():
        before = stepper.step(noise(1, 1, 12))
        viscosity += 0.1
        assert (stepper.step(noise(1, 1, 12)) - before).abs().max() > 1e-3


def _with_source(equation: Burgers, stepper: Stepper, force: Tensor) -> Tensor:
    equation.source = force
    return stepper.rollout(noise(1, 1, 12, seed=2), 2, 2)


@pytest.mark.parametrize("method", ["etdrk4", "sbdf3"])
def test_checkpoints_change_memory_only(method: str) -> None:
    stepper = Stepper(Burgers(Grid(16), 0.05), 0.01, method)
    u = noise(2, 1, 16).requires_grad_()
    gradients = []
    for checkpoint in (0, 1, 3):
        result = stepper.rollout(u, 8, 4, checkpoint=checkpoint)
        gradients.append(torch.autograd.grad(result.square().sum(), u)[0])
        assert torch.equal(result, stepper.rollout(u.detach(), 8, 4))
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_the_right_hand_side_is_the_rate_of_a_step() -> None:
    for equation, u in equations(2, slice(None)):
        h = 1e-7
        torch.testing.assert_close((Stepper(equation, h).step(u) - u) / h, equation.rhs(u), rtol=1e-3, atol=1e-3)


def test_precision() -> None:
    for equation, u in equations(2, slice(None)):
        stepper = Stepper(equation, 0.01)
        single = stepper.rollout(u.float(), 5, 5)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), stepper.rollout(u, 5, 5), rtol=1e-4, atol=2e-5)


def test_courant_number() -> None:
    grid = Grid((8, 16), (1.0, 4.0))
    u = torch.zeros(2, 2, 8, 16)
    u[1, :, 3, 4] = torch.tensor([-2.0, 1.0])
    assert Burgers(grid).courant(u, 0.1).tolist() == pytest.approx([0.0, 0.1 * (2.0 / 0.125 + 1.0 / 0.25)])
    # To the last digits also where the spacing is no sum of few powers of two.
    fine = Burgers(Grid((7,))).courant(torch.ones(1, 1, 7, dtype=torch.float64), 0.1)
    assert float(fine) == pytest.approx(0.7, rel=1e-14)
    assert Diffusion(grid).courant(u[:, :1], 0.1).tolist() == [0.0, 0.0]


class Growth(Diffusion):
    """Heat that flows backwards."""

    def linear(self, basis: Spectral) -> Tensor:
        return -20 * super().linear(basis)


def test_a_sample_that_diverges_is_named_with_step_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(64)
    u = sine(grid, (1.0, 1000.0, 1.0, 300.0))
    stepper = Stepper(Burgers(grid, 1e-4), 0.01)
    words = r"2 of 4 samples stopped .* \(samples 1, 3\), first in step \d, which ends at t = 2\.0\d; dt = 0.01; .* number is 640"
    with pytest.raises(Diverged, match=words) as caught:
        stepper.rollout(u, 60, 30, t=2.0)
    assert caught.value.first_bad[[0, 2]].tolist() == [0, 0]
    assert 1 <= caught.value.first_bad[1] < caught.value.first_bad[3] < 60
    each = stepper.rollout(u, 60, check=False).flatten(2).isfinite().all(2)
    assert caught.value.first_bad[[1, 3]].tolist() == (each[[1, 3]].sum(1) + 1).tolist()
    assert caught.value.result[[0, 2]].isfinite().all()
    assert not caught.value.result[[1, 3], -1].isfinite().any()
    assert not stepper.rollout(u, 60, 30, check=False)[1].isfinite().all()
    # A mode that overflows alone is seen at the end.
    with pytest.raises(
        Diverged, match=r"1 of 1 samples .* \(samples 0\), first in step 2, which ends at t = 2; dt = 1$"
    ):
        Stepper(Growth(grid), 1.0).rollout(sine(grid), 2, 2)
    monkeypatch.setattr("pdebook.pde.semilinear._BLOCK", 64)
    with torch.no_grad(), pytest.raises(Diverged, match=words):
        stepper.rollout(u, 60, 30, t=2.0)


@pytest.mark.parametrize("method", ["etdrk4", "sbdf2"])
def test_nothing_is_read_between_steps(method: str, reads: Any) -> None:
    counts = []
    for steps in (4, 12):
        stepper = Stepper(Burgers(Grid(16), 0.05), 0.01, method)
        stepper.rollout(noise(2, 1, 16), 4, 2)
        reads.count = 0
        stepper.rollout(noise(2, 1, 16), steps, 2)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0
    stepper.rollout(noise(2, 1, 16), 4, 2, check=False)
    reads.count = 0
    stepper.rollout(noise(2, 1, 16), 4, 2, check=False)
    assert reads.count == 0


def test_a_basis_of_degree_one_keeps_the_aliases() -> None:
    assert Burgers(Grid(12), dealias=False).basis.mask.all()
    assert Burgers(Grid(12)).basis.columns == 4


STEPPER = Stepper(Burgers(Grid(12), torch.tensor([0.1, 0.2, 0.3])), 0.1)
U = torch.zeros(3, 1, 12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Stepper(Burgers(LINE), 0.0), "dt must be positive and finite, got 0.0"),
        (lambda: Stepper(Burgers(LINE), math.nan), "dt must be positive and finite, got nan"),
        (lambda: Stepper(Burgers(LINE), 0.1, "rk4"), "method must be one of etdrk1, .*, got 'rk4'"),
        (lambda: STEPPER.rollout(U, 0), "steps must be a positive multiple of every, got 0 and 1"),
        (lambda: STEPPER.rollout(U, 5, 2), "steps must be a positive multiple of every, got 5 and 2"),
        (lambda: STEPPER.rollout(U, 2, 0), "steps must be a positive multiple of every, got 2 and 0"),
        (lambda: STEPPER.rollout(U, 2, checkpoint=-1), "checkpoint must not be negative, got -1"),
        (lambda: STEPPER.rollout(U[:2], 2), "u has 2 samples, but the equation's parameters are for 3"),
        (lambda: STEPPER.rollout(U[0], 2), r"u must have shape \(batch, 1, 12\), got \(1, 12\)"),
        (lambda: STEPPER.rollout(U.expand(3, 2, 12), 2), r"u must have shape \(batch, 1, 12\), got \(3, 2, 12\)"),
        (lambda: STEPPER.rollout(U[..., :11], 2), r"u must have shape \(batch, 1, 12\), got \(3, 1, 11\)"),
        (lambda: STEPPER.rollout(U.long(), 2), "floating-point, got torch.int64"),
        (lambda: STEPPER.rollout(U.half(), 2), "u must be float32 or float64, got torch.float16"),
        (
            lambda: STEPPER.rollout(U + torch.tensor([0, math.inf, math.nan])[:, None, None], 2),
            "u must be finite, samples 1, 2",
        ),
        (lambda: STEPPER.equation.rhs(U[..., :11]), r"u must have shape \(batch, 1, 12\)"),
        (lambda: Burgers(LINE, source=torch.zeros(1, 1, 12)), r"source must have shape \(batch, 1, 128\)"),
        (lambda: Burgers(LINE, source=torch.full((1, 1, 128), math.nan)), "source must be finite"),
        (
            lambda: Stepper(Burgers(LINE, source=lambda t: torch.zeros(12)), 0.1).step(sine(LINE)),
            r"source must have shape \(batch, 1, 128\), got \(12,\)",
        ),
        (lambda: Burgers(Grid(3)), "size must exceed 3"),
        (lambda: Burgers(LINE, -1.0), "viscosity must be finite and not negative, got -1"),
        (lambda: Burgers(LINE, math.inf), "viscosity must be finite and not negative, got inf"),
        (lambda: Burgers(LINE, torch.tensor([0.1, -2.0])), "viscosity must be finite and not negative, got -2"),
        (
            lambda: Burgers(LINE, torch.zeros(2, 1)),
            r"viscosity must be a number or one for each sample, .* got shape \(2, 1\)",
        ),
        (lambda: Burgers(LINE, torch.zeros(0)), r"viscosity must be a number or one for each sample"),
        (lambda: etd.ExponentialMethod("x", 1, (1.0,), ()), "x: entries must have a row for each of 1 nodes"),
        (lambda: etd.ExponentialMethod("x", 1, (1.0,), (((), ()),)), "x: entries must have a row"),
        (lambda: etd.ExponentialMethod("x", 1, (1.0,), ((((0.5, 0, 1.0),),),)), "x: the row of node 1.0 sums to 0.5"),
        (lambda: etd.lawson(IMPLICIT_EULER), "tableau must be explicit, implicit-euler is not"),
        (
            lambda: etd.lawson(ButcherTableau("back", 1, ((), (0.5,), (0.0, 0.2)), (0.0, 0.0, 1.0))),
            "tableau must have nodes that do not decrease, back",
        ),
        (lambda: imex.ImexMethod("x", 1, ((1.0,),), ((1.0,),)), "x: row 0 must hold 1 explicit and 2 implicit numbers"),
        (lambda: imex.ImexMethod("x", 1, ((1.0,),), ((0.5, 0.4),)), r"x: row 0 sums to 1.0 \(explicit\) and 0.9"),
    ],
)
def test_bad_input_is_named(call, words) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_a_matrix_without_coupling_gives_what_numbers_give() -> None:
    class Apart(FitzHughNagumo):
        def linear(self, basis: Spectral) -> Tensor:
            symbol = super().linear(basis).clone()
            symbol[:, 0, 1] = symbol[:, 1, 0] = 0
            return symbol

    class Plain(FitzHughNagumo):
        def linear(self, basis: Spectral) -> Tensor:
            return torch.stack([super(Plain, self).linear(basis)[:, i, i] for i in (0, 1)], 1)

    u = noise(2, 2, 12)
    for name in ("etdrk4", "ars443", "sbdf3"):
        results = [Stepper(kind(Grid(12)), 0.05, name).rollout(u, 4, 4) for kind in (Apart, Plain)]
        torch.testing.assert_close(*results)


def test_a_source_that_is_a_function_keeps_the_batch_together(monkeypatch: pytest.MonkeyPatch) -> None:
    force = noise(3, 1, 12)
    monkeypatch.setattr("pdebook.pde.semilinear._BLOCK", 12)
    steppers = [Stepper(Burgers(Grid(12), 0.1, source=source), 0.01) for source in (force, lambda t: force)]
    with torch.no_grad():
        results = [stepper.rollout(noise(3, 1, 12), 2, 2) for stepper in steppers]
    torch.testing.assert_close(*results)
