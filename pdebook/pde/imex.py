"""Implicit-explicit methods for du/dt = L u + N(u, t): L implicit, N explicit, as functions of z = h L.

Where L is a number for each mode, an implicit stage is a division. Each stage of a Runge-Kutta pair is then R(z) v + h Σ_j A_j(z) N_j
with rational R and A_j, worked out once for a step size; a multistep method is a row over past states and slopes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pdebook.pde.etd import Row

__all__ = [
    "ARS222",
    "ARS443",
    "CARPENTER_KENNEDY4",
    "CNAB2",
    "CNHEUN",
    "IMEX_EULER",
    "SBDF2",
    "SBDF3",
    "ImexMethod",
    "MultistepMethod",
    "low_storage",
]

Numbers = tuple[float, ...]


def _times(matrix: bool, a: Tensor, b: Tensor) -> Tensor:
    return a @ b if matrix else a * b


def _one(z: Tensor, matrix: bool) -> Tensor:
    return torch.eye(z.shape[-1], dtype=z.dtype, device=z.device).expand_as(z) if matrix else torch.ones_like(z)


def _over(numerator: Tensor, weight: float, z: Tensor, matrix: bool) -> Tensor:
    """(1 - weight z)⁻¹ numerator."""
    if weight == 0:
        return numerator
    denominator = _one(z, matrix) - weight * z
    return torch.linalg.solve(denominator, numerator) if matrix else numerator / denominator


@dataclass(frozen=True)
class ImexMethod:
    """A pair of Runge-Kutta methods: u_i = v + Σ_{j<i} h a_ij N_j + Σ_{j<=i} ã_ij z u_j; the last row is the step's result.

    Args:
        name: its name.
        order: order of convergence.
        explicit: row i holds a_ij for the i + 1 stages before it, the first of which is v itself.
        implicit: row i holds ã_ij for them, and at last the diagonal.
    Raises:
        ValueError: rows of the wrong length, or whose sums differ.
    """

    name: str
    order: int
    explicit: tuple[Numbers, ...]
    implicit: tuple[Numbers, ...]

    def __post_init__(self) -> None:
        for i, (a, b) in enumerate(zip(self.explicit, self.implicit, strict=True)):
            if len(a) != i + 1 or len(b) != i + 2:
                raise ValueError(f"{self.name}: row {i} must hold {i + 1} explicit and {i + 2} implicit numbers")
            if abs(sum(a) - sum(b)) > 1e-9:
                raise ValueError(f"{self.name}: row {i} sums to {sum(a)} (explicit) and {sum(b)} (implicit)")

    @property
    def nodes(self) -> Numbers:
        """c_i of the rows."""
        return tuple(map(sum, self.explicit))

    def rows(self, z: Tensor, h: float, matrix: bool = False) -> list[Row]:
        """The rows for z, (..., *modes) or with ``matrix`` (..., channel, channel) in its last axes."""
        one = _one(z, matrix)
        states: list[Tensor] = [one]
        slopes: list[list[Tensor]] = [[]]
        for a, b in zip(self.explicit, self.implicit, strict=True):
            pull = one + _times(matrix, z, sum((w * state for w, state in zip(b, states, strict=False)), 0.0 * one))
            states.append(_over(pull, b[-1], z, matrix))
            row = []
            for j, weight in enumerate(a):
                through = sum((w * slopes[i][j] for i, w in enumerate(b[:-1]) if len(slopes[i]) > j), 0.0 * one)
                row.append(_over(weight * one + _times(matrix, z, through), b[-1], z, matrix))
            slopes.append(row)
        return [(state, tuple(h * part for part in row)) for state, row in zip(states[1:], slopes[1:], strict=True)]


@dataclass(frozen=True)
class MultistepMethod:
    """(p - γ z) v_{n+1} = Σ_j (p_j + γ_j z) v_{n-j} + h Σ_j b_j N_{n-j}.

    Args:
        name: its name.
        order: order of convergence.
        lead: p and γ of the new state.
        states: (p_j, γ_j) of v_n, v_{n-1}, ...
        slopes: b_j.
        start: the one-step method that makes the first values.
    """

    name: str
    order: int
    lead: tuple[float, float]
    states: tuple[tuple[float, float], ...]
    slopes: Numbers
    start: ImexMethod

    def coefficients(self, z: Tensor, h: float, matrix: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        """What multiplies the states, newest first, and the slopes."""
        p, gamma = self.lead
        one = _one(z, matrix)
        states = [_over((a * one + b * z) / p, gamma / p, z, matrix) for a, b in self.states]
        return states, [_over(h * b / p * one, gamma / p, z, matrix) for b in self.slopes]


def low_storage(name: str, order: int, nodes: Numbers, carry: Numbers, weights: Numbers) -> ImexMethod:
    """A low-storage explicit method with Crank-Nicolson between its nodes, written as a pair.

        s_k = N(u_k) + carry_k s_{k-1},    (1 - μ_k z) u_{k+1} = (1 + μ_k z) u_k + weights_k h s_k,    μ_k = (nodes_{k+1} - nodes_k)/2

    Source: Canuto, Hussaini, Quarteroni and Zang, Spectral Methods: Evolution to Complex Geometries, appendix D.3.
    """
    explicit: list[Numbers] = []
    implicit: list[Numbers] = []
    sweep: list[float] = []
    a: list[float] = []
    b: list[float] = [0.0]
    for k, (beta, gamma) in enumerate(zip(carry, weights, strict=True)):
        sweep = [beta * value for value in sweep] + [1.0]
        a = [old + gamma * new for old, new in zip([*a, 0.0], sweep, strict=True)]
        mu = 0.5 * (nodes[k + 1] - nodes[k])
        b = [*b[:-1], b[-1] + mu, mu]
        explicit.append(tuple(a))
        implicit.append(tuple(b))
    return ImexMethod(name, order, tuple(explicit), tuple(implicit))


IMEX_EULER = ImexMethod("imex-euler", 1, ((1.0,),), ((0.0, 1.0),))
# Heun's method with Crank-Nicolson in both stages.
CNHEUN = ImexMethod("cn-heun", 2, ((1.0,), (0.5, 0.5)), ((0.5, 0.5), (0.5, 0.0, 0.5)))
_G = 1 - 0.5**0.5
_D = 1 - 1 / (2 * _G)
# Ascher, Ruuth and Spiteri, Appl. Numer. Math. 25 (1997), sections 2.6 and 2.8.
ARS222 = ImexMethod("ars222", 2, ((_G,), (_D, 1 - _D)), ((0.0, _G), (0.0, 1 - _G, _G)))
ARS443 = ImexMethod(
    "ars443",
    3,
    ((1 / 2,), (11 / 18, 1 / 18), (5 / 6, -5 / 6, 1 / 2), (1 / 4, 7 / 4, 3 / 4, -7 / 4)),
    ((0.0, 1 / 2), (0.0, 1 / 6, 1 / 2), (0.0, -1 / 2, 1 / 2, 1 / 2), (0.0, 3 / 2, -3 / 2, 1 / 2, 1 / 2)),
)
# Fourth order in N, second in L; the coefficients of Carpenter and Kennedy (1994).
CARPENTER_KENNEDY4 = low_storage(
    "carpenter-kennedy4",
    2,
    (0.0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1.0),
    (0.0, -0.4178904745, -1.192151694643, -1.697784692471, -1.514183444257),
    (0.1496590219993, 0.3792103129999, 0.8229550293869, 0.6994504559488, 0.1530572479681),
)
CNAB2 = MultistepMethod("cnab2", 2, (1.0, 0.5), ((1.0, 0.5),), (1.5, -0.5), ARS222)
SBDF2 = MultistepMethod("sbdf2", 2, (1.5, 1.0), ((2.0, 0.0), (-0.5, 0.0)), (2.0, -1.0), ARS222)
SBDF3 = MultistepMethod("sbdf3", 3, (11 / 6, 1.0), ((3.0, 0.0), (-1.5, 0.0), (1 / 3, 0.0)), (3.0, -3.0, 1.0), ARS443)
