"""The operator of a box against its matrix, and the cycle against what multigrid promises: counts that do not grow."""

import math

import pytest
import torch

from pdebook.algebra.conjugate_gradient import conjugate_gradient
from pdebook.algebra.multigrid import BoxOperator, Multigrid, coarsest


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def box(size: tuple[int, ...], batch: int = 2, periodic: tuple[bool, ...] = (), shift: bool = True, seed: int = 0):
    """Random positive weights."""
    faces = []
    for axis in range(len(size)):
        shape = [n + (axis == other) for other, n in enumerate(size)]
        face = draw(batch, 1, *shape, seed=seed + axis).abs() + 0.1
        if periodic and periodic[axis]:
            face.narrow(axis + 2, size[axis], 1).copy_(face.narrow(axis + 2, 0, 1))
        faces.append(face)
    return BoxOperator(tuple(faces), draw(batch, 1, *size, seed=9).square() if shift else None, periodic)


def dirichlet(a: torch.Tensor) -> BoxOperator:
    """-∇·(a ∇u) on the unit square or cube, zero on the walls, harmonic means."""
    faces = []
    for axis in range(2, a.ndim):
        n = a.shape[axis]
        low, high = a.narrow(axis, 0, n - 1), a.narrow(axis, 1, n - 1)
        inner = 2 * low * high / (low + high)
        faces.append(torch.cat([2 * a.narrow(axis, 0, 1), inner, 2 * a.narrow(axis, n - 1, 1)], axis) * n**2)
    return BoxOperator(tuple(faces))


def matrix(operator: BoxOperator, shape: tuple[int, ...]) -> torch.Tensor:
    return operator.operator(shape).dense(len(operator.faces[0]), torch.float64)


@pytest.mark.parametrize("periodic", [(False, False), (True, False), (True, True)])
def test_products_are_sums_over_faces(periodic):
    size = (4, 3)
    operator = box(size, periodic=periodic)
    u = draw(2, 1, *size, seed=5)
    wanted = operator.shift * u
    for i in range(4):
        for j in range(3):
            for axis in (0, 1):
                for side in (0, 1):
                    face = [i, j]
                    face[axis] += side
                    other = [i, j]
                    other[axis] += 2 * side - 1
                    inside = 0 <= other[axis] < size[axis]
                    if periodic[axis]:
                        other[axis] %= size[axis]
                    beyond = u[..., other[0], other[1]] if inside or periodic[axis] else 0.0
                    wanted[..., i, j] += operator.faces[axis][..., face[0], face[1]] * (u[..., i, j] - beyond)
    torch.testing.assert_close(operator(u), wanted)
    f = draw(2, 1, *size, seed=6)
    torch.testing.assert_close(operator.subtract(f, u), f - wanted)
    dense = matrix(operator, (1, *size))
    torch.testing.assert_close(dense, dense.mT)
    torch.testing.assert_close(operator.diagonal.flatten(1), dense.diagonal(dim1=1, dim2=2))
    assert bool((torch.linalg.eigvalsh(dense) > 0).all())
    # The smoother's interval: D^{-1} A has no eigenvalue above 2.
    assert float(torch.linalg.eigvals(dense / operator.diagonal.flatten(1)[..., None]).real.max()) <= 2


@pytest.mark.parametrize("size", [(8,), (4, 6), (2, 4, 2)])
def test_the_coarse_operator_is_galerkins_with_half_the_fluxes(size):
    operator = box(size)
    half = tuple(n // 2 for n in size)
    children = torch.ones(1, dtype=torch.float64)
    for n in half:
        children = torch.kron(children, torch.eye(n, dtype=torch.float64).repeat_interleave(2, 0))
    flux = BoxOperator(operator.faces)
    galerkin = children.T @ matrix(flux, (1, *size)) @ children / 2 ** len(size)
    shift = torch.diag_embed((operator.shift.flatten(1) @ children) / 2 ** len(size))
    torch.testing.assert_close(matrix(operator.coarser(), (1, *half)), 0.5 * galerkin + shift)


def test_constant_coefficients_are_coarsened_to_themselves():
    coarse, direct = dirichlet(torch.ones(1, 1, 8, 16).double()).coarser(), dirichlet(torch.ones(1, 1, 4, 8).double())
    for a, b in zip(coarse.faces, direct.faces, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cycle", ["V", "W"])
@pytest.mark.parametrize(("size", "periodic"), [((16, 8), (False, True)), ((32,), ()), ((4, 8, 8), ())])
def test_the_cycle_is_symmetric_and_positive(cycle, size, periodic):
    operator = box(size, 1, periodic)
    solver = Multigrid(operator, cycle=cycle, degree=2, cells=8)
    assert len(solver.levels) >= 2
    units = torch.eye(math.prod(size), dtype=torch.float64).view(-1, 1, *size)
    approximate = solver(units).flatten(1)
    torch.testing.assert_close(approximate, approximate.T, rtol=0, atol=1e-12)
    assert float(torch.linalg.eigvalsh(approximate).min()) > 0


def test_one_level_is_the_inverse_and_kernels_are_left_out():
    operator = box((4, 4))
    r = draw(2, 1, 4, 4, seed=3)
    torch.testing.assert_close(operator(Multigrid(operator)(r)), r)
    ring = box((4, 4), periodic=(True, True), shift=False)
    r = r - r.mean((2, 3), keepdim=True)
    torch.testing.assert_close(ring(Multigrid(ring)(r)), r)
    pocket = box((4, 4), shift=False)
    for face in pocket.faces:
        face[..., 1:3, 1:3] = 0  # some cells get few or no neighbours
    pocket = BoxOperator(pocket.faces)
    f = pocket(r)
    torch.testing.assert_close(pocket(Multigrid(pocket)(f)), f)


def ellipse(n: int, contrast: float) -> torch.Tensor:
    """Two inclusions with smooth edges in a box, the same at every size."""
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x, y = x[:, None], x[None]
    inside = ((x - 0.37) ** 2 + 2 * (y - 0.31) ** 2 < 0.04) | ((x - 0.68) ** 2 + 0.6 * (y - 0.71) ** 2 < 0.03)
    return torch.where(inside, contrast, 1.0).double()[None, None]


@pytest.mark.parametrize("contrast", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("cycle", ["V", "W"])
def test_counts_do_not_grow_with_the_size(cycle, contrast):
    counts = []
    for n in (64, 128, 256):
        operator = dirichlet(ellipse(n, contrast))
        f = torch.ones(1, 1, n, n, dtype=torch.float64)
        result = conjugate_gradient(operator, f, preconditioner=Multigrid(operator, cycle=cycle), rtol=1e-8)
        counts.append(int(result.iterations))
    assert max(counts) <= (16 if contrast > 1 else 14 if contrast < 1 else 8)
    assert counts[2] <= counts[0] + 4


def test_cycles_alone_converge_and_agree_with_elimination():
    operator = dirichlet(torch.cat([torch.ones(1, 1, 32, 32).double(), ellipse(32, 5.0)]))
    f = draw(2, 1, 32, 32)
    solver = Multigrid(operator)
    result = solver.solve(f, rtol=1e-10)
    exact = torch.linalg.solve(matrix(operator, (1, 32, 32)), f.flatten(1)).view_as(f)
    torch.testing.assert_close(result.x, exact, rtol=0, atol=1e-9 * float(exact.abs().max()))
    assert int(result.iterations[0]) <= 14
    assert int(result.iterations[1]) <= 25
    alone = Multigrid(dirichlet(ellipse(32, 5.0))).solve(f[1:], rtol=1e-10)
    torch.testing.assert_close(alone.x[0], result.x[1], rtol=0, atol=1e-13)
    assert int(alone.iterations[0]) == int(result.iterations[1])
    short = solver.solve(f, rtol=1e-10, max_iterations=2, raise_on_failure=False)
    assert short.iterations.tolist() == [2, 2]
    assert not bool(short.converged.any())
    assert solver.solve(f, exact, rtol=1e-9).iterations.tolist() == [0, 0]


@pytest.mark.parametrize(("dims", "size"), [(1, 512), (3, 16)])
def test_other_dimensions(dims, size):
    a = torch.exp(0.5 * draw(1, 1, *[size] * dims))
    operator = dirichlet(a)
    f = torch.ones_like(a)
    result = conjugate_gradient(operator, f, preconditioner=Multigrid(operator), rtol=1e-8)
    assert int(result.iterations) <= 14


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_the_smoother_is_chebyshevs_polynomial(degree):
    """The error's factor at the eigenvalue λ of D^{-1} A is T_k((5/4 - λ)/(3/4)) / T_k(5/3)."""
    operator = box((6,), 1)
    solver = Multigrid(operator, degree=degree, cells=4)
    values, vectors = torch.linalg.eig(matrix(operator, (1, 6))[0] / operator.diagonal.view(-1, 1))
    values, vectors = values.real, vectors.real
    polynomial = torch.special.chebyshev_polynomial_t((1.25 - values) / 0.75, degree)
    scale = torch.special.chebyshev_polynomial_t(torch.tensor(5 / 3, dtype=torch.float64), degree)
    u, start = draw(1, 1, 6, seed=4), draw(1, 1, 6, seed=5)
    factor = vectors @ torch.diag(polynomial / scale) @ torch.linalg.inv(vectors)
    for guess in (None, start):
        error = solver._smooth(0, guess, operator(u)) - u
        before = (torch.zeros_like(u) if guess is None else guess) - u
        torch.testing.assert_close(error[0, 0], factor @ before[0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cycle", ["V", "W"])
def test_the_cycle_is_the_product_of_its_parts(cycle):
    """E = S (1 - P E_c R A) S with three levels, P constant on cells, R its mean, the coarse error by one or two visits."""
    operator = box((16,), 1)
    solver = Multigrid(operator, cycle=cycle, degree=2, cells=4)
    fine, middle, coarse = (matrix(level, (1, *level.size))[0] for level in solver.levels)
    smooths = []
    for level, a in ((0, fine), (1, middle)):
        n = len(a)
        units = torch.eye(n, dtype=torch.float64).view(n, 1, n)
        smooths.append(solver._smooth(level, units, torch.zeros_like(units))[:, 0].T)

    def approximate(a, smooth, below):
        n = len(a)
        up = torch.eye(n // 2, dtype=torch.float64).repeat_interleave(2, 0)
        error = smooth @ (torch.eye(n) - up @ below @ (up.T / 2) @ a) @ smooth
        return (torch.eye(n) - error) @ torch.linalg.inv(a)

    below = approximate(middle, smooths[1], torch.linalg.inv(coarse))
    if cycle == "W":
        below = 2 * below - below @ middle @ below
    whole = solver(torch.eye(16, dtype=torch.float64).view(16, 1, 16))[:, 0].T
    torch.testing.assert_close(whole, approximate(fine, smooths[0], below), rtol=0, atol=1e-11)


def test_single_precision_and_the_size_of_the_coarsest_level():
    operator = dirichlet(ellipse(64, 100.0).float())
    f = torch.ones(1, 1, 64, 64)
    x = conjugate_gradient(operator, f, preconditioner=Multigrid(operator)).x
    assert x.dtype == torch.float32
    exact = conjugate_gradient(dirichlet(ellipse(64, 100.0)), f.double(), rtol=1e-9, max_iterations=3000).x
    assert float((x - exact).abs().max()) < 1e-4 * float(exact.max())
    assert coarsest((48, 32)) == (6, 4)
    assert coarsest((100, 100)) == (25, 25)
    assert coarsest((8, 8)) == (8, 8)
    assert [level.size for level in Multigrid(operator, cells=20).levels][-1] == (4, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: BoxOperator(()), "faces must hold the weights of one axis at least"),
        (lambda: BoxOperator((torch.ones(5),), periodic=(True, True)), "one entry for each of the 1 axes, got 2"),
        (
            lambda: BoxOperator((torch.ones(4, 3), torch.ones(4, 4))),
            r"faces must hold .* \(\.\.\., 3, 4\) along axis 1",
        ),
        (lambda: BoxOperator((torch.ones(1),)), "for a cell at least"),
        (lambda: BoxOperator((torch.ones(4, 3), torch.ones(3, 4).double())), "of one dtype"),
        (lambda: BoxOperator((torch.ones(5),), torch.ones(3)), r"shift must broadcast to \(\.\.\., 4\), got \(3,\)"),
        (lambda: Multigrid(BoxOperator((-torch.ones(5),))), "operator must have finite weights that are not negative"),
        (lambda: Multigrid(BoxOperator((torch.full((5,), torch.nan),))), "operator must have finite weights"),
        (
            lambda: Multigrid(BoxOperator((torch.arange(5.0),), periodic=(True,))),
            "operator must have equal weights on the first and the last face of the periodic axis 0",
        ),
        (lambda: Multigrid(box((8, 8)))(torch.ones(3, 1, 8, 8).double()), "r must have the box as its last axes"),
        (lambda: Multigrid(box((8, 8)))(torch.ones(2, 1, 8, 9).double()), "r must have the box as its last axes"),
        (lambda: BoxOperator((torch.ones(4, dtype=torch.int64),)), "faces must hold floating-point weights"),
        (lambda: box((6, 5)).coarser(), r"size must be even along each axis to be halved, got \(6, 5\)"),
        (lambda: Multigrid(box((33, 32))), r"size must halve until .* got \(33, 32\), which ends at \(33, 32\)"),
        (lambda: Multigrid(box((8, 8)), cycle="X"), "cycle must be 'V' or 'W', got 'X'"),
        (lambda: Multigrid(box((8, 8)), degree=0), "degree must be at least 1, got 0"),
        (lambda: Multigrid(box((8, 8))).solve(torch.full((2, 1, 8, 8), torch.nan)), "b must be finite"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
