"""Distances between samples and laws, each with its sampling error.

A finite sample of the *same* law is at a positive distance too, so a distance is quoted with its standard error (by
bootstrap) and, where two samples of one law do not score zero, with the floor that they reach. All arithmetic is in
float64, all randomness is a function of a seed, and nothing is read back to the host inside a loop.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pdebook.metrics.sampling import (
    Estimate,
    as_draws,
    bootstrap,
    check_resamples,
    redraw_counts,
    sampling_floor,
)
from pdebook.rng import fold_in, normal

__all__ = [
    "TrajectoryError",
    "energy_distance",
    "ess_of_chain",
    "ess_of_weights",
    "frechet_distance",
    "frechet_gaussian",
    "kl_gaussian",
    "kl_histogram",
    "kolmogorov_smirnov",
    "sliced_wasserstein",
    "trajectory_error",
    "unit_directions",
    "wasserstein_1d",
]


@dataclass(frozen=True)
class TrajectoryError:
    """Per-sample error of a sampler against the converged solution from the same noise; see `trajectory_error`.

    Attributes:
        per_sample: root mean square over each sample's entries, infinite where the sampler diverged.
        median: median over the samples, which one sample that falls into another mode does not move: assert on this.
        rms: root mean square over the samples.
    """

    per_sample: Float[Tensor, " batch"]
    median: Estimate
    rms: Estimate


def trajectory_error(
    x: Float[Tensor, "batch *dims"], reference: Float[Tensor, "batch *dims"], *, resamples: int = 0, seed: int = 0
) -> TrajectoryError:
    """Root-mean-square error of each sample against its own reference, with median and RMS over the samples.

        r_i = sqrt(mean_d (x_id - y_id)^2),   median_i r_i,   sqrt(mean_i r_i^2)

    Args:
        x: what a sampler returned; entries that are not finite count as an infinite error.
        reference: the converged solution from the same noise, in the same order; finite.
        resamples: bootstrap replicates for the standard errors; 0 for none.
        seed: of the bootstrap.
    Raises:
        ValueError: the reference is not finite, there is no sample, or `resamples` is negative.
    """
    if not reference.numel() or not reference.isfinite().all():
        raise ValueError(
            f"reference: expected finite samples, got shape {tuple(reference.shape)} with gaps or no entry"
        )
    square = (x.double() - reference.double()).square().reshape(len(x), -1).mean(dim=1)
    error = torch.where(square.isfinite(), square, math.inf).sqrt()
    return TrajectoryError(
        error,
        bootstrap(_median, error, resamples=resamples, seed=seed),
        bootstrap(lambda r: r.square().mean().sqrt(), error, resamples=resamples, seed=seed),
    )


def sliced_wasserstein(
    x: Float[Tensor, "n *dims"],
    y: Float[Tensor, "m *dims_y"],
    *,
    directions: int = 256,
    quantiles: int = 499,
    resamples: int = 0,
    seed: int = 0,
) -> Estimate:
    """Sliced Wasserstein-2 distance: the root mean square over directions of the distance between projections.

        SW^2 = mean over unit vectors u and levels q of (F_ux^-1(q) - F_uy^-1(q))^2,   q = 1/(Q+1), ..., Q/(Q+1)

    The directions are fixed by the seed, so that distances of one seed compare. A shift by v gives about
    ``|v| / sqrt(d)``.

    Args:
        x, y: samples; their sizes may differ, the trailing axes are flattened.
        directions: number of random unit vectors (in one dimension all are the same).
        quantiles: number of levels; the tails beyond the outermost levels don't count.
        resamples: bootstrap replicates for the standard error; 0 for none.
        seed: of the directions and the bootstrap.
    Raises:
        ValueError: no sample, not finite, different dimensions, or a count below one.
    """
    if directions < 1 or quantiles < 1:
        raise ValueError(f"directions, quantiles: expected at least 1 of each, got {directions} and {quantiles}")
    x, y = _pair(x, y)
    unit = unit_directions(directions, x.shape[1], seed, x.device)
    levels = torch.arange(1, quantiles + 1, dtype=torch.float64, device=x.device) / (quantiles + 1)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        blocks = ((_quantiles(a @ u.T, levels) - _quantiles(b @ u.T, levels)).square().mean(0) for u in unit.split(64))
        return torch.cat(list(blocks)).mean().sqrt()

    return bootstrap(distance, x, y, resamples=resamples, seed=seed)


def unit_directions(count: int, dimension: int, seed: int, device: torch.device) -> Float[Tensor, "count dimension"]:
    """Independent uniform unit vectors, the same for a seed on any device."""
    rows = torch.arange(count)
    vectors = normal(fold_in(seed, "directions"), rows, (dimension,), dtype=torch.float64, device=device)
    return torch.nn.functional.normalize(vectors, dim=1)


def wasserstein_1d(
    x: Float[Tensor, " n"], y: Float[Tensor, " m"], *, p: float | int = 1, resamples: int = 0, seed: int = 0
) -> Estimate:
    """Exact Wasserstein-p distance of two samples on the line, of any sizes.

        W_p^p = int_0^1 |F_x^-1(q) - F_y^-1(q)|^p dq

    Raises:
        ValueError: no sample, not finite, or ``p < 1``.
    """
    if p < 1:
        raise ValueError(f"p: expected an exponent of at least 1, got {p}")
    x, y = _pair(x, y)
    n, m = len(x), len(y)
    edges = torch.cat([torch.arange(k + 1, dtype=torch.float64, device=x.device)[1:] / k for k in (n, m)]).sort().values
    widths = edges.diff(prepend=edges.new_zeros(1))
    middle = edges - widths / 2
    # Edges that coincide up to rounding leave intervals of no width, whose index does not matter.
    at_x, at_y = ((middle * k).long().clamp(max=k - 1) for k in (n, m))

    def distance(a: Tensor, b: Tensor) -> Tensor:
        gap = a[:, 0].sort().values[at_x] - b[:, 0].sort().values[at_y]
        return (widths * gap.abs() ** p).sum() ** (1 / p)

    return bootstrap(distance, x, y, resamples=resamples, seed=seed)


def energy_distance(
    x: Float[Tensor, "n *dims"],
    y: Float[Tensor, "m *dims_y"],
    *,
    resamples: int = 0,
    seed: int = 0,
    chunk: int = 1024,
) -> Estimate:
    """Energy distance, unbiased: zero on average for samples of one law, hence also negative.

        E = 2 E|X - Y| - E|X - X'| - E|Y - Y'|,   pairs of different draws only

    Args:
        x, y: samples of at least two draws; the trailing axes are flattened.
        resamples: bootstrap replicates for the standard error; they share one pass over the pairs. 0 for none.
        seed: of the bootstrap.
        chunk: rows of the distance matrix that are held at once.
    Raises:
        ValueError: fewer than two draws, not finite, or different dimensions.
    Source: Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.
    """
    check_resamples(resamples)
    x, y = _pair(x, y, at_least=2)
    n, m = len(x), len(y)
    # The first replicate is the sample itself; the others weight each draw with the number of times it was redrawn.
    v, w = (redraw_counts(seed, resamples, k, stream, x.device) for stream, k in enumerate((n, m)))

    def total(a: Tensor, b: Tensor, weight_a: Tensor, weight_b: Tensor) -> Tensor:
        result = weight_a.new_zeros(len(weight_a))
        for rows, weight in zip(a.split(chunk), weight_a.split(chunk, dim=1), strict=True):
            distance = torch.cdist(rows, b, compute_mode="donot_use_mm_for_euclid_dist")
            result = result + (weight * (weight_b @ distance.T)).sum(dim=1)
        return result

    value = 2 * total(x, y, v, w) / (n * m) - total(x, x, v, v) / (n * (n - 1)) - total(y, y, w, w) / (m * (m - 1))
    return Estimate(value[0], value[1:].std() if resamples else None)


def frechet_distance(
    x: Float[Tensor, "n features"],
    y: Float[Tensor, "m features_y"],
    *,
    resamples: int = 0,
    splits: int = 8,
    seed: int = 0,
) -> Estimate:
    """Fréchet distance of the Gaussian fits of two samples of features, with the floor of samples this small.

    The estimate is biased upwards by an amount that falls like ``1/n + 1/m``. The floor is measured: the distance
    between random halves of `y` (the reference), scaled by that law to the sizes at hand.

    Args:
        x: features of the samples; the features are the caller's choice, and no distance compares across choices.
        y: features of the reference, at least four draws.
        resamples: bootstrap replicates for the standard error; 0 for none.
        splits: random halvings that the floor averages.
        seed: of the bootstrap and the halvings.
    Raises:
        ValueError: fewer than two draws (four in `y`), not finite, or different numbers of features.
    """
    x, y = _pair(x, y, at_least=2)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return frechet_gaussian(a.mean(0), _covariance(a), b.mean(0), _covariance(b))

    half = len(y) // 2
    scale = (1 / len(x) + 1 / len(y)) / (1 / half + 1 / (len(y) - half))
    floor = sampling_floor(distance, y.detach(), splits=splits, seed=seed).value * scale
    return replace(bootstrap(distance, x, y, resamples=resamples, seed=seed), floor=floor)


def frechet_gaussian(
    mean_a: Float[Tensor, "*batch d"],
    cov_a: Float[Tensor, "*batch d d"],
    mean_b: Float[Tensor, "*batch d"],
    cov_b: Float[Tensor, "*batch d d"],
) -> Float[Tensor, "*batch"]:
    """Squared Wasserstein-2 (Fréchet) distance of two Gaussians; singular covariances are fine.

        |m_a - m_b|^2 + tr(C_a + C_b) - 2 tr (C_a^1/2 C_b C_a^1/2)^1/2

    The last trace is the sum of the singular values of ``C_a^1/2 C_b^1/2``, which squares no small eigenvalue.

    Source: Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X.
    """
    root_a, root_b = _symmetric_root(cov_a.double()), _symmetric_root(cov_b.double())
    traces = (cov_a + cov_b).double().diagonal(dim1=-2, dim2=-1).sum(-1)
    shift = (mean_a.double() - mean_b.double()).square().sum(-1)
    return shift + traces - 2 * torch.linalg.svdvals(root_a @ root_b).sum(-1)


def kolmogorov_smirnov(
    x: Float[Tensor, " n"],
    reference: Float[Tensor, " m"] | Callable[[Tensor], Tensor],
    *,
    resamples: int = 0,
    seed: int = 0,
) -> Estimate:
    """Kolmogorov-Smirnov statistic: the largest gap between two distribution functions.

        sup_z |F_x(z) - F(z)|

    A sample of the reference's own law scores about ``0.87 / sqrt(n)``, or ``0.87 sqrt(1/n + 1/m)`` against a sample.

    Args:
        x: sample on the line.
        reference: another sample, or the exact distribution function (elementwise, float64 in and out).
        resamples: bootstrap replicates for the standard error; 0 for none.
        seed: of the bootstrap.
    """
    if isinstance(reference, Tensor):
        x, reference = _pair(x, reference)
        return bootstrap(_ks_two_samples, x[:, 0], reference[:, 0], resamples=resamples, seed=seed)
    cdf = reference

    def against_law(a: Tensor) -> Tensor:
        value = cdf(a.sort().values)
        step = torch.arange(len(a) + 1, dtype=torch.float64, device=a.device) / len(a)
        return torch.maximum((step[1:] - value).max(), (value - step[:-1]).max())

    return bootstrap(against_law, as_draws("x", x)[:, 0], resamples=resamples, seed=seed)


def kl_histogram(p: Float[Tensor, "*batch bins"], q: Float[Tensor, "*batch bins"]) -> Float[Tensor, "*batch"]:
    """Kullback-Leibler divergence ``sum p log(p / q)`` of histograms over the same bins, which are normalised first.

    Infinite where p has mass and q has none. Wrap it in `bootstrap` for the error of histograms of samples.

    Raises:
        ValueError: a negative or non-finite entry, or a histogram without mass.
    """
    for name, value in (("p", p), ("q", q)):
        if not (value.isfinite().all() and (value >= 0).all() and (value.sum(-1) > 0).all()):
            raise ValueError(f"{name}: expected non-negative finite counts with positive sum, got {value}")
    p, q = (value.double() / value.double().sum(-1, keepdim=True) for value in (p, q))
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def kl_gaussian(
    mean_p: Float[Tensor, "*batch d"],
    cov_p: Float[Tensor, "*batch d d"],
    mean_q: Float[Tensor, "*batch d"],
    cov_q: Float[Tensor, "*batch d d"],
) -> Float[Tensor, "*batch"]:
    """Kullback-Leibler divergence KL(p || q) of two Gaussians.

        1/2 [tr(C_q^-1 C_p) + |C_q^-1/2 (m_q - m_p)|^2 - d + log det C_q - log det C_p]

    Raises:
        ValueError: a covariance is not positive definite.
    """
    factors = []
    for name, cov in (("cov_p", cov_p), ("cov_q", cov_q)):
        factor, info = torch.linalg.cholesky_ex(cov.double())
        if info.any():
            raise ValueError(f"{name}: expected positive definite covariances, got {cov}")
        factors.append(factor)
    root_p, root_q = factors
    whitened = torch.linalg.solve_triangular(root_q, root_p, upper=False)
    shift = torch.linalg.solve_triangular(root_q, (mean_q - mean_p).double().unsqueeze(-1), upper=False)
    log_det = (root_q.diagonal(dim1=-2, dim2=-1).log() - root_p.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    return (whitened.square().sum((-2, -1)) + shift.square().sum((-2, -1)) - mean_p.shape[-1]) / 2 + log_det


def ess_of_weights(log_weights: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Effective sample size ``(sum w)^2 / sum w^2`` of importance weights, given by their logarithms (of any offset).

    From 1 (one draw carries all) to n (equal weights).
    """
    log_weights = log_weights.double() - log_weights.double().amax(-1, keepdim=True)
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def ess_of_chain(chains: Float[Tensor, "chains draws *dims"]) -> Float[Tensor, "*dims"]:
    """Effective sample size of Markov chains: the number of independent draws whose mean is as uncertain.

        ESS = N / tau,   tau = 1 + 2 sum_t rho_t

    The autocorrelations combine all chains, so chains that disagree count for little. Their sum stops at the first
    negative sum of neighbours and is made monotone (Geyer's initial sequence). Antithetic chains may exceed N, up to
    ``N log10 N``.

    Args:
        chains: stationary chains of at least four draws; each trailing entry is a scalar quantity of its own.
    Raises:
        ValueError: fewer than four draws, a quantity that never moves, or entries that are not finite.
    Source: Vehtari et al. 2021, doi:10.1214/20-BA1221, section 3.2 (without splitting and rank normalisation).
    """
    count, draws = chains.shape[:2]
    if draws < 4 or not chains.isfinite().all():
        raise ValueError(f"chains: expected at least 4 finite draws a chain, got shape {tuple(chains.shape)}")
    values = chains.double()
    centred = values - values.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * draws, dim=1)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * draws, dim=1)[:, :draws].mean(0) / draws
    if not (covariance[0] > 0).all():
        raise ValueError("chains: expected quantities that move, got one that is constant")
    within = covariance[0] * draws / (draws - 1)
    total = covariance[0] + (values.mean(1).var(0) if count > 1 else 0.0)
    rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    pairs = rho[: draws // 2 * 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).to(torch.float64).cumprod(0)
    tau = 2 * (positive * pairs.cummin(0).values).sum(0) - 1
    size = count * draws
    return size / tau.clamp(min=1 / math.log10(size))


def _pair(x: Tensor, y: Tensor, at_least: int = 1) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Two samples as matrices of equal width."""
    x, y = as_draws("x", x, at_least), as_draws("y", y, at_least)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"y: expected draws of dimension {x.shape[1]} as in x, got {y.shape[1]}")
    return x, y


def _quantiles(values: Float[Tensor, "n k"], levels: Float[Tensor, " q"]) -> Float[Tensor, "q k"]:
    """Linearly interpolated quantiles along the first axis (`torch.quantile` refuses large inputs)."""
    ordered = values.sort(dim=0).values
    position = levels * (len(values) - 1)
    below = position.long()
    fraction = (position - below).unsqueeze(1)
    return ordered[below] * (1 - fraction) + ordered[(below + 1).clamp(max=len(values) - 1)] * fraction


def _covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Sample covariance of rows, also for a single feature (where `torch.cov` returns a scalar)."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def _symmetric_root(cov: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
    """Square root of a positive semi-definite matrix; eigenvalues that rounding made negative are zero."""
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT


def _median(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of the two middle values, which may be infinite (`torch.quantile` makes NaN of them)."""
    ordered = values.sort().values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2


def _ks_two_samples(a: Float[Tensor, " n"], b: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """Largest gap between the empirical distribution functions of two samples."""
    points = torch.cat([a, b])
    below = [torch.searchsorted(s.sort().values, points, right=True).double() / len(s) for s in (a, b)]
    return (below[0] - below[1]).abs().max()
