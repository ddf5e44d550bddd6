"""Derivatives of a denoiser: along a direction in (x, λ), and the diagonal of its Jacobian, whose sum is a divergence."""

import torch
from jaxtyping import Float
from torch import Tensor, func

from pdebook.diffusion.denoiser import Denoiser
from pdebook.rng import fold_in, rademacher


def noise_jvp(
    denoiser: Denoiser, x: Float[Tensor, "batch ..."], t: float, dx: Float[Tensor, "batch ..."], rate: float | int = 0.0
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Noise prediction and its derivative ∇_x ε · dx + rate ∂ε/∂λ, by forward-mode differentiation in one pass.

    Args:
        denoiser: model; its network must allow forward-mode differentiation (no in-place operations on its input).
        x: state.
        t: time.
        dx: direction, same shape as x.
        rate: rate of the half log-SNR λ along the direction; 1 for a total derivative with respect to λ.
    Returns:
        ε and its derivative, in the dtype of x.
    Raises:
        ValueError: a direction of another shape.
    """
    if dx.shape != x.shape:
        raise ValueError(f"dx must have the shape of x, {tuple(x.shape)}, got {tuple(dx.shape)}")
    schedule = denoiser.schedule
    if rate == 0.0:
        result = func.jvp(lambda y: denoiser.noise(y, t), (x,), (dx,))
        return result[0], result[1]
    here = torch.full(
        (len(x), *[1] * (x.ndim - 1)), float(schedule.half_log_snr(t)), dtype=torch.float64, device=x.device
    )

    def at(y: Tensor, half_log_snr: Tensor) -> Tensor:
        return denoiser.noise(y, schedule.time(half_log_snr))

    result = func.jvp(at, (x, here), (dx, torch.full_like(here, rate)))
    return result[0], result[1]


def noise_diagonal(
    denoiser: Denoiser, x: Float[Tensor, "batch ..."], t: float, *, probes: int | None = None, seed: int = 0
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]:
    """Noise prediction ε and the diagonal ∂ε_d/∂x_d of its Jacobian; the diagonal's sum over a sample is the divergence.

    With v of independent signs, E[v ⊙ (∇_x ε · v)] is the diagonal, and its sum, vᵀ ∇_x ε v, is Hutchinson's estimate of the
    trace. Exact, it takes one product for each dimension.

    Args:
        denoiser: model.
        x: state.
        t: time.
        probes: number of sign vectors for each sample; None for the exact diagonal.
        seed: seed of the signs; sample i of the batch has the same signs in every batch.
    Raises:
        ValueError: no probes.
    Source: Hutchinson 1989; Bekas, Kokiopoulou and Saad 2007 for the diagonal.
    """
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be at least 1, or None for the exact diagonal, got {probes}")
    diagonal = torch.zeros_like(x)
    noise = diagonal
    if probes is None:
        for d in range(x[0].numel()):
            direction = torch.zeros_like(x)
            direction.flatten(1)[:, d] = 1.0
            noise, product = noise_jvp(denoiser, x, t, direction)
            diagonal = diagonal + direction * product
        return noise, diagonal
    for k in range(probes):
        samples = torch.arange(len(x))
        signs = rademacher(fold_in(seed, f"probe {k}"), samples, tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
        noise, product = noise_jvp(denoiser, x, t, signs)
        diagonal = diagonal + signs * product / probes
    return noise, diagonal
