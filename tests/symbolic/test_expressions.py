"""Expressions: round trips through every form (hypothesis), number tokens, evaluation, sympy, and malformed input."""

import math

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.symbolic import edge
from pdebook.symbolic import expressions as ex
from pdebook.symbolic.expressions import Expression, constant, parse_infix, parse_prefix

F64 = torch.float64
NAMES = ("x", "y", "ux_0")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def trees(operators=tuple(ex.OPERATORS), numbers=FLOATS, leaves=12):
    def grow(inner):
        return st.sampled_from(operators).flatmap(
            lambda name: st.tuples(*[inner] * ex.OPERATORS[name].arity).map(lambda a: Expression(name, a))
        )

    return st.recursive(st.sampled_from(NAMES).map(Expression) | numbers.map(Expression), grow, max_leaves=leaves)


@settings(max_examples=60, deadline=None)
@given(trees())
def test_round_trips_through_prefix_and_infix(tree):
    assert parse_prefix(tree.prefix(), NAMES) == tree
    assert parse_prefix(" ".join(tree.prefix()), NAMES) == tree
    assert parse_infix(str(tree), NAMES) == tree
    assert ex.parse_system(ex.system_tokens([tree, constant(1), tree]), NAMES) == [tree, constant(1), tree]
    skeleton = parse_prefix(tree.prefix("placeholder"), (*NAMES, ex.PLACEHOLDER))
    assert skeleton.size == tree.size == len(tree.prefix())
    assert skeleton.constants == ()
    assert tree.with_constants(tree.constants) == tree


@settings(max_examples=40, deadline=None)
@given(st.integers(-999, 999), st.integers(-10, 10))
def test_number_tokens_keep_three_digits(mantissa, exponent):
    value = float(f"{mantissa}e{exponent}")
    tokens = ex.encode_number(value)
    if 0 < abs(value) < 1e-8:  # N100 E-10
        value = 0.0
    assert all(token in ex.NUMBER_TOKENS for token in tokens)
    assert ex.decode_number(tokens) == value
    assert parse_prefix(["add", *tokens, "x"], NAMES) == Expression("add", (constant(value), Expression("x")))


def test_number_tokens_of_the_specification():
    table = {
        28: "+ N280 E-1",
        0: "+ N000 E-2",
        8 / 3: "+ N267 E-2",
        -0.1: "- N100 E-3",
        9.999: "+ N100 E-1",
        -1e-9: "- N000 E0",
        1.23e-8: "+ N123 E-10",
        9.99e12: "+ N999 E10",
    }
    assert {value: " ".join(ex.encode_number(value)) for value in table} == table
    assert len(ex.NUMBER_TOKENS) == len(set(ex.NUMBER_TOKENS)) == 2 + 1000 + 21


def test_prefix_of_the_lorenz_system():
    lorenz = ["10.0*y - 10.0*x", "28.0*x - x*z - y", "x*y - 2.67*z"]
    system = [parse_infix(text) for text in lorenz]
    skeleton = "sub mul P y mul P x | sub sub mul P x mul x z y | sub mul x y mul P z"
    assert " ".join(ex.system_tokens(system, "placeholder")) == skeleton.replace("P", ex.PLACEHOLDER)
    tokens = ex.system_tokens(system, "tokens")
    assert " ".join(tokens[-6:]) == "mul + N267 E-2 z".replace("mul", "y mul")
    assert ex.parse_system(tokens, "xyz") == system


@pytest.mark.parametrize(
    ("text", "prefix", "printed"),
    [
        ("a - (b - c)", "sub a sub b c", "a - (b - c)"),
        ("a - b - c", "sub sub a b c", "a - b - c"),
        ("a / (b * c)", "div a mul b c", "a / (b * c)"),
        ("a * (b + c)", "mul a add b c", "a * (b + c)"),
        ("-a ** 2", "neg pow2 a", "-a**2"),
        ("(-a) ** 2", "pow2 neg a", "(-a)**2"),
        ("-(-a)", "neg neg a", "-(-a)"),
        ("-2", "-2.0", "-2.0"),
        ("neg(2)", "neg 2.0", "neg(2.0)"),
        ("(-2) ** 2", "pow2 -2.0", "(-2.0)**2"),
        ("-2 * a", "mul -2.0 a", "-2.0 * a"),
        ("a ** 3", "pow a 3.0", "pow(a, 3.0)"),
        ("pow(a, 2)", "pow a 2.0", "pow(a, 2.0)"),
        ("a**2**2", "pow a pow2 2.0", "pow(a, 2.0**2)"),
        ("sqrt(sin(a) + exp(b))", "sqrt add sin a exp b", "sqrt(sin(a) + exp(b))"),
        ("(a**2)**2", "pow2 pow2 a", "(a**2)**2"),
    ],
)
def test_infix(text, prefix, printed):
    tree = parse_infix(text)
    assert " ".join(tree.prefix()) == prefix
    assert str(tree) == printed


def test_evaluation_of_every_operator():
    x, y = torch.tensor([0.3, 1.7], dtype=F64), torch.tensor([2.0, 0.5], dtype=F64)
    cases = {
        "x + y": x + y,
        "x - y": x - y,
        "x * y": x * y,
        "x / y": x / y,
        "pow(x, y)": x**y,
        "-x": -x,
        "inv(x)": 1 / x,
        "x**2": x * x,
        "sqrt(x)": x.sqrt(),
        "exp(x)": x.exp(),
        "log(x)": x.log(),
        "sin(x)": x.sin(),
        "cos(x)": x.cos(),
        "tanh(x)": x.tanh(),
        "abs(-x)": x,
    }
    assert {node.head for text in cases for node in parse_infix(text) if node.arguments} == set(ex.OPERATORS)
    for text, expected in cases.items():
        tree = parse_infix(text)
        torch.testing.assert_close(tree({"x": x, "y": y}), expected)
        there = {sympy.Symbol("x", real=True): x[1].item(), sympy.Symbol("y", real=True): y[1].item()}
        assert float(tree.to_sympy().subs(there)) == pytest.approx(float(expected[1]), rel=1e-12)
    assert bool(parse_infix("log(-x)")({"x": x}).isnan().all())


@settings(max_examples=25, deadline=None)
@given(
    trees(
        ("add", "sub", "mul", "div", "neg", "inv", "pow2", "sin", "cos", "tanh", "abs", "exp", "sqrt", "log"),
        st.integers(-30, 30).map(lambda n: n / 8),
        leaves=6,
    )
)
def test_sympy_and_back_keeps_the_value(tree):
    points = {name: torch.tensor([0.37, 1.21, 2.03], dtype=F64) * (i + 1) for i, name in enumerate(NAMES)}
    value = tree(points)
    if not bool((value.isfinite() & (value.abs() < 1e6)).all()):
        return  # sympy knows complex numbers, we don't
    symbolic = tree.to_sympy()
    if symbolic.has(sympy.I, sympy.zoo, sympy.nan, sympy.oo):
        return  # parts that cancel for torch's purposes, such as 1 / (1 / 0)
    back = edge.from_sympy(symbolic)(points)
    torch.testing.assert_close(back, value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("x - y", "x - y"),
        ("-x", "-x"),
        ("x / (1 + y)", "x / (1.0 + y)"),
        ("inv(x)", "inv(x)"),
        ("inv(sqrt(x))", "inv(sqrt(x))"),
        ("pow(x, 3)", "pow(x, 3.0)"),
        ("-3 * x", "-3.0 * x"),
        ("exp(x) * log(y)", "exp(x) * log(y)"),
        ("2.5 * x / y", "2.5 * x / y"),
    ],
)
def test_sympy_and_back_keeps_simple_forms(text, back):
    assert str(edge.from_sympy(parse_infix(text).to_sympy())) == back


def test_simplification_and_equivalence():
    assert str(edge.simplified(parse_infix("x * y - y * x + sin(x)**2 + cos(x)**2"))) == "1.0"
    tree = parse_infix("x / (1 + x)")
    assert edge.simplified(tree) is tree
    assert edge.equivalent(parse_infix("x / (-1 - x)"), parse_infix("-x / (1 + x)"))
    assert edge.equivalent(parse_infix("0.1 * x + 0.2 * x"), parse_infix("0.3 * x"))
    assert not edge.equivalent(parse_infix("x / (1.01 + x)"), parse_infix("x / (1 + x)"))
    with pytest.raises(ValueError, match="holds zoo, which has no counterpart"):
        edge.simplified(parse_infix("1 / (x - x)"))


def test_size_depth_variables_constants():
    tree = parse_infix("2.5 * y / (x + y * -1.5)")
    assert (tree.size, tree.depth) == (9, 4)
    assert tree.variables == ("x", "y")
    assert tree.constants == (2.5, -1.5)
    assert str(tree.with_constants([1, 2])) == "1.0 * y / (x + y * 2.0)"
    assert parse_infix("x * 0.2999 - 1.00071 + 3 * y").rounded(0.1).constants == (0.3, 1.0, 3.0)
    assert parse_infix("x * 0.2999 - 1.00071").rounded().constants == (0.3, 1.0)
    assert constant(1234.5).rounded(100).constants == (1200.0,)


def test_constants_as_tensors_carry_gradients_and_batches():
    x = torch.linspace(0, 1, 5, dtype=F64)
    tree = parse_infix("2.0 * x + sin(3.0 * x)")
    c = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64, requires_grad=True)
    torch.testing.assert_close(tree({"x": x}, c[:, None]), c[:, :1] * x + torch.sin(c[:, 1:] * x))
    assert torch.autograd.gradcheck(lambda c, x: tree({"x": x}, c[:, None]), (c, x.clone().requires_grad_()))
    torch.testing.assert_close(tree({"x": x}), 2 * x + torch.sin(3 * x))
    # A result has the shape of the points even where it doesn't depend on them.
    assert constant(2)({"x": x}).tolist() == [2.0] * 5
    assert constant(2)({"x": x.float()}).dtype == torch.float32
    assert Expression("x")({"x": x, "y": torch.zeros(3, 1)}).shape == (3, 5)
    assert constant(2)({}, torch.ones(1)).shape == ()


X = {"x": torch.zeros(2)}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: parse_prefix("add x foo", NAMES),
            "unknown token 'foo' at position 2: no operator, variable or number",
        ),
        (lambda: parse_prefix("add x", NAMES), "tokens end too early, after 2: 'add x'"),
        (lambda: parse_prefix("", NAMES), "tokens end too early, after 0"),
        (lambda: parse_prefix("x y", NAMES), "tokens go on after the expression, at position 1: 'y'"),
        (lambda: parse_prefix("+ N12 E0", NAMES), "tokens of a number must be like '\\+ N280 E-1', got '\\+ N12 E0'"),
        (lambda: parse_prefix("add x + N123", NAMES), "tokens of a number must be like"),
        (lambda: parse_prefix("nan", NAMES), "unknown token 'nan'"),
        (lambda: ex.parse_system("x |", NAMES), "tokens end too early, after 0"),
        (lambda: ex.decode_number(["+", "N100", "E11"]), "got '\\+ N100 E11'"),
        (lambda: ex.encode_number(math.inf), "value must be finite, got inf"),
        (lambda: ex.encode_number(1e13), r"value must be below 1e13 in size, got 1e\+13|got 10000000000000.0"),
        (lambda: Expression("foo", (Expression("x"),)), "unknown operator 'foo'; known are add, sub"),
        (lambda: Expression("add", (Expression("x"),)), "operator 'add' takes 2 arguments, got 1"),
        (lambda: Expression("sin"), "operator 'sin' takes 1 arguments, got 0"),
        (lambda: Expression(1.0, (Expression("x"),)), "a constant must be finite and has no arguments, got 1.0 with"),
        (lambda: constant(math.inf), "a constant must be finite"),
        (lambda: parse_infix("x +"), "text must be an arithmetic expression, got 'x \\+'"),
        (lambda: parse_infix("x if y else 1"), "which is no number, operator or variable"),
        (lambda: parse_infix("x + z", "xy"), "text holds 'z', which is no number, operator or variable"),
        (lambda: parse_infix("True"), "text holds 'True'"),
        (lambda: parse_infix("open(x)"), "unknown operator 'open'"),
        (
            lambda: parse_infix("x").prefix("words"),
            "numbers must be 'plain', 'tokens' or 'placeholder', got 'words'|Literal",
        ),
        (lambda: parse_infix("x + 1").with_constants([1, 2]), "values must hold 1 constants, got 2"),
        (lambda: parse_infix("x + 1").rounded(0.0), "step must be positive, got 0"),
        (lambda: parse_infix("x + y")(X), "values must hold the variables y; got x"),
        (lambda: parse_infix("x + 1")(X, torch.zeros(2)), r"constants must hold 1 numbers, got shape \(2,\)"),
        (lambda: constant(1)({}), "values must hold a tensor"),
        (lambda: edge.from_sympy("gamma(x)"), r"holds gamma\(x\), which has no counterpart among the operators"),
    ],
)
def test_bad_input(call, words):
    # What beartype refuses by its type counts too.
    with pytest.raises((ValueError, TypeError), match=words):
        call()
