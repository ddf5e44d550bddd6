"""Runge-Kutta methods as data: coefficients whose order conditions are checked where they are made.

A step from t to t + h with state y evaluates stages and combines them,

    k_i = f(t + c_i h, y + h Σ_j a_ij k_j),    y_1 = y + h Σ_i b_i k_i,    error = h Σ_i b_error_i k_i,

and inside the step the solution is y(θ) = y + h Σ_i b_i(θ) k_i for 0 <= θ <= 1. ``TABLEAUS`` holds the methods by name.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

Row = tuple[float, ...]
Tree = tuple[Any, ...]
"""A rooted tree: its root's branches. The tree of one node is ()."""

_TOLERANCE = 1e-9


@cache
def rooted_trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with ``order`` nodes; each gives one condition for a method of that order (Butcher)."""
    if order == 1:
        return ((),)
    return tuple(branches for branches in _forests(order - 1, order - 1))


@cache
def _forests(nodes: int, largest: int) -> tuple[Tree, ...]:
    """Multisets of trees with ``nodes`` nodes together, each of at most ``largest``."""
    if nodes == 0:
        return ((),)
    found: list[Tree] = []
    for size in range(min(nodes, largest), 0, -1):
        for count in range(1, nodes // size + 1):
            for same in combinations_with_replacement(rooted_trees(size), count):
                found += [(*same, *rest) for rest in _forests(nodes - size * count, size - 1)]
    return tuple(found)


def _size(tree: Tree) -> int:
    return 1 + sum(_size(branch) for branch in tree)


def _density(tree: Tree) -> int:
    return _size(tree) * math.prod(_density(branch) for branch in tree)


def order_defects(a: np.ndarray, b: np.ndarray, order: int) -> dict[int, float]:
    """Largest violation of the order conditions Σ_i b_i Φ_i(τ) = 1/γ(τ) over the trees τ of each order up to ``order``.

    Φ_i(τ) is the product over τ's branches of Σ_j a_ij Φ_j(branch), γ(τ) the density.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, theorem II.2.13.
    """
    known: dict[Tree, np.ndarray] = {}

    def weight(tree: Tree) -> np.ndarray:
        if tree not in known:
            known[tree] = math.prod((a @ weight(branch) for branch in tree), start=np.ones(len(b)))
        return known[tree]

    return {
        p: max(abs(float(b @ weight(tree)) - 1.0 / _density(tree)) for tree in rooted_trees(p))
        for p in range(1, order + 1)
    }


@dataclass(frozen=True)
class ButcherTableau:
    """Coefficients of an explicit or diagonally implicit Runge-Kutta method, made ready for the engine.

    A method whose last stage is not the field at the end of the step gets that stage added: the engine hands it to the next step
    (first same as last), and it lets every method interpolate.

    Args:
        name: the method's name.
        order: order of convergence.
        a: row i holds the a_ij; strictly lower triangular, or lower triangular with one diagonal value for implicit stages.
        b: weights of the step.
        b_error: b minus the weights of the embedded method; empty for a method without error estimate.
        embedded_order: order of the embedded method.
        dense: b_i(θ) as polynomials, row i with the coefficients of θ, θ², ...; the cubic Hermite polynomial if left out.
        nodes: c_i, where row sums of a give them with less accuracy.
    Raises:
        ValueError: shapes that disagree, stages that are not lower triangular, order conditions that fail for the step or
            its embedded method, or a dense output that does not end where the step ends.
    """

    name: str
    order: int
    a: tuple[Row, ...]
    b: Row
    b_error: Row = ()
    embedded_order: int = 0
    dense: tuple[Row, ...] = ()
    nodes: Row = ()
    stage_matrix: np.ndarray = field(init=False, repr=False, compare=False)
    c: Row = field(init=False)
    interpolation: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        stages = len(self.b)
        if len(self.a) != stages or any(len(row) > i + 1 for i, row in enumerate(self.a)):
            raise ValueError(f"{self.name}: a must have {stages} rows, row i with at most i + 1 numbers")
        if self.b_error and len(self.b_error) != stages:
            raise ValueError(f"{self.name}: b_error must have {stages} numbers, got {len(self.b_error)}")
        if self.nodes and len(self.nodes) != stages:
            raise ValueError(f"{self.name}: nodes must have {stages} numbers, got {len(self.nodes)}")
        a = np.zeros((stages, stages))
        for i, row in enumerate(self.a):
            a[i, : len(row)] = row
        diagonal = a.diagonal()
        if diagonal[0] != 0 or len(set(diagonal[1:][diagonal[1:] != 0])) > 1:
            raise ValueError(f"{self.name}: the first stage must be explicit and implicit ones have one diagonal value")
        if self.nodes and np.abs(a.sum(1) - self.nodes).max() > 1e-12:
            raise ValueError(f"{self.name}: nodes must be the row sums of a")
        b = np.asarray(self.b)
        self._check("step", a, b, self.order)
        if self.b_error:
            self._check("embedded method", a, b - np.asarray(self.b_error), self.embedded_order)
        if not (np.allclose(a[-1], b, rtol=0, atol=1e-15) and abs(a[-1].sum() - 1.0) < 1e-12):
            a = np.block([[a, np.zeros((stages, 1))], [b[None], np.zeros((1, 1))]])
            b = np.append(b, 0.0)
            object.__setattr__(self, "b", tuple(b))
            object.__setattr__(self, "b_error", (*self.b_error, 0.0) if self.b_error else ())
            object.__setattr__(self, "nodes", (*self.nodes, 1.0) if self.nodes else ())
        object.__setattr__(self, "stage_matrix", a)
        object.__setattr__(self, "c", self.nodes or tuple(np.round(a.sum(1), 15)))
        polynomials = np.asarray(self.dense) if self.dense else _hermite(b)
        if polynomials.shape[0] != len(b) or np.abs(polynomials.sum(1) - b).max() > 1e-9:
            raise ValueError(f"{self.name}: dense must have one row for each of {len(b)} stages, and give b at θ = 1")
        object.__setattr__(self, "interpolation", polynomials)

    def _check(self, what: str, a: np.ndarray, b: np.ndarray, order: int) -> None:
        for p, defect in order_defects(a, b, order).items():
            if not defect < _TOLERANCE:
                raise ValueError(f"{self.name}: the {what} violates a condition of order {p} by {defect:.2g}")

    @property
    def stages(self) -> int:
        """Number of stages, the added one included."""
        return len(self.b)

    @property
    def implicit(self) -> bool:
        """Whether stages must be solved for."""
        return bool(self.stage_matrix.diagonal().any())

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate."""
        return bool(self.b_error)

    @property
    def error_order(self) -> int:
        """Power of h with which the error estimate of one step goes to zero."""
        return min(self.order, self.embedded_order) + 1

    @property
    def lands(self) -> bool:
        """Whether the interpolant is more than one order behind the method, so that steps had better end where one looks."""
        return self.order > self.interpolation.shape[1] + 1

    @property
    def evaluations(self) -> int:
        """Evaluations of the field for an explicit step; the first stage comes from the step before."""
        return self.stages - 1


def _hermite(b: np.ndarray) -> np.ndarray:
    """The cubic through y, y_1 with slopes k_first and k_last there, as polynomials b_i(θ)."""
    polynomials = np.outer(b, [0.0, 3.0, -2.0])
    polynomials[0] += [1.0, -2.0, 1.0]
    polynomials[-1] += [0.0, -1.0, 1.0]
    return polynomials


def _quartic(b: Row, middle: Row) -> tuple[Row, ...]:
    """The quartic that also passes y + h Σ middle_i k_i at θ = 1/2."""
    cubic = _hermite(np.asarray(b))
    at_half = cubic @ [0.5, 0.25, 0.125]
    # θ² (1 - θ)² vanishes with its slope at both ends and is 1/16 in the middle.
    correction = 16.0 * np.outer(np.asarray(middle) - at_half, [0.0, 1.0, -2.0, 1.0])
    return tuple(map(tuple, np.pad(cubic, ((0, 0), (0, 1))) + correction))


def _difference(b: Row, embedded: Row) -> Row:
    return tuple(x - y for x, y in zip(b, embedded, strict=True))


EULER = ButcherTableau("euler", 1, ((),), (1.0,))
MIDPOINT = ButcherTableau("midpoint", 2, ((), (0.5,)), (0.0, 1.0), (-1.0, 1.0), 1)
HEUN = ButcherTableau("heun", 2, ((), (1.0,)), (0.5, 0.5), (-0.5, 0.5), 1)
RALSTON = ButcherTableau("ralston", 2, ((), (2 / 3,)), (0.25, 0.75), (-0.75, 0.75), 1)
BOSH3 = ButcherTableau(
    "bosh3",
    3,
    ((), (0.5,), (0.0, 0.75), (2 / 9, 1 / 3, 4 / 9)),
    (2 / 9, 1 / 3, 4 / 9, 0.0),
    (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    2,
)
RK4 = ButcherTableau("rk4", 4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))

_B: Row = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
DOPRI5 = ButcherTableau(
    "dopri5",
    5,
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _B[:6],
    ),
    _B,
    _difference(_B, (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)),
    4,
    _quartic(
        _B,
        (
            0.5 * 6025192743 / 30085553152,
            0.0,
            0.5 * 51252292925 / 65400821598,
            -0.5 * 2691868925 / 45128329728,
            0.5 * 187940372067 / 1594534317056,
            -0.5 * 1776094331 / 19743644256,
            0.5 * 11237099 / 235043384,
        ),
    ),
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
)
"""Dormand and Prince 1980; dense output of Shampine 1986."""

_B = (
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
    0.0,
)


def _tsit5_dense() -> tuple[Row, ...]:
    """The interpolant's polynomials, multiplied out of their published factors."""
    theta = np.polynomial.Polynomial([0.0, 1.0])
    factors = (
        -1.0530884977290216
        * theta
        * (theta - 1.3299890189751412)
        * (theta**2 - 1.4364028541716351 * theta + 0.7139816917074209),
        0.1017 * theta**2 * (theta**2 - 2.1966568338249754 * theta + 1.2949852507374631),
        2.4906272856512528 * theta**2 * (theta**2 - 2.3853564547206166 * theta + 1.5780346820809249),
        -16.548102889244903 * theta**2 * (theta - 1.2171292729553324) * (theta - 0.6162040603780009),
        47.37952196281928 * theta**2 * (theta - 1.2030712083723626) * (theta - 0.6580472926535474),
        -34.87065786149661 * theta**2 * (theta - 1.2) * (theta - 2.0 / 3.0),
        2.5 * theta**2 * (theta - 1.0) * (theta - 0.6),
    )
    return tuple(tuple(p.coef[1:]) for p in factors)


TSIT5 = ButcherTableau(
    "tsit5",
    5,
    (
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        _B[:6],
    ),
    _B,
    (
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
    4,
    _tsit5_dense(),
    (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
)
"""Tsitouras 2011."""

_B = (
    14005451 / 335480064,
    0.0,
    0.0,
    0.0,
    0.0,
    -59238493 / 1068277825,
    181606767 / 758867731,
    561292985 / 797845732,
    -1041891430 / 1371343529,
    760417239 / 1151165299,
    118820643 / 751138087,
    -528747749 / 2220607170,
    1 / 4,
)
DOPRI8 = ButcherTableau(
    "dopri8",
    8,
    (
        (),
        (1 / 18,),
        (1 / 48, 1 / 16),
        (1 / 32, 0.0, 3 / 32),
        (5 / 16, 0.0, -75 / 64, 75 / 64),
        (3 / 80, 0.0, 0.0, 3 / 16, 3 / 20),
        (29443841 / 614563906, 0.0, 0.0, 77736538 / 692538347, -28693883 / 1125000000, 23124283 / 1800000000),
        (
            16016141 / 946692911,
            0.0,
            0.0,
            61564180 / 158732637,
            22789713 / 633445777,
            545815736 / 2771057229,
            -180193667 / 1043307555,
        ),
        (
            39632708 / 573591083,
            0.0,
            0.0,
            -433636366 / 683701615,
            -421739975 / 2616292301,
            100302831 / 723423059,
            790204164 / 839813087,
            800635310 / 3783071287,
        ),
        (
            246121993 / 1340847787,
            0.0,
            0.0,
            -37695042795 / 15268766246,
            -309121744 / 1061227803,
            -12992083 / 490766935,
            6005943493 / 2108947869,
            393006217 / 1396673457,
            123872331 / 1001029789,
        ),
        (
            -1028468189 / 846180014,
            0.0,
            0.0,
            8478235783 / 508512852,
            1311729495 / 1432422823,
            -10304129995 / 1701304382,
            -48777925059 / 3047939560,
            15336726248 / 1032824649,
            -45442868181 / 3398467696,
            3065993473 / 597172653,
        ),
        (
            185892177 / 718116043,
            0.0,
            0.0,
            -3185094517 / 667107341,
            -477755414 / 1098053517,
            -703635378 / 230739211,
            5731566787 / 1027545527,
            5232866602 / 850066563,
            -4093664535 / 808688257,
            3962137247 / 1805957418,
            65686358 / 487910083,
        ),
        (
            403863854 / 491063109,
            0.0,
            0.0,
            -5068492393 / 434740067,
            -411421997 / 543043805,
            652783627 / 914296604,
            11173962825 / 925320556,
            -13158990841 / 6184727034,
            3936647629 / 1978049680,
            -160528059 / 685178525,
            248638103 / 1413531060,
            0.0,
        ),
    ),
    _B,
    _difference(
        _B,
        (
            13451932 / 455176623,
            0.0,
            0.0,
            0.0,
            0.0,
            -808719846 / 976000145,
            1757004468 / 5645159321,
            656045339 / 265891186,
            -3867574721 / 1518517206,
            465885868 / 322736535,
            53011238 / 667516719,
            2 / 45,
            0.0,
        ),
    ),
    7,
)
"""Prince and Dormand 1981, 8(7) with thirteen stages. Its interpolant is only cubic: let steps end where values are saved."""

IMPLICIT_EULER = ButcherTableau("implicit-euler", 1, ((), (0.0, 1.0)), (0.0, 1.0), (-0.5, 0.5), 2)
"""Backward Euler; the error estimate is the distance to the trapezoidal rule."""

_G = 0.43586652150
_KVAERNO3: Row = (
    (6 * _G - 1) / (12 * _G),
    -1 / ((24 * _G - 12) * _G),
    (-6 * _G**2 + 6 * _G - 1) / (6 * _G - 3),
    _G,
)
_ROW: Row = ((-4 * _G**2 + 6 * _G - 1) / (4 * _G), (1 - 2 * _G) / (4 * _G), _G, 0.0)
KVAERNO3 = ButcherTableau(
    "kvaerno3",
    3,
    ((), (_G, _G), _ROW[:3], _KVAERNO3),
    _KVAERNO3,
    _difference(_KVAERNO3, _ROW),
    2,
    nodes=(0.0, 2 * _G, 1.0, 1.0),
)
"""Kvaerno 2004: stiffly accurate, A- and L-stable, 3(2) with four stages, the first explicit."""

_G = 0.26
_KVAERNO5 = (
    0.13659751177640291,
    0.0,
    -0.05496908796538376,
    -0.04118626728321046,
    0.62993304899016403,
    0.06962479448202728,
    _G,
)
_ROW = (0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676, _G, 0.0)
KVAERNO5 = ButcherTableau(
    "kvaerno5",
    5,
    (
        (),
        (_G, _G),
        (0.13, 0.84033320996790809, _G),
        (0.22371961478320505, 0.47675532319799699, -0.06470895363112615, _G),
        (0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998, _G),
        _ROW[:6],
        _KVAERNO5,
    ),
    _KVAERNO5,
    _difference(_KVAERNO5, _ROW),
    4,
)
"""Kvaerno 2004: stiffly accurate, A- and L-stable, 5(4) with seven stages, the first explicit."""

TABLEAUS: dict[str, ButcherTableau] = {
    tableau.name: tableau
    for tableau in (
        EULER,
        MIDPOINT,
        HEUN,
        RALSTON,
        BOSH3,
        RK4,
        DOPRI5,
        TSIT5,
        DOPRI8,
        IMPLICIT_EULER,
        KVAERNO3,
        KVAERNO5,
    )
}
"""The methods by name."""
