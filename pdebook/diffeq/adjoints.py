"""Gradients of a solve: through its steps, with checkpoints, or by an equation of their own.

Step sizes are constants for all of them. ``Direct`` and ``Checkpointed`` differentiate the discrete solution exactly, ``Backsolve``
the continuous one, so its gradient is as good as its tolerance; ``reversible.Reversible`` is exact at constant memory.
"""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pdebook.diffeq.adaptive import STATUS, search
from pdebook.diffeq.controllers import PID
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


@dataclass(frozen=True)
class Backsolve(Differentiated):
    """The continuous adjoint: gradients solve a differential equation backwards in time, at constant memory.

        da/dt = -(∂f/∂y)ᵀ a,   dG/dt = -Σ_batch (∂f/∂θ)ᵀ a,   from a(t_1) = ∂L/∂y(t_1)

    with ∂L/∂y(t_i) added to a at each saved time, while y is solved backwards along with a. The gradient is that of the
    continuous problem: it differs from the discrete solution's by the order of the tolerance, and fails where the equation
    backwards is unstable. The batch takes one step size together.

    Args:
        solver: method for the backward solve; that of the forward solve if left out.
        controller: its step sizes; default tolerances if left out.
        seminorm: whether G is left out of the error norm, which saves steps: nothing depends on it.
        max_steps: most passes of the loop between two saved times.
    Source: Chen et al. 2018; Kidger, Chen and Lyons 2021 for the seminorm.
    """

    solver: Solver | None = None
    controller: PID | None = None
    seminorm: bool = True
    max_steps: int = 4096

    def run(
        self, bound: Bound, solver: Solver, plan: Plan, y: Tensor, watch: Watch | None
    ) -> tuple[Tensor, Tensor | None]:
        """Walk the plan without recording it.

        Raises:
            ValueError: a stochastic equation, a complex state, or a method without error estimate for the backward solve.
        """
        if watch is not None:
            raise ValueError("record and dense need adjoint Direct; Backsolve does not keep the steps")
        if isinstance(bound.term, SDE):
            raise ValueError(
                "adjoint Backsolve is for ordinary equations; for stochastic ones use Reversible or Direct"
            )
        if y.is_complex():
            raise ValueError("adjoint Backsolve needs a real state")
        backward = self.solver or solver
        if not backward.adaptive:
            raise ValueError(f"adjoint Backsolve needs a solver with an error estimate, {backward.name} has none")
        known = parameters(bound)
        if torch.is_grad_enabled():
            check_hidden(bound, y, plan.times[0], known)
        final, ys = _Backsolve.apply(bound, solver, plan, self, y, *known)
        return final, ys if plan.saved else None


class _Backsolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, bound: Bound, solver: Solver, plan: Plan, adjoint: Backsolve, y: Tensor, *known: Tensor
    ) -> tuple[Tensor, Tensor]:
        final, _, saved = walk(bound, solver, plan, y)
        ys = gather(saved, len(y), plan.saved, y)
        times = torch.full((len(y), plan.saved), torch.nan, dtype=torch.float64, device=y.device)
        for rows, columns, targets in zip(plan.rows, plan.columns, plan.targets, strict=True):
            times[rows, columns] = targets
        ctx.bound, ctx.adjoint, ctx.solver = bound, adjoint, adjoint.solver or solver
        ctx.ends = plan.times[0], plan.times[-1], times
        ctx.save_for_backward(final, *known)
        return final, ys

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_final: Tensor, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        y, *known = ctx.saved_tensors
        targets = leaves(known, ctx.bound)
        bound = substituted(ctx.bound, known, targets)
        start, end, times = ctx.ends
        a = grad_final
        totals = torch.cat([torch.zeros(p.numel(), dtype=y.dtype, device=y.device) for p in known] or [y.new_empty(0)])
        here = end
        for column in range(times.shape[1] - 1, -1, -1):
            there = times[:, column]
            y, a, totals = _back(ctx, bound, targets, y, a, totals, here, there)
            a, here = a + grad_ys[:, column], there
        y, a, totals = _back(ctx, bound, targets, y, a, totals, here, start)
        pieces = totals.split([p.numel() for p in known])
        grads = [piece.reshape(p.shape).to(p.dtype) for piece, p in zip(pieces, known, strict=True)]
        return None, None, None, None, a, *grads


class AdjointBound(Bound):
    """The adjoint equation for a whole batch as one trajectory, in a time that runs from 0 to 1 along each trajectory's span."""

    def __init__(self, bound: Bound, targets: list[Tensor], shape: torch.Size, here: Tensor, there: Tensor) -> None:
        super().__init__(bound.term, bound.layout, bound.args)
        self.bound, self.targets, self.shape, self.here, self.span = bound, targets, shape, here, there - here

    def field(self, t: Tensor, y: Tensor) -> Tensor:
        """The right-hand side at time t in [0, 1] for (y, a, G) as one row."""
        self.evaluations += 1
        z = y
        size = self.shape.numel()
        y, a = z[0, :size].view(self.shape), z[0, size : 2 * size].view(self.shape)
        speed = self.span.to(z.dtype)[:, None]
        with torch.enable_grad():
            inside = y.detach().requires_grad_()
            f = self.bound.field(self.here + t * self.span, inside)
            inputs = [inside, *self.targets]
            grads = pull([f], [-a * speed], inputs)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(inputs, grads, strict=True)]
        return torch.cat([(f.detach() * speed).flatten(), *(part.flatten().to(z.dtype) for part in parts)])[None]


def _back(
    ctx: Any, bound: Bound, targets: list[Tensor], y: Tensor, a: Tensor, totals: Tensor, here: Tensor, there: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """State, adjoint and parameters' gradient at the times ``there``, from those at the times ``here``."""
    if bool((here == there).all()):
        return y, a, totals
    adjoint, size = ctx.adjoint, y.numel()
    z = torch.cat([y.flatten(), a.flatten(), totals])[None]
    mask = None
    if adjoint.seminorm and len(totals):
        mask = torch.arange(z.shape[1], device=z.device) < 2 * size
    zero, one = (torch.full((1,), value, dtype=torch.float64, device=z.device) for value in (0.0, 1.0))
    found = search(
        AdjointBound(bound, targets, y.shape, here, there),
        ctx.solver,
        adjoint.controller or PID(),
        z,
        zero,
        one,
        max_steps=adjoint.max_steps,
        mask=mask,
    )
    if int(found.status[0]):
        what = STATUS[int(found.status[0])]
        raise ArithmeticError(f"the backward solve of Backsolve failed ({what}) at {float(found.t[0]):.3g} of its way")
    parts = found.y[0]
    return parts[:size].view_as(y), parts[size : 2 * size].view_as(a), parts[2 * size :]
