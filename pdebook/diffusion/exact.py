"""Distributions whose denoiser is known: Gaussian mixtures in any dimension, with single Gaussians and point masses as cases."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pdebook.diffusion.denoiser import ClassifierFree, Denoiser
from pdebook.diffusion.scalars import Scalar
from pdebook.diffusion.schedules import NoiseSchedule


class GaussianMixture:
    """Mixture Σ_k w_k N(μ_k, C_k) with the exact noise prediction at every noise level.

    Noised, it is the mixture of N(α μ_k, α² C_k + σ² I). With C_k = U_k Λ_k U_kᵀ diagonalised once,

        ε(x) = σ Σ_k r_k(x) U_k (α² Λ_k + σ²)^{-1} U_kᵀ (x - α μ_k),

    where r_k are the posterior weights of the components, computed in log space.

    Args:
        weights: w_k > 0, shape (components,); normalised here.
        means: μ_k, shape (components, dim).
        covariances: (components, dim, dim) full, (components, dim) diagonal, (components,) isotropic variances; zero is a point.
        classes: class of each component, shape (components,); the component's own number if left out.
    Raises:
        ValueError: shapes that disagree, weights that are not positive, covariances that are not positive semidefinite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, classes: Tensor | None = None) -> None:
        if means.ndim != 2 or weights.shape != means.shape[:1]:
            raise ValueError(
                f"means must have shape (components, dim) and weights (components,), got {tuple(means.shape)}, {tuple(weights.shape)}"
            )
        components, dim = means.shape
        if covariances.shape not in ((components,), (components, dim), (components, dim, dim)):
            raise ValueError(
                f"covariances must have shape ({components},), ({components}, {dim}) or ({components}, {dim}, {dim}), "
                f"got {tuple(covariances.shape)}"
            )
        if not bool((weights > 0).all()) or not bool(weights.isfinite().all()) or not components:
            raise ValueError("weights must be positive and finite, at least one")
        if not bool(means.isfinite().all()) or not bool(covariances.isfinite().all()):
            raise ValueError("means and covariances must be finite")
        if classes is not None and classes.shape != weights.shape:
            raise ValueError(f"classes must have shape {tuple(weights.shape)}, got {tuple(classes.shape)}")
        self.log_weights = (weights / weights.sum()).log()
        self.means = means
        self.basis: Tensor | None = None
        if covariances.ndim == 3:
            values, vectors = torch.linalg.eigh(covariances.double())
            self.variances, self.basis = values.to(means.dtype), vectors.to(means.dtype)
            if bool((values < -1e-10 * values.abs().max()).any()):
                raise ValueError("covariances must be positive semidefinite")
            self.variances = self.variances.clamp(min=0.0)
        else:
            self.variances = covariances if covariances.ndim == 2 else covariances[:, None].expand(components, dim)
            if bool((self.variances < 0).any()):
                raise ValueError("covariances must not be negative")
        self.classes = torch.arange(components, device=means.device) if classes is None else classes

    @property
    def dim(self) -> int:
        """Dimension of the samples."""
        return self.means.shape[1]

    def to(self, *args: Any, **kwargs: Any) -> "GaussianMixture":
        """Copy with another dtype or device, as ``Tensor.to``."""
        copy = object.__new__(GaussianMixture)
        copy.log_weights, copy.means = self.log_weights.to(*args, **kwargs), self.means.to(*args, **kwargs)
        copy.variances = self.variances.to(*args, **kwargs)
        copy.basis = None if self.basis is None else self.basis.to(*args, **kwargs)
        copy.classes = self.classes.to(self.means.to(*args, **kwargs).device)
        return copy

    def _rotated(self, x: Tensor, alpha: Tensor) -> Tensor:
        """U_kᵀ (x - α μ_k), shape (batch, components, dim)."""
        if self.basis is None:
            return x[:, None] - alpha * self.means
        shifted = torch.einsum("bd,kde->bke", x, self.basis)
        return shifted - alpha * torch.einsum("kd,kde->ke", self.means, self.basis)

    def _posterior(
        self, x: Tensor, alpha: Scalar, sigma: Scalar, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated residuals, variances, and the log of w_k N(x; α μ_k, α² C_k + σ²)."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (batch, {self.dim}), got {tuple(x.shape)}")
        alpha, sigma = (torch.as_tensor(v, dtype=x.dtype, device=x.device).reshape(-1, 1, 1) for v in (alpha, sigma))
        residual = self._rotated(x, alpha)
        variance = alpha**2 * self.variances + sigma**2
        joint = self.log_weights - 0.5 * (residual**2 / variance + torch.log(2.0 * math.pi * variance)).sum(-1)
        if label is not None:
            other = (label[:, None] >= 0) & (self.classes != label[:, None])
            joint = joint.masked_fill(other, -math.inf)
        return residual, variance, joint

    def noise(
        self, x: Float[Tensor, "batch dim"], alpha: Scalar, sigma: Scalar, label: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Exact noise prediction E[ε | x] at signal α and noise σ (numbers, or one for each sample).

        Args:
            x: noisy samples.
            alpha: signal coefficient.
            sigma: noise standard deviation, positive.
            label: classes to condition on, shape (batch,); -1 is unconditional.
        """
        residual, variance, joint = self._posterior(x, alpha, sigma, label)
        weighted = torch.softmax(joint, 1)[..., None] * residual / variance
        back = weighted.sum(1) if self.basis is None else torch.einsum("bke,kde->bd", weighted, self.basis)
        return back * (sigma.reshape(-1, 1).to(x.dtype) if isinstance(sigma, Tensor) else sigma)

    def log_density(
        self, x: Float[Tensor, "batch dim"], alpha: Scalar = 1.0, sigma: Scalar = 0.0
    ) -> Float[Tensor, " batch"]:
        """Logarithm of the density of the noised mixture."""
        return torch.logsumexp(self._posterior(x, alpha, sigma, None)[2], 1)

    def log_posterior(
        self, x: Float[Tensor, "batch dim"], label: Int[Tensor, " batch"], alpha: Scalar = 1.0, sigma: Scalar = 0.0
    ) -> Float[Tensor, " batch"]:
        """Log p(class | x) of a noisy sample: the exact noisy classifier."""
        given = torch.logsumexp(self._posterior(x, alpha, sigma, label)[2], 1)
        return given - self.log_density(x, alpha, sigma)

    def responsibilities(
        self, x: Float[Tensor, "batch dim"], alpha: Scalar, sigma: Scalar
    ) -> Float[Tensor, "batch components"]:
        """Posterior weights r_k of the components."""
        return torch.softmax(self._posterior(x, alpha, sigma, None)[2], 1)

    def sample(self, uniform: Float[Tensor, " n"], normal: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Samples from given uniform and standard normal draws (see ``pdebook.rng``)."""
        edges = self.log_weights.exp().cumsum(0)
        k = torch.searchsorted(edges, uniform.to(edges.dtype).contiguous()).clamp(max=len(edges) - 1)
        spread = self.variances[k].sqrt() * normal
        if self.basis is not None:
            spread = torch.einsum("nde,ne->nd", self.basis[k], spread)
        return self.means[k] + spread

    def denoiser(
        self, schedule: NoiseSchedule, *, label: Tensor | None = None, guidance: float | None = None, **options: Any
    ) -> Denoiser:
        """The mixture as a perfectly trained network.

        Args:
            schedule: noise schedule.
            label: classes to condition on, shape (batch,).
            guidance: scale of exact classifier-free guidance towards ``label``.
            options: further options of ``Denoiser`` (hook).
        """

        def net(x: Tensor, t: Scalar, condition: Tensor | None = None) -> Tensor:
            return self.noise(x, schedule.alpha(t), schedule.sigma(t), condition)

        if guidance is not None:
            if label is None:
                raise ValueError("label must be given with guidance")
            options["guidance"] = ClassifierFree(label, -1, guidance)
            label = None
        return Denoiser(net, schedule, time_input="raw", condition=label, **options)


def gaussian_flow(
    mean: Tensor, variance: Tensor | float, schedule: NoiseSchedule, x: Float[Tensor, "batch dim"], s: Scalar, t: Scalar
) -> Float[Tensor, "batch dim"]:
    """Exact solution of the probability-flow ODE from s to t when the data are N(mean, variance I).

    x_t = α_t μ + sqrt((α_t² v + σ_t²)/(α_s² v + σ_s²)) (x_s - α_s μ)
    """

    def spread(time: Scalar) -> Any:
        return (schedule.alpha(time) ** 2 * variance + schedule.sigma(time) ** 2) ** 0.5

    return schedule.alpha(t) * mean + spread(t) / spread(s) * (x - schedule.alpha(s) * mean)
