"""DEIS: exponential integrators that extrapolate the noise prediction by a polynomial through past values.

``adams_weights`` holds the weights, ``deis`` the samplers tAB, ρAB and λAB of degree 0 to 3, ``frozen_score`` the rung of the ladder
that freezes the score instead, ``log_likelihood`` the density of data by the same sampler on a state with one more entry.
Classical Runge-Kutta methods in ρ are ``baselines.runge_kutta`` with ``variable="rho"``.

Source: Zhang and Chen: Fast Sampling of Diffusion Models with Exponential Integrator, ICLR 2023, and the official code.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.diffusion.affine import State, axpby
from pdebook.diffusion.baselines import RUNGE_KUTTA, Variable
from pdebook.diffusion.denoiser import Denoiser
from pdebook.diffusion.derivatives import noise_diagonal
from pdebook.diffusion.sampling import (
    Ending,
    Model,
    Prediction,
    Steps,
    check_state,
    exponential_step,
    predictor,
    sampler,
    step_orders,
    walk,
)
from pdebook.diffusion.scalars import Scalar, exp, log
from pdebook.diffusion.schedules import DiscreteVP, NoiseSchedule
from pdebook.quadrature import gauss_legendre

POINTS = 32
"""Gauss points of a step; the error falls geometrically in them, see ``adams_weights``."""

_PIECE = 8  # Gauss points between two kinks of a discrete schedule, which lie close together
_START = ("euler", "heun", "kutta3", "rk4")  # Runge-Kutta methods of order degree + 1


def adams_weights(
    schedule: NoiseSchedule,
    s: Scalar,
    t: Scalar,
    nodes: Sequence[Scalar],
    *,
    variable: Variable,
    prediction: Prediction = "noise",
    points: int = POINTS,
) -> list[Scalar]:
    """Weights C_j of the predictions at times ``nodes`` in a step from s to t: the exact integrals of their Lagrange basis.

        x_t = α_t/α_s x_s + Σ_j C_j ε_j,     C_j = -α_t ∫_{λ_s}^{λ_t} e^{-λ} l_j(u(λ)) dλ     (noise)
        x_t = σ_t/σ_s x_s + Σ_j C_j x_0,j,   C_j =  σ_t ∫_{λ_s}^{λ_t} e^{λ} l_j(u(λ)) dλ      (data)

    l_j is the polynomial in u that is 1 at node j and 0 at the others. The variable u of the polynomial (t, ρ or λ) and the variable
    of integration (always λ) have nothing to do with each other. In λ the integrand is analytic, its nearest singularity π/2 off
    the real line, so Gauss and Legendre's rule converges geometrically. The weights sum to the one weight of DDIM, since Σ_j l_j = 1.

    A polynomial in t of a ``DiscreteVP`` has a kink at every level; there the integral is split at the levels between s and t. In ρ
    and λ nothing is kinked. For times that differ by sample every sample is split at all levels of the schedule.

    Args:
        schedule: noise schedule. Weights for shared times are kept and used again, so a hashable one must not change.
        s: time before the step.
        t: time after it, above or below s.
        nodes: times of the predictions, in the order of the weights; s itself is usually the first.
        variable: u: "time", "rho" or "half_log_snr".
        prediction: "noise" or "data".
        points: Gauss points.
    Returns:
        One weight for each node: floats, or tensors like the times.
    Raises:
        ValueError: an unknown name, no node or no point; for times that the batch shares, also times out of the schedule's range,
            nodes that coincide or at which u is infinite, or several nodes in a step that starts or ends at a level without noise
            or signal. Times that differ by sample give weights that are not finite then.
    Source: equation of C_ij and ``th_deis/multistep.py``, which sums 10,000 points in t instead.
    """
    if variable not in ("time", "rho", "half_log_snr"):
        raise ValueError(f"variable must be 'time', 'rho' or 'half_log_snr', got {variable!r}")
    if prediction not in ("noise", "data"):
        raise ValueError(f"prediction must be 'noise' or 'data', got {prediction!r}")
    if len(nodes) == 0:
        raise ValueError("nodes must hold at least one time")
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise ValueError(f"points must be an integer, at least 1, got {points!r}")
    per_sample = next((value.device for value in (s, t, *nodes) if isinstance(value, Tensor)), None)
    low, high = schedule.t_min, schedule.t_max
    if per_sample is None and not all(low <= value <= high for value in (s, t, *nodes)):
        raise ValueError(f"s, t and nodes must lie in [{low}, {high}], got {s}, {t} and {list(nodes)}")
    step = exponential_step(schedule, s, t, prediction)
    if len(nodes) == 1:
        return [step.first]
    if per_sample is None:
        if not math.isfinite(step.h):
            raise ValueError(
                f"nodes must be one in a step to or from a level without noise or signal, got {len(nodes)} from {s} to {t}; "
                "stop before it, or let the degree fall to 0"
            )
        if len(set(nodes)) < len(nodes):
            raise ValueError(f"nodes must be distinct times, got {list(nodes)}")
        shared = _shared_weights if isinstance(schedule, Hashable) else _shared_weights.__wrapped__
        weights = list(shared(schedule, s, t, tuple(nodes), variable, prediction, points))
        if not all(map(math.isfinite, weights)):
            raise ValueError(f"nodes must be times at which {variable} is finite, got {list(nodes)}")
        return weights
    return _weights(schedule, s, t, nodes, variable, prediction, points, per_sample)


@lru_cache(maxsize=4096)
def _shared_weights(
    schedule: NoiseSchedule,
    s: float,
    t: float,
    nodes: tuple[float, ...],
    variable: Variable,
    prediction: Prediction,
    points: int,
) -> tuple[Scalar, ...]:
    """The weights for times that the batch shares: a plan, made once for each step of a grid."""
    weights = _weights(schedule, s, t, nodes, variable, prediction, points, torch.device("cpu"))
    return tuple(float(weight) for weight in weights)


def _weights(
    schedule: NoiseSchedule,
    s: Scalar,
    t: Scalar,
    nodes: Sequence[Scalar],
    variable: Variable,
    prediction: Prediction,
    points: int,
    device: torch.device,
) -> list[Scalar]:
    """Integrals of the Lagrange basis by Gauss's rule, as tensors like the times."""
    before, after, *at = (torch.as_tensor(value, dtype=torch.float64, device=device) for value in (s, t, *nodes))
    lam, weights = _gauss(schedule, before, after, points, split=variable == "time")
    scale = -schedule.alpha(after) if prediction == "noise" else schedule.sigma(after)
    weights = torch.as_tensor(scale)[..., None] * exp(-lam if prediction == "noise" else lam) * weights
    u: Any = schedule.time(lam) if variable == "time" else exp(-lam) if variable == "rho" else lam
    if variable != "time":
        at = [getattr(schedule, variable)(node) for node in at]
    result: list[Scalar] = []
    for j, own in enumerate(at):
        basis = torch.ones_like(u)
        for k, other in enumerate(at):
            if k != j:
                basis = basis * (u - other[..., None]) / (own - other)[..., None]
        result.append((weights * basis).sum(-1))
    return result


def _gauss(schedule: NoiseSchedule, s: Tensor, t: Tensor, points: int, *, split: bool) -> tuple[Tensor, Tensor]:
    """Values of λ between the times s and t, and weights of ∫_{λ_s}^{λ_t} dλ, along a new last axis."""
    low, high = torch.minimum(s, t)[..., None], torch.maximum(s, t)[..., None]
    edges = torch.cat([low, high], -1)
    if split and isinstance(schedule, DiscreteVP):
        levels = torch.arange(1, schedule.steps + 1, dtype=torch.float64, device=s.device) / schedule.steps
        if s.ndim == 0:
            levels = levels[(levels > low) & (levels < high)]
        # Levels that a sample's step does not reach move to its ends and leave pieces of no length.
        edges, points = torch.cat([low, torch.minimum(torch.maximum(levels, low), high), high], -1), min(points, _PIECE)
    ends: Any = schedule.half_log_snr(edges)
    nodes, weights = (torch.as_tensor(part, dtype=torch.float64, device=s.device) for part in gauss_legendre(points))
    # λ falls from the low edge to the high one.
    half = 0.5 * (ends[..., :-1] - ends[..., 1:])[..., None]
    lam = 0.5 * (ends[..., :-1] + ends[..., 1:])[..., None] + half * nodes
    return lam.flatten(-2), (torch.sign(s - t)[..., None, None] * half * weights).flatten(-2)


@sampler
def deis(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    degree: int = 3,
    variable: Variable = "time",
    prediction: Prediction = "noise",
    warmup: Literal["lower", "rk"] = "lower",
    ending: Ending = "full",
) -> Steps:
    """tAB-, ρAB- or λAB-DEIS: Adams and Bashforth's method with the exact weights of the exponential integrator.

        x_t = ratio x_s + Σ_{j=0}^r C_j m_j

    with the predictions m_0 at s, m_1, ..., m_r at the times before it, and the weights of ``adams_weights``. One evaluation a step.
    Degree 0 is DDIM. Its order is degree + 1 only with start values of that order.

    Args:
        denoiser: model.
        x: state at ``times[0]``.
        times: falling times.
        degree: r, the degree of the polynomial, 0 to 3.
        variable: what the polynomial is in: "time" (tAB, the paper's choice), "rho" (ρAB) or "half_log_snr" (λAB).
        prediction: "noise" (the paper) or "data".
        warmup: how the first r steps are made. "lower": with polynomials of degree 0, 1, ..., as released, which limits the whole to
            second order. "rk": by a classical Runge-Kutta method of order r + 1 in ρ on x/α (in 1/ρ on x/σ with data prediction),
            which costs r² evaluations more.
        ending: "full" keeps the degree to the end, as released; "lower" lets it fall to 0 ("auto" below ten steps), so that the last
            step may lead to a level without noise.
    Raises:
        ValueError: an unknown option, or fewer steps than degree + 1.
    Source: section 3 of the paper; ``th_deis/sampler.py``.
    """
    if isinstance(degree, bool) or not isinstance(degree, int) or not 0 <= degree <= 3:
        raise ValueError(f"degree must be 0, 1, 2 or 3, got {degree!r}")
    if warmup not in ("lower", "rk"):
        raise ValueError(f"warmup must be 'lower' or 'rk', got {warmup!r}")
    schedule, predict = denoiser.schedule, predictor(denoiser, prediction)
    orders = step_orders(len(times) - 1, degree + 1, ending)
    past: list[tuple[Scalar, State]] = []
    for i, s, t in walk(times):
        past = [(s, predict(x, s)), *past[:degree]]
        if warmup == "rk" and i < degree:
            x = _runge_kutta_step(schedule, predict, x, past[0][1], s, t, _START[degree], prediction)
        else:
            window = past[: orders[i]]
            weights = adams_weights(
                schedule, s, t, [node for node, _ in window], variable=variable, prediction=prediction
            )
            terms: list[Any] = [item for weight, (_, m) in zip(weights, window, strict=True) for item in (weight, m)]
            x = axpby(exponential_step(schedule, s, t, prediction).ratio, x, *terms)
        yield t, x


def _runge_kutta_step(
    schedule: NoiseSchedule,
    predict: Callable[[Any, Scalar], Any],
    x: State,
    first: State,
    s: Scalar,
    t: Scalar,
    method: str,
    prediction: Prediction,
) -> Any:
    """Step of d(x/α)/dρ = ε, or of d(x/σ)/d(1/ρ) = x_0, whose first stage is known."""
    scale = schedule.alpha if prediction == "noise" else schedule.sigma
    sign = -1.0 if prediction == "noise" else 1.0
    start, tableau = exp(sign * schedule.half_log_snr(s)), RUNGE_KUTTA[method]
    length = exp(sign * schedule.half_log_snr(t)) - start
    slopes = [first]

    def moved(to: Scalar, row: Sequence[float]) -> Any:
        terms: list[Any] = [item for a, m in zip(row, slopes, strict=True) if a for item in (scale(to) * length * a, m)]
        return axpby(scale(to) / scale(s), x, *terms)

    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        stage = t if c == 1.0 else schedule.time(sign * log(start + c * length))
        slopes.append(predict(moved(stage, row), stage))
    return moved(t, tableau.b)


@sampler
def frozen_score(denoiser: Model, x: State, times: list[Scalar]) -> Steps:
    """Exponential integrator that holds the score -ε/σ constant over a step, where DDIM holds the noise ε constant.

        x_t = α_t/α_s x_s - α_t/σ_s [∫_{λ_s}^{λ_t} e^{-λ} σ_λ dλ] ε_s

    Raises:
        ValueError: shared times that reach a level without noise or signal.
    Source: section 3 of the paper, the first ingredient.
    """
    schedule = denoiser.schedule
    for _, s, t in walk(times):
        device = next((value.device for value in (s, t) if isinstance(value, Tensor)), None)
        if device is None and not all(math.isfinite(schedule.half_log_snr(u)) for u in (s, t)):
            raise ValueError(f"times must stop before a level without noise or signal, got a step from {s} to {t}")
        before, after = (torch.as_tensor(value, dtype=torch.float64, device=device) for value in (s, t))
        lam, weights = _gauss(schedule, before, after, POINTS, split=False)
        integral = (weights * exp(-lam) * schedule.sigma(schedule.time(lam))).sum(-1)
        factor = -schedule.alpha(t) / schedule.sigma(s) * (float(integral) if device is None else integral)
        x = axpby(schedule.alpha(t) / schedule.alpha(s), x, factor, denoiser.noise(x, s))
        yield t, x


@dataclass(frozen=True)
class Likelihood:
    """Result of ``log_likelihood``.

    Attributes:
        log_density: logarithm of the model's density at the samples, at the first time, shape (batch,).
        latent: the samples' noise at the last time, shape of the samples.
        evaluations: products with the model's Jacobian, each of which evaluates the model once.
    """

    log_density: Float[Tensor, " batch"]
    latent: Tensor
    evaluations: int

    def bits_per_dimension(self, width: float = 1.0) -> Float[Tensor, " batch"]:
        """-log2(density width^D)/D: bits to store one number of the data to the precision ``width``, a positive number."""
        if not 0.0 < width < math.inf:
            raise ValueError(f"width must be positive and finite, got {width}")
        return -self.log_density / (math.log(2.0) * self.latent[0].numel()) - math.log2(width)


class _WithDivergence:
    """The model on a state with one more entry q = α L, where L = ∫ α tr ∇_x ε dρ; so d(q/α)/dρ = α tr ∇_x ε like d(x/α)/dρ = ε."""

    def __init__(self, denoiser: Denoiser, shape: torch.Size, probes: int | None, seed: int) -> None:
        self.denoiser, self.schedule, self.shape = denoiser, denoiser.schedule, shape
        self.probes, self.seed = probes, seed

    def noise(self, x: Any, t: Scalar) -> Any:
        """ε and α tr ∇_x ε, flat."""
        inner = x[:, :-1].reshape(-1, *self.shape)
        noise, diagonal = noise_diagonal(self.denoiser, inner, float(t), probes=self.probes, seed=self.seed)
        divergence = float(self.schedule.alpha(t)) * diagonal.flatten(1).sum(1, keepdim=True)
        return torch.cat([noise.flatten(1), divergence], 1)

    def data(self, x: Any, t: Scalar) -> Any:
        """(x - σ ε)/α."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return axpby(1.0 / alpha, x, -sigma / alpha, self.noise(x, t))


def log_likelihood(
    denoiser: Denoiser,
    x: Float[Tensor, "batch ..."],
    times: Sequence[float] | Tensor,
    *,
    degree: int = 3,
    variable: Variable = "time",
    prediction: Prediction = "noise",
    warmup: Literal["lower", "rk"] = "lower",
    probes: int | None = None,
    seed: int = 0,
    prior: Callable[[Tensor], Tensor] | None = None,
) -> Likelihood:
    """Log-density of samples at ``times[0]`` under the model, by ``deis`` along rising times.

    In y = x/α the flow is dy/dρ = ε, so the density of y changes by d log p/dρ = -α tr ∇_x ε along it. Hence, in D dimensions,

        log p(x_s) = log p(x_T) + ∫_{ρ_s}^{ρ_T} α tr ∇_x ε dρ + D log(α_T/α_s)

    The integral grows by the weights of the sampler itself: it is one more entry of the state.

    Args:
        denoiser: model; its network must allow forward-mode differentiation.
        x: data at ``times[0]``.
        times: rising times, shared by the batch.
        degree: of ``deis``.
        variable: of ``deis``.
        prediction: of ``deis``.
        warmup: of ``deis``.
        probes: sign vectors of Hutchinson's estimate of the trace, the same at all times; None for the exact trace, which costs D
            products a step.
        seed: seed of the signs.
        prior: log-density at the last time, of shape (batch,); that of N(0, σ_T² I) if left out.
    Raises:
        ValueError: times that differ by sample, an empty x, a prior of another shape, or what ``deis`` and ``noise_diagonal`` refuse.
    Source: instantaneous change of variables: Chen et al. 2018, theorem 1; Song et al. 2021, appendix D.2.
    """
    shape = tuple(torch.as_tensor(times).shape)
    if len(shape) != 1:
        raise ValueError(f"times must be shared by the batch, got shape {shape}")
    check_state(x)
    if x.numel() == 0:
        raise ValueError(f"x must hold at least one sample of at least one number, got shape {tuple(x.shape)}")
    before = denoiser.evaluations
    model = _WithDivergence(denoiser, x.shape[1:], probes, seed)
    state = torch.cat([x.flatten(1), x.new_zeros(len(x), 1)], 1)
    options = {"degree": degree, "variable": variable, "prediction": prediction, "warmup": warmup}
    state = deis.invert(model, state, times, **options)
    latent, dimensions, last = state[:, :-1], x[0].numel(), float(times[-1])
    alpha, sigma = (float(value) for value in (denoiser.schedule.alpha(last), denoiser.schedule.sigma(last)))
    if prior is None:
        at_end = -0.5 * ((latent / sigma) ** 2).sum(1) - dimensions * (0.5 * math.log(2.0 * math.pi) + math.log(sigma))
    else:
        at_end = prior(latent.reshape(x.shape))
        if at_end.shape != (len(x),):
            raise ValueError(
                f"prior must return one number for each sample, ({len(x)},), got shape {tuple(at_end.shape)}"
            )
    shrink = dimensions * float(denoiser.schedule.log_alpha(last) - denoiser.schedule.log_alpha(float(times[0])))
    return Likelihood(at_end + state[:, -1] / alpha + shrink, latent.reshape(x.shape), denoiser.evaluations - before)
