"""The edge to sympy, which is imported nowhere else: expressions back from it, simplification, proofs of equality."""

from collections.abc import Sequence
from typing import Any

from pdebook.symbolic.expressions import OPERATORS, Expression, constant

__all__ = ["equivalent", "from_sympy", "simplified"]


def from_sympy(expression: Any) -> Expression:
    """Expression of a sympy expression: sums and products from left to right, negative powers as divisions.

    Raises:
        ValueError: something that has no counterpart, such as an integral, infinity or the imaginary unit.
    """
    import sympy

    functions = {getattr(sympy, name): op for name, op in _SYMPY_FUNCTIONS.items()}

    def fold(name: str, terms: Sequence[Any]) -> Expression:
        result = convert(terms[0])
        for term in terms[1:]:
            if name == "add" and term.could_extract_minus_sign():
                result = Expression("sub", (result, convert(-term)))
            else:
                result = Expression(name, (result, convert(term)))
        return result

    def convert(node: Any) -> Expression:
        if node.is_Symbol:
            return Expression(node.name)
        if node.is_number and node.is_finite and node.is_real:
            return constant(float(node))
        if node.is_Add:
            # A term without a minus sign first, where there is one.
            return fold("add", sorted(node.args, key=lambda term: term.could_extract_minus_sign()))
        if node.is_Mul:
            if node.args[0] == -1:
                return Expression("neg", (convert(-node),))
            above, below = node.as_numer_denom() if not node.has(sympy.Float) else sympy.fraction(node)
            if below != 1 and below != node:
                return Expression("div", (convert(above), convert(below)))
            return fold("mul", node.args)
        if node.is_Pow:
            base, exponent = node.args
            if exponent.is_number and exponent.could_extract_minus_sign():
                return Expression("inv", (convert(base ** (-exponent)),))
            if exponent in (2, sympy.Rational(1, 2)):
                return Expression("pow2" if exponent == 2 else "sqrt", (convert(base),))
            return Expression("pow", (convert(base), convert(exponent)))
        if node.func in functions:
            return Expression(functions[node.func], tuple(map(convert, node.args)))
        raise ValueError(
            f"expression holds {node}, which has no counterpart among the operators {', '.join(OPERATORS)}"
        )

    return convert(sympy.sympify(expression))


_SYMPY_FUNCTIONS = {"exp": "exp", "log": "log", "sin": "sin", "cos": "cos", "tanh": "tanh", "Abs": "abs"}


def simplified(expression: Expression) -> Expression:
    """Sympy's simplification, read back; or the expression itself if that is no larger.

    Raises:
        ValueError: a result that has no counterpart, such as infinity.
    """
    import sympy

    shorter = from_sympy(sympy.simplify(expression.to_sympy()))
    return shorter if shorter.size < expression.size else expression


def equivalent(first: Expression, second: Expression) -> bool:
    """Whether sympy proves that two expressions are equal for all real variables, their constants taken as exact decimals."""
    import sympy

    return bool(sympy.simplify(first.to_sympy(exact=True) - second.to_sympy(exact=True)) == 0)
