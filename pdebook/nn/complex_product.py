"""The matrix product of complex matrices that spectral weights need: batched, and with gradients that copy no weights."""

from typing import Any

import torch
from jaxtyping import Complex
from torch import Tensor

__all__ = ["product"]


class _Product(torch.autograd.Function):
    """Matrix product of complex matrices whose gradients conjugate ``a`` alone: ``b``, the weights, is never copied."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        (g,) = gradients
        first = product(g.conj_physical(), b.mT).conj_physical() if ctx.needs_input_grad[0] else None
        second = product(a.conj_physical().mT, g) if ctx.needs_input_grad[1] else None
        return first, second

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        a, b = ctx.saved_tensors
        da, db = tangents
        first = None if da is None else da @ b
        second = None if db is None else a @ db
        return second if first is None else first if second is None else first + second


def product(a: Complex[Tensor, "*batch n k"], b: Complex[Tensor, "*batch k m"]) -> Complex[Tensor, "*batch n m"]:
    """a b for complex matrices with the same leading axes."""
    return _Product.apply(a, b)
