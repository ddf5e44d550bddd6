"""Gradients of a solve through its steps, all of them recorded or with checkpoints; what all ways to form gradients share.

Step sizes are constants for all of them. ``Direct`` and ``Checkpointed`` differentiate the discrete solution exactly,
``backsolve.Backsolve`` the continuous one, so its gradient is as good as its tolerance; ``reversible.Reversible`` is exact at constant
memory.
"""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pdebook.diffeq.plan import Plan, StepInfo, Watch, gather, walk
from pdebook.diffeq.runge_kutta import Solver, Step
from pdebook.diffeq.terms import SDE, Bound


@runtime_checkable
class Adjoint(Protocol):
    """A way to form gradients."""

    def needs_plan(self, bound: Bound, y: Tensor, t: Tensor) -> bool:
        """Whether a plan must be kept; asked once before an adaptive solve."""

    def run(
        self, bound: Bound, solver: Solver, plan: Plan, y: Tensor, watch: Watch | None
    ) -> tuple[Tensor, Tensor | None]:
        """State at the end and saved states (batch, times, size), with gradients."""


def wants_gradient(bound: Bound, y: Tensor, t: Tensor) -> bool:
    """Whether anything that the field uses needs a gradient, hidden tensors included: one evaluation tells."""
    if not torch.is_grad_enabled():
        return False
    if y.requires_grad or any(p.requires_grad for p in parameters(bound)):
        return True
    values = [bound.field(t, y)]
    if isinstance(bound.term, SDE):
        values += [bound.diffusion(t, y), bound.term.brownian.increment(t, t).w]
    return any(value.requires_grad for value in values)


def parameters(bound: Bound) -> list[Tensor]:
    """Parameters of the term's modules and of modules among its arguments, and tensors among the arguments."""
    modules = [*bound.term.modules(), *(arg for arg in bound.args if isinstance(arg, nn.Module))]
    found = [p for module in modules for p in module.parameters()]
    found += [arg for arg in bound.args if isinstance(arg, Tensor)]
    unique = {id(p): p for p in found if p.requires_grad}
    return list(unique.values())


class Differentiated:
    """What the ways to form gradients share: a plan is kept if a gradient may be asked for."""

    def needs_plan(self, bound: Bound, y: Tensor, t: Tensor) -> bool:
        """If anything needs a gradient."""
        return wants_gradient(bound, y, t)


@dataclass(frozen=True)
class Direct(Differentiated):
    """Differentiate through the steps by autograd: exact for the discrete solution, memory grows with the number of steps."""

    def run(
        self, bound: Bound, solver: Solver, plan: Plan, y: Tensor, watch: Watch | None
    ) -> tuple[Tensor, Tensor | None]:
        """Walk the plan; autograd records it."""
        final, _, saved = walk(bound, solver, plan, y, visit=watch)
        return final, gather(saved, len(y), plan.saved, y) if plan.saved else None


def check_hidden(bound: Bound, y: Tensor, t: Tensor, known: list[Tensor]) -> None:
    """Raise ValueError if the field uses a tensor that needs a gradient and is neither in a module of the term nor in ``args``."""
    with torch.enable_grad():
        outputs = [bound.field(t, y.detach())]
        if isinstance(bound.term, SDE):
            # Nor may the path hide one: nothing is sent back to its values.
            outputs += [bound.diffusion(t, y.detach()), bound.term.brownian.increment(t, t).w]
    _check_ends(outputs, known)


def _check_ends(outputs: list[Tensor], known: list[Tensor]) -> None:
    """Raise ValueError if the graph of the outputs ends at a tensor that is not known."""
    names = {id(p) for p in known}
    stack, seen = [out.grad_fn for out in outputs if out.grad_fn is not None], set()
    ends = {id(p.grad_fn) for p in known if p.grad_fn is not None}
    while stack:
        node = stack.pop()
        if node in seen or id(node) in ends:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in names:
            raise ValueError(
                f"the field hides a tensor of shape {tuple(variable.shape)} that needs a gradient: "
                "make the field a torch.nn.Module that owns it, or pass it in args; for values of a path use adjoint Direct"
            )
        stack += [following for following, _ in node.next_functions if following is not None]


def pull(outputs: list[Tensor], cotangents: list[Tensor], inputs: list[Tensor]) -> list[Tensor | None]:
    """Vector-Jacobian product Σ (∂ output/∂ input)ᵀ cotangent for each of the inputs, which are leaves; None where none depends on it.

    Raises:
        ValueError: a tensor that needs a gradient and is not among the inputs: a field may hide one that it uses only late.
    """
    pairs = [(out, cotangent) for out, cotangent in zip(outputs, cotangents, strict=True) if out.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    differentiable, weights = zip(*pairs, strict=True)
    _check_ends(list(differentiable), inputs)
    return list(torch.autograd.grad(differentiable, inputs, weights, allow_unused=True))


def substituted(bound: Bound, known: list[Tensor], values: list[Tensor]) -> Bound:
    """The term with leaf copies ``values`` in place of those arguments that are not leaves."""
    by_id = {id(old): new for old, new in zip(known, values, strict=True)}
    args = tuple(by_id.get(id(arg), arg) if isinstance(arg, Tensor) else arg for arg in bound.args)
    return Bound(bound.term, bound.layout, args)


def leaves(known: list[Tensor], bound: Bound) -> list[Tensor]:
    """What to differentiate with respect to: parameters themselves, and leaf copies of arguments."""
    in_args = {id(arg) for arg in bound.args if isinstance(arg, Tensor)}
    return [p.detach().requires_grad_() if id(p) in in_args else p for p in known]


@dataclass(frozen=True)
class Checkpointed(Differentiated):
    """Keep few states, and repeat the steps between them: the gradient of ``Direct`` with memory for ``checkpoints`` states.

    With c checkpoints and r repetitions of a step, (c + r choose c) steps can be reversed (Griewank); by default both grow like
    the logarithm of the number of steps.

    Args:
        checkpoints: number of states that are kept at once; by default as many as halving the steps needs.
    Raises:
        ValueError: no checkpoints.
    Source: Griewank 1992, Achieving logarithmic growth of temporal and spatial complexity in reverse automatic differentiation.
    """

    checkpoints: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoints is not None and self.checkpoints < 1:
            raise ValueError(f"checkpoints must be at least 1, got {self.checkpoints}")

    def run(
        self, bound: Bound, solver: Solver, plan: Plan, y: Tensor, watch: Watch | None
    ) -> tuple[Tensor, Tensor | None]:
        """Walk the plan without recording; the backward pass walks it again in pieces.

        Raises:
            ValueError: dense output.
        """
        if watch is not None and watch.dense:
            raise ValueError("dense needs adjoint Direct; Checkpointed does not keep the steps")
        known = parameters(bound)
        if torch.is_grad_enabled():
            check_hidden(bound, y, plan.times[0], known)
        slots = self.checkpoints or max(1, math.ceil(math.log2(max(2, plan.steps))))
        final, ys, *noted = _Checkpointed.apply(bound, solver, plan, slots, watch, y, *known)
        if watch is not None:
            # What the recorders returned without a gradient is replaced by the same with one.
            remaining = iter(noted)
            for i, row in enumerate(zip(*watch.records, strict=True)):
                values, spec = tree_flatten(row)
                with_gradient = [next(remaining) if _is_float(value) else value for value in values]
                for entries, value in zip(watch.records, tree_unflatten(with_gradient, spec), strict=True):
                    entries[i] = value
        return final, ys if plan.saved else None


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _floats(tree: Any) -> list[Tensor]:
    """The tensors that may have a gradient in what recorders return."""
    return [value for value in tree_flatten(tree)[0] if _is_float(value)]


class _Checkpointed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        bound: Bound,
        solver: Solver,
        plan: Plan,
        slots: int,
        watch: Watch | None,
        y: Tensor,
        *known: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.bound, ctx.solver, ctx.plan, ctx.slots, ctx.watch = bound, solver, plan, slots, watch
        ctx.save_for_backward(y, *known)
        final, _, saved = walk(bound, solver, plan, y, visit=watch)
        rows = [] if watch is None else [_floats(row) for row in zip(*watch.records, strict=True)]
        ctx.places = [0, *accumulate(len(row) for row in rows)]
        # Recorders may return the state itself, which is no output yet: copies.
        noted = [value.clone() for row in rows for value in row]
        return final, gather(saved, len(y), plan.saved, y), *noted

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_final: Tensor, grad_ys: Tensor, *grad_noted: Tensor) -> tuple[Tensor | None, ...]:
        y, *known = ctx.saved_tensors
        targets = leaves(known, ctx.bound)
        bound, plan, solver = substituted(ctx.bound, known, targets), ctx.plan, ctx.solver
        totals = [torch.zeros_like(p) for p in known]
        state = (y, *solver.start(bound, plan.span(0)[0], y))

        def collect(outputs: list[Tensor], grads: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
            found = pull(outputs, grads, [*inputs, *targets])
            for total, grad in zip(totals, found[len(inputs) :], strict=True):
                if grad is not None:
                    total += grad
            return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found[: len(inputs)], strict=True)]

        def one(i: int, state: tuple[Tensor, ...], grads: list[Tensor]) -> list[Tensor]:
            with torch.enable_grad():
                inputs = [part.detach().requires_grad_() for part in state]
                carry = tuple(inputs[1:])
                noted: list[Tensor] = []

                def look(_: int, info: StepInfo, step: Step) -> None:
                    noted.extend(_floats(ctx.watch.look(info)))

                visit = None if ctx.watch is None else look
                final, after, saved = walk(
                    bound, solver, plan, inputs[0], carry=carry, first=i, last=i + 1, visit=visit
                )
                assert after is not None
                outputs, cotangents = [final, *after, *noted], list(grads)
                if visit is not None:
                    cotangents += grad_noted[ctx.places[i] : ctx.places[i + 1]]
                for rows, columns, values in saved:
                    outputs.append(values)
                    cotangents.append(grad_ys[rows, columns])
                return collect(outputs, cotangents, inputs)

        def reverse(first: int, last: int, state: tuple[Tensor, ...], grads: list[Tensor], slots: int) -> list[Tensor]:
            while last - first > 1:
                middle = first + split(last - first, slots)
                with torch.no_grad():
                    end, carry, _ = walk(bound, solver, plan, state[0], carry=state[1:], first=first, last=middle)
                assert carry is not None
                grads = reverse(middle, last, (end, *carry), grads, max(slots - 1, 0))
                last = middle
            return one(first, state, grads)

        grads = [grad_final, *(torch.zeros_like(part) for part in state[1:])]
        grads = reverse(0, plan.steps, state, grads, ctx.slots)
        # The first stages are a function of the start.
        with torch.enable_grad():
            start = y.detach().requires_grad_()
            carry = solver.start(bound, plan.span(0)[0], start)
            (extra,) = collect(list(carry), grads[1:], [start])
        return None, None, None, None, None, grads[0] + extra, *totals


def split(steps: int, slots: int) -> int:
    """After how many of ``steps`` steps to keep the next state, with room for ``slots`` more."""
    if slots == 0 or steps == 2:
        return steps - 1
    repeats = 1
    while math.comb(slots + repeats, slots) < steps:
        repeats += 1
    return min(steps - 1, max(1, math.ceil(steps * repeats / (repeats + slots))))
