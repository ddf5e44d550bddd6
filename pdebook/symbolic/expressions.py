"""Expressions as trees: prefix and number tokens, infix, evaluation on tensors.

An ``Expression`` is an operator with its arguments, a variable, or a constant. It is a value: immutable, compared by structure.

| form | x / (1 - sin y) |
|---|---|
| prefix | ``div x sub 1.0 sin y`` |
| prefix with number tokens | ``div x sub + N100 E-2 sin y`` |
| skeleton | ``div x sub <PLACEHOLDER> sin y`` |
| infix | ``x / (1.0 - sin(y))`` |

Functions are not protected: outside its domain an operator gives what torch gives, NaN or infinity (log and sqrt of negative
numbers, division by zero), so that an expression means the same here, in sympy and on paper. Who searches rejects values that are
not finite.
"""

import ast
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "NUMBER_TOKENS",
    "OPERATORS",
    "PLACEHOLDER",
    "Expression",
    "Operator",
    "constant",
    "decode_number",
    "encode_number",
    "parse_infix",
    "parse_prefix",
    "parse_system",
    "system_tokens",
]


@dataclass(frozen=True)
class Operator:
    """An operator of expressions.

    Attributes:
        name: its prefix token.
        arity: number of arguments, 1 or 2.
        function: on tensors.
        sympy: (the module sympy, *arguments) to sympy's expression.
        infix: format of the printed form; a name and brackets if left out.
        precedence: of the infix form; higher binds tighter.
    """

    name: str
    arity: int
    function: Callable[..., Tensor]
    sympy: Callable[..., Any]
    infix: str = ""
    precedence: int = 9


OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Operator("add", 2, torch.add, lambda sp, a, b: a + b, "{} + {}", 1),
        Operator("sub", 2, torch.sub, lambda sp, a, b: a - b, "{} - {}", 1),
        Operator("mul", 2, torch.mul, lambda sp, a, b: a * b, "{} * {}", 2),
        Operator("div", 2, torch.div, lambda sp, a, b: a / b, "{} / {}", 2),
        Operator("pow", 2, torch.pow, lambda sp, a, b: a**b),
        Operator("neg", 1, torch.neg, lambda sp, a: -a, "-{}", 3),
        Operator("inv", 1, torch.reciprocal, lambda sp, a: 1 / a),
        Operator("pow2", 1, torch.square, lambda sp, a: a**2, "{}**2", 4),
        Operator("sqrt", 1, torch.sqrt, lambda sp, a: sp.sqrt(a)),
        Operator("exp", 1, torch.exp, lambda sp, a: sp.exp(a)),
        Operator("log", 1, torch.log, lambda sp, a: sp.log(a)),
        Operator("sin", 1, torch.sin, lambda sp, a: sp.sin(a)),
        Operator("cos", 1, torch.cos, lambda sp, a: sp.cos(a)),
        Operator("tanh", 1, torch.tanh, lambda sp, a: sp.tanh(a)),
        Operator("abs", 1, torch.abs, lambda sp, a: sp.Abs(a)),
    )
}
"""Operators by their prefix token."""

PLACEHOLDER = "<PLACEHOLDER>"
"""Token of a number that is left out of a skeleton; it reads as a variable."""

SEPARATOR = "|"
_DIGITS, _LARGEST = 3, 10
NUMBER_TOKENS: tuple[str, ...] = (
    "+",
    "-",
    *(f"N{m:0{_DIGITS}d}" for m in range(10**_DIGITS)),
    *(f"E{e}" for e in range(-_LARGEST, _LARGEST + 1)),
)
"""Signs, mantissas N000 to N999, exponents E-10 to E10."""


def encode_number(value: float | int) -> list[str]:
    """Sign, mantissa and exponent of a number rounded to three digits: 28 is ``+ N280 E-1``, mantissa times 10^exponent.

    Zero is ``+ N000 E-2``; what is too small for the exponents becomes N000 E0.

    Raises:
        ValueError: not finite, or of 1e13 or more in size.
    Source: Liu et al. 2024 (PROSE), the official code.
    """
    if not math.isfinite(value):
        raise ValueError(f"value must be finite, got {value}")
    mantissa, exponent = f"{abs(value):.{_DIGITS - 1}e}".split("e")
    power = int(exponent) - _DIGITS + 1
    if power > _LARGEST:
        raise ValueError(f"value must be below 1e{_LARGEST + _DIGITS} in size, got {value}")
    sign = "-" if value < 0 else "+"
    if power < -_LARGEST:
        return [sign, "N" + "0" * _DIGITS, "E0"]
    return [sign, "N" + mantissa.replace(".", ""), f"E{power}"]


def decode_number(tokens: Sequence[str]) -> float:
    """The number of three tokens.

    Raises:
        ValueError: tokens that are not a sign, a mantissa and an exponent.
    """
    match = re.fullmatch(rf"([+-]) N(\d{{{_DIGITS}}}) E(-?\d+)", " ".join(tokens))
    if not match or abs(int(match[3])) > _LARGEST:
        raise ValueError(f"tokens of a number must be like '+ N280 E-1', got {' '.join(tokens)!r}")
    # Read as one decimal, so that the value is the nearest double.
    return float(f"{match[1]}{match[2]}e{match[3]}")


@dataclass(frozen=True)
class Expression:
    """A tree: an operator's name with its arguments, a variable's name without any, or the value of a constant.

    Attributes:
        head: name, or value.
        arguments: the operator's.
    Raises:
        ValueError: an unknown operator, a wrong number of arguments, a variable named like an operator, a constant not finite.
    """

    head: str | float
    arguments: tuple["Expression", ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.head, float):
            if self.arguments or not math.isfinite(self.head):
                raise ValueError(
                    f"a constant must be finite and has no arguments, got {self.head} with {self.arguments}"
                )
        elif self.arguments and self.head not in OPERATORS:
            raise ValueError(f"unknown operator {self.head!r}; known are {', '.join(OPERATORS)}")
        elif self.head in OPERATORS and len(self.arguments) != OPERATORS[self.head].arity:
            arity = OPERATORS[self.head].arity
            raise ValueError(f"operator {self.head!r} takes {arity} arguments, got {len(self.arguments)}")

    def __iter__(self) -> Iterator["Expression"]:
        """All nodes, in prefix order."""
        yield self
        for argument in self.arguments:
            yield from argument

    @property
    def size(self) -> int:
        """Number of nodes: the complexity."""
        return sum(1 for _ in self)

    @property
    def depth(self) -> int:
        """Nodes on the longest way from the root to a leaf."""
        return 1 + max((argument.depth for argument in self.arguments), default=0)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that occur, sorted."""
        return tuple(sorted({node.head for node in self if isinstance(node.head, str) and not node.arguments}))

    @property
    def constants(self) -> tuple[float, ...]:
        """Values of the constants, in prefix order."""
        return tuple(node.head for node in self if isinstance(node.head, float))

    def with_constants(self, values: Iterable[float | int]) -> "Expression":
        """The same tree with other constants, in prefix order.

        Raises:
            ValueError: more or fewer values than constants.
        """
        given = [float(value) for value in values]
        if len(given) != len(self.constants):
            raise ValueError(f"values must hold {len(self.constants)} constants, got {len(given)}")
        rest = iter(given)

        def rebuild(node: Expression) -> Expression:
            if isinstance(node.head, float):
                return Expression(next(rest))
            return Expression(node.head, tuple(map(rebuild, node.arguments)))

        return rebuild(self)

    def rounded(self, step: float | int = 0.01) -> "Expression":
        """The same tree with its constants rounded to multiples of ``step``.

        Raises:
            ValueError: a step that is not positive.
        """
        if not step > 0:
            raise ValueError(f"step must be positive, got {step}")
        digits = max(0, 2 - math.floor(math.log10(step)))
        # The second rounding takes the tail of the binary multiplication away: 3 * 0.1 is 0.3.
        return self.with_constants(round(round(value / step) * step, digits) for value in self.constants)

    def __call__(
        self, values: Mapping[str, Float[Tensor, "..."]], constants: Float[Tensor, "*batch constants"] | None = None
    ) -> Float[Tensor, "..."]:
        """The value for tensors that broadcast, differentiable in them and in the constants.

        Args:
            values: a tensor for each variable.
            constants: other values for the constants, in prefix order along the last axis, so that they can be fitted.
        Raises:
            ValueError: a variable without a value, a wrong number of constants, or nothing to tell the shape from.
        """
        missing = set(self.variables) - set(values)
        if missing:
            raise ValueError(f"values must hold the variables {', '.join(sorted(missing))}; got {', '.join(values)}")
        if constants is not None and constants.shape[-1] != len(self.constants):
            raise ValueError(f"constants must hold {len(self.constants)} numbers, got shape {tuple(constants.shape)}")
        if not values and constants is None:
            raise ValueError("values must hold a tensor, from which an expression without variables takes its shape")
        like = constants if constants is not None else next(iter(values.values()))
        numbers = iter(constants.unbind(-1) if constants is not None else map(like.new_tensor, self.constants))

        def evaluate(node: Expression) -> Tensor:
            if isinstance(node.head, float):
                return next(numbers)
            if not node.arguments:
                return values[node.head]
            return OPERATORS[node.head].function(*[evaluate(argument) for argument in node.arguments])

        result = evaluate(self)
        return result.expand(torch.broadcast_shapes(result.shape, *(value.shape for value in values.values())))

    def prefix(self, numbers: Literal["plain", "tokens", "placeholder"] = "plain") -> list[str]:
        """Tokens in prefix order.

        Args:
            numbers: how constants are written: "plain" in full, "tokens" as sign, mantissa and exponent, rounded to three digits,
                "placeholder" not at all.
        """
        if numbers not in ("plain", "tokens", "placeholder"):
            raise ValueError(f"numbers must be 'plain', 'tokens' or 'placeholder', got {numbers!r}")
        words: list[str] = []
        for node in self:
            if isinstance(node.head, str):
                words.append(node.head)
            elif numbers == "tokens":
                words += encode_number(node.head)
            else:
                words.append(repr(node.head) if numbers == "plain" else PLACEHOLDER)
        return words

    def __str__(self) -> str:
        """Infix form; ``parse_infix`` reads it back."""
        return self._infix()[0]

    def _infix(self) -> tuple[str, int]:
        """Text and precedence."""
        if isinstance(self.head, float):
            # A negative constant binds like a sign.
            return repr(self.head), 9 if self.head >= 0 and math.copysign(1, self.head) > 0 else 3
        if not self.arguments:
            return self.head, 9
        operator = OPERATORS[self.head]
        if not operator.infix or (self.head == "neg" and isinstance(self.arguments[0].head, float)):
            # The sign of a constant belongs to the constant.
            return f"{self.head}({', '.join(map(str, self.arguments))})", 9
        parts = []
        for i, argument in enumerate(self.arguments):
            text, precedence = argument._infix()
            # The right side of - and / needs brackets already at equal precedence; so do the base of a power and -(-x).
            loose = (
                precedence < operator.precedence
                if i == 0 and operator.arity == 2
                else precedence <= operator.precedence
            )
            parts.append(f"({text})" if loose else text)
        return operator.infix.format(*parts), operator.precedence

    def to_sympy(self, exact: bool = False) -> Any:
        """Sympy's expression, with real symbols; ``edge.from_sympy`` is the way back.

        Args:
            exact: make the constants the rational numbers of their decimals.
        """
        import sympy

        def convert(node: Expression) -> Any:
            if isinstance(node.head, float):
                if exact or node.head.is_integer():
                    return sympy.Rational(repr(node.head))
                return sympy.Float(node.head)
            if not node.arguments:
                return sympy.Symbol(node.head, real=True)
            return OPERATORS[node.head].sympy(sympy, *map(convert, node.arguments))

        return convert(self)


def constant(value: float | int) -> Expression:
    """A constant."""
    return Expression(float(value))


def parse_prefix(tokens: Sequence[str] | str, variables: Collection[str]) -> Expression:
    """Expression of prefix tokens; numbers may be written in full or as sign, mantissa and exponent.

    Args:
        tokens: words, or a text with spaces between them.
        variables: names that are variables; add ``PLACEHOLDER`` to read skeletons.
    Raises:
        ValueError: an unknown token, a malformed number, too few or too many tokens; the message says where.
    """
    words = tokens.split() if isinstance(tokens, str) else list(tokens)
    place = 0

    def read() -> Expression:
        nonlocal place
        if place >= len(words):
            raise ValueError(f"tokens end too early, after {len(words)}: {' '.join(words)!r}")
        word = words[place]
        place += 1
        if word in variables:
            return Expression(word)
        if word in OPERATORS:
            return Expression(word, tuple(read() for _ in range(OPERATORS[word].arity)))
        if word in ("+", "-"):
            place += 2
            return Expression(decode_number(words[place - 3 : place]))
        try:
            return Expression(float(word))
        except ValueError:
            raise ValueError(
                f"unknown token {word!r} at position {place - 1}: no operator, variable or number"
            ) from None

    expression = read()
    if place < len(words):
        raise ValueError(f"tokens go on after the expression, at position {place}: {' '.join(words[place:])!r}")
    return expression


def system_tokens(
    expressions: Sequence[Expression], numbers: Literal["plain", "tokens", "placeholder"] = "plain"
) -> list[str]:
    """Prefix tokens of a system's components with ``|`` between them."""
    words: list[str] = []
    for i, expression in enumerate(expressions):
        words += ([SEPARATOR] if i else []) + expression.prefix(numbers)
    return words


def parse_system(tokens: Sequence[str] | str, variables: Collection[str]) -> list[Expression]:
    """The components of a system; inverse of ``system_tokens``. Raises ValueError as ``parse_prefix``."""
    words = tokens.split() if isinstance(tokens, str) else list(tokens)
    ends = [i for i, word in enumerate(words) if word == SEPARATOR]
    starts = [0, *(end + 1 for end in ends)]
    return [parse_prefix(words[a:b], variables) for a, b in zip(starts, [*ends, len(words)], strict=True)]


_BINARY: dict[type, str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}


def parse_infix(text: str, variables: Collection[str] | None = None) -> Expression:
    """Expression of Python's arithmetic: ``+ - * / **``, brackets, numbers, and calls of operators by name.

    ``x**2`` is ``pow2``. The text is parsed, never evaluated.

    Args:
        text: such as ``-x / (1 + y)``.
        variables: names that are allowed; any name if left out.
    Raises:
        ValueError: no arithmetic, an unknown function or variable.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(f"text must be an arithmetic expression, got {text!r}") from None

    def convert(node: ast.expr) -> Expression:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return constant(value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return constant(-float(value))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Expression("neg", (convert(operand),))
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=2)):
                return Expression("pow2", (convert(left),))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return Expression(_BINARY[type(op)], (convert(left), convert(right)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return Expression(name, tuple(map(convert, args)))
            case ast.Name(id=name) if variables is None or name in variables:
                return Expression(name)
        raise ValueError(f"text holds {ast.unparse(node)!r}, which is no number, operator or variable: {text!r}")

    return convert(tree)
