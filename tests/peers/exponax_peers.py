"""The problems of ``exponax_cases`` solved by exponax, in double precision; imports it where it is needed.

There is no case for its Korteweg-de Vries and advection steppers above first order: version 0.2.0 takes the real part of the
coefficients' means also where the symbol is complex, which changes the method.
"""

from typing import Any

import torch
from comparison import solved
from exponax_cases import CASES, Case, ours, start, thinned
from torch import Tensor


def theirs(case: Case) -> Tensor:
    """Their result."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import exponax
    import jax.numpy as jnp
    import numpy as np

    kind = getattr(exponax.stepper, case.peer, None) or getattr(exponax.stepper.reaction, case.peer)
    stepper = kind(case.dims, case.length, case.n, case.dt, order=case.order, **case.options)
    end = exponax.repeat(stepper, case.steps)(jnp.asarray(start(case)[0].numpy()))
    return thinned(torch.from_numpy(np.array(end)))


def references() -> dict[str, Any]:
    """Run the peer, print how far ours is from it, and return what is to be stored."""
    return solved(CASES, ours, theirs)
