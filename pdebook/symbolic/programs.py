"""A population of expressions as tensors, evaluated all at once.

A program is an expression's prefix tokens as numbers, padded at the right to a common length; its constants stand in a second tensor
at their tokens' places. The first argument of the token at position t begins at t + 1, the second behind it.

A population is not run one token at a time, with every operator for every program, but by a plan: all nodes of the same height
and operator, of all programs, are one gather, one operation and one scatter. The plan is laid on the device and its group sizes are
read by the host, once for a population. A reverse pass over the plan gives the derivatives of every value by every constant, since
each value of a tree is used once.

| code | token |
|---|---|
| 0 | padding |
| 1 | a constant |
| 2, ..., 1 + V | the variables |
| then | the operators |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from pdebook.symbolic.expressions import OPERATORS, Expression

__all__ = ["CONSTANT", "FIRST_VARIABLE", "PADDING", "Plan", "Programs", "compiled", "subtree_sizes"]

PADDING, CONSTANT, FIRST_VARIABLE = 0, 1, 2


@dataclass(frozen=True)
class Programs:
    """A population of expressions.

    Attributes:
        code: tokens, shape (programs, length).
        constants: values at the places of the constants, zero elsewhere, shape (programs, length).
        variables: names of the variables.
        operators: names of the operators.
    """

    code: Int64[Tensor, "programs length"]
    constants: Float[Tensor, "programs length"]
    variables: tuple[str, ...]
    operators: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.code)

    @property
    def first_operator(self) -> int:
        """Code of the first operator."""
        return FIRST_VARIABLE + len(self.variables)

    @property
    def arities(self) -> Int64[Tensor, " codes"]:
        """Arity of each code; padding counts as a leaf."""
        known = [0] * self.first_operator + [OPERATORS[name].arity for name in self.operators]
        return torch.tensor(known, device=self.code.device)

    @property
    def sizes(self) -> Int64[Tensor, " programs"]:
        """Number of nodes of each program."""
        return (self.code != PADDING).sum(1)

    @property
    def is_constant(self) -> Bool[Tensor, "programs length"]:
        """Where the constants stand."""
        return self.code == CONSTANT

    @property
    def parameters(self) -> Float[Tensor, "programs slots"]:
        """The constants of each program in prefix order, filled up with zeros to the number of the one that has most."""
        return torch.where(self.plan.used, self.constants.gather(1, self.plan.slots), 0.0)

    def with_parameters(self, parameters: Float[Tensor, "programs slots"]) -> "Programs":
        """The same programs with other constants, in prefix order."""
        values = torch.where(self.plan.used, parameters, 0.0)
        return replace(
            self, constants=torch.zeros_like(self.constants, dtype=values.dtype).scatter(1, self.plan.slots, values)
        )

    def __getitem__(self, index: Shaped[Tensor, " some"]) -> "Programs":
        """Some of the programs, by a mask or by numbers."""
        return replace(self, code=self.code[index], constants=self.constants[index])

    def expressions(self) -> list[Expression]:
        """The programs as trees, on the host."""
        names = {FIRST_VARIABLE + i: name for i, name in enumerate(self.variables)}
        operators = {self.first_operator + i: OPERATORS[name] for i, name in enumerate(self.operators)}
        trees = []
        for codes, values in zip(self.code.tolist(), self.constants.tolist(), strict=True):
            stack: list[Expression] = []
            for code, value in zip(reversed(codes), reversed(values), strict=True):
                if code in operators:
                    arguments = tuple(stack.pop() for _ in range(operators[code].arity))
                    stack.append(Expression(operators[code].name, arguments))
                elif code != PADDING:
                    stack.append(Expression(value if code == CONSTANT else names[code]))
            trees.append(stack.pop())
        return trees

    def __call__(
        self,
        x: Float[Tensor, "*programs points variables"],
        parameters: Float[Tensor, "programs slots"] | None = None,
    ) -> Float[Tensor, "programs points"]:
        """Values, differentiable in x and in the constants, any number of times and under ``torch.func``.

        Where a program leaves the domain of an operator its values aren't finite; the others do not notice.

        Args:
            x: points for all programs, or for each its own.
            parameters: other constants, in prefix order as in ``parameters``.
        Raises:
            ValueError: x with another number of variables.
        """
        leaves = self._leaves(x, self if parameters is None else self.with_parameters(parameters))
        rows = leaves.flatten(0, 1)
        for function, nodes, arguments in self.plan.groups:
            rows = rows.index_copy(0, nodes, function(*[rows[argument] for argument in arguments]))
        return rows.view_as(leaves)[:, 0]

    @torch.no_grad()
    def values(
        self,
        x: Float[Tensor, "*programs points variables"],
        parameters: Float[Tensor, "programs slots"] | None = None,
    ) -> Float[Tensor, "programs points"]:
        """What a call gives, without a graph, in place: faster."""
        values = self._leaves(x, self if parameters is None else self.with_parameters(parameters))
        self.plan.forward(values)
        return values[:, 0].clone()

    def linearise(
        self,
        x: Float[Tensor, "*programs points variables"],
        parameters: Float[Tensor, "programs slots"] | None = None,
    ) -> tuple[Float[Tensor, "programs points"], Float[Tensor, "programs points slots"]]:
        """Values, and their derivatives by the parameters, without a graph. Those of unused slots are zero."""
        with torch.no_grad():
            values = self._leaves(x, self if parameters is None else self.with_parameters(parameters))
            self.plan.forward(values)
            slopes = self.plan.backward(values, torch.ones_like(values[:, 0]))
            row = torch.arange(len(self), device=self.code.device)[:, None]
            jacobian = slopes[row, self.plan.slots].masked_fill_(~self.plan.used[..., None], 0.0)
            return values[:, 0].clone(), jacobian.mT

    def _leaves(self, x: Tensor, programs: "Programs") -> Tensor:
        """Value of each position as if it were a leaf, shape (programs, length, points)."""
        if x.shape[-1] != len(self.variables):
            raise ValueError(
                f"x must have the {len(self.variables)} variables {self.variables} last, got {tuple(x.shape)}"
            )
        # Variable number 0 is zero, for all that is none.
        table = torch.nn.functional.pad(x, (1, 0)).mT
        number = self.code - (FIRST_VARIABLE - 1)
        number = torch.where((number > 0) & (number <= len(self.variables)), number, 0)
        chosen = table[number] if x.ndim == 2 else table.gather(1, number[..., None].expand(-1, -1, x.shape[1]))
        return chosen + programs.constants[..., None]

    @cached_property
    def plan(self) -> "Plan":
        """Which nodes are computed together, in which order."""
        length = self.code.shape[1]
        sizes = subtree_sizes(self.code, self.arities)
        position = torch.arange(length, device=self.code.device)
        # inside[i, j]: node j belongs to the subtree that begins at i.
        inside = (position >= position[:, None]) & (position < (position + sizes)[..., None])
        depth = inside.sum(1)
        height = torch.where(inside, depth[:, None, :], 0).amax(2) - depth
        kind = self.code - self.first_operator
        kinds = max(len(self.operators), 1)
        key = torch.where(kind >= 0, height * kinds + kind, length * kinds).flatten()
        constants = self.is_constant.sum(1)
        # The one look at the device.
        *counts, _, slots = torch.cat(
            [torch.bincount(key, minlength=length * kinds + 1), constants.amax()[None]]
        ).tolist()
        slots = max(slots, 1)
        order = key.argsort(stable=True)
        groups, place = [], 0
        sizes = sizes.flatten()
        for number, many in enumerate(counts):
            if many:
                rows = order[place : place + many]
                operator = OPERATORS[self.operators[number % kinds]]
                arguments = [rows + 1]
                if operator.arity == 2:
                    arguments.append(rows + 1 + sizes[rows + 1])
                groups.append((operator.function, rows, arguments))
                place += many
        first = (~self.is_constant).to(torch.uint8).argsort(dim=1, stable=True)[:, :slots]
        return Plan(groups, first, position[:slots] < constants[:, None])


@dataclass(frozen=True)
class Plan:
    """How a population is evaluated.

    Attributes:
        groups: nodes that are computed together: a function, the nodes, and the nodes of each argument; leaves first.
        slots: places of each program's constants, then of other tokens, shape (programs, slots).
        used: which of them are constants.
    """

    groups: list[tuple[Callable[..., Tensor], Tensor, list[Tensor]]]
    slots: Int64[Tensor, "programs slots"]
    used: Bool[Tensor, "programs slots"]

    def forward(self, values: Float[Tensor, "programs length points"]) -> None:
        """Fill in the operators' values, in place; the programs' values are then those at position 0."""
        rows = values.flatten(0, 1)
        for function, nodes, arguments in self.groups:
            rows[nodes] = function(*[rows[argument] for argument in arguments])

    def backward(
        self, values: Float[Tensor, "programs length points"], slope: Float[Tensor, "programs points"]
    ) -> Float[Tensor, "programs length points"]:
        """Derivatives by the values of all nodes, of the sum of slope times the programs' values; anything at padding."""
        # Every node of a tree is written below; padding is not, and nobody asks for it.
        slopes = torch.empty_like(values)
        slopes[:, 0] = slope
        rows, down = values.flatten(0, 1), slopes.flatten(0, 1)
        for function, nodes, arguments in reversed(self.groups):
            inputs = [rows[argument].requires_grad_() for argument in arguments]
            with torch.enable_grad():
                output = function(*inputs)
            for argument, part in zip(arguments, torch.autograd.grad(output, inputs, down[nodes]), strict=True):
                down[argument] = part
        return slopes


def subtree_sizes(
    code: Int64[Tensor, "programs length"], arities: Int64[Tensor, " codes"]
) -> Int64[Tensor, "programs length"]:
    """Number of nodes of the subtree that begins at each position; 1 at padding.

    The subtree from i ends at the first e where arguments asked for and nodes given balance: Σ_{i <= j <= e} (arity_j - 1) = -1.
    """
    position = torch.arange(code.shape[1], device=code.device)
    open_after = (arities[code] - 1).cumsum(1)
    before = open_after - (arities[code] - 1)
    ends = (open_after[:, None, :] == before[:, :, None] - 1) & (position >= position[:, None])
    return ends.to(torch.uint8).argmax(2) - position + 1


def compiled(
    expressions: Sequence[Expression],
    variables: Sequence[str],
    *,
    operators: Sequence[str] | None = None,
    length: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Programs:
    """Programs of expressions.

    Args:
        expressions: trees.
        variables: names in the order of the points' last axis.
        operators: names; those that occur, sorted, if left out.
        length: number of tokens, at least the largest size, which it is if left out.
        dtype: of the constants.
        device: where the programs live.
    Raises:
        ValueError: no expression, one with an unknown variable or an operator that is not among ``operators``, or one too long.
    """
    if not expressions:
        raise ValueError("expressions must hold one at least, got none")
    names = tuple(
        operators if operators is not None else sorted({str(n.head) for e in expressions for n in e if n.arguments})
    )
    numbers = {name: FIRST_VARIABLE + i for i, name in enumerate([*variables, *names])}
    longest = max(expression.size for expression in expressions)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"length must be at least {longest}, the size of the largest expression, got {length}")
    code, constants = torch.zeros(len(expressions), length, dtype=torch.int64), torch.zeros(len(expressions), length)
    constants = constants.to(torch.float64)
    for i, expression in enumerate(expressions):
        for t, node in enumerate(expression):
            if isinstance(node.head, float):
                code[i, t], constants[i, t] = CONSTANT, node.head
            elif node.head in numbers:
                code[i, t] = numbers[node.head]
            else:
                kind, known = ("operators", names) if node.arguments else ("variables", tuple(variables))
                raise ValueError(f"{kind} must hold {node.head!r}, which occurs in {expression}; got {known}")
    return Programs(code.to(device), constants.to(device, dtype), tuple(variables), names)
