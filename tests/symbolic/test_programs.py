"""Populations against their trees, one by one: values, derivatives, structure."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.symbolic.evolution import random_programs
from pdebook.symbolic.expressions import OPERATORS, parse_infix
from pdebook.symbolic.programs import compiled, subtree_sizes

F64 = torch.float64
NAMES = ("x", "y")
TEXTS = [
    "y / (1.5 + y)",
    "sin(x * y) - 2.5",
    "x",
    "3.0",
    "log(x - 5.0) * 0.1",
    "(x - y) * (x + 2.0) / (y - 0.5)",
    "-(-y)",
]


def points(count: int = 20) -> torch.Tensor:
    return torch.rand(count, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) + 0.6


def test_a_population_gives_its_trees_values_and_gradients():
    x, trees = points(), [parse_infix(text) for text in TEXTS]
    programs = compiled(trees, NAMES, length=11, dtype=F64)
    assert programs.expressions() == trees
    assert len(programs) == len(trees)
    assert programs.sizes.tolist() == [tree.size for tree in trees]
    assert programs.parameters.tolist() == [list(t.constants) + [0.0] * (2 - len(t.constants)) for t in trees]
    by_name = dict(zip(NAMES, x.unbind(1), strict=True))
    values, jacobian = programs.linearise(x)
    torch.testing.assert_close(values, programs(x), equal_nan=True)
    for i, tree in enumerate(trees):
        torch.testing.assert_close(values[i], tree(by_name), equal_nan=True)
        c = torch.tensor(tree.constants, dtype=F64)
        expected = torch.func.jacrev(lambda c, tree=tree: tree(by_name, c))(c) if len(c) else c.new_zeros(20, 0)
        torch.testing.assert_close(jacobian[i, :, : len(c)], expected, equal_nan=True)
        assert jacobian[i, :, len(c) :].abs().sum() == 0
    # A program that leaves its domain leaves the others alone.
    assert values.isfinite().all(1).tolist() == [text != TEXTS[4] for text in TEXTS]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**40))
def test_random_programs_agree_with_their_trees(seed):
    x = points()
    operators = tuple(OPERATORS)
    programs = random_programs(seed, 40, NAMES, operators, 9, 12, x)
    trees = programs.expressions()
    again = compiled(trees, NAMES, operators=operators, length=12, dtype=F64)
    assert torch.equal(again.code, programs.code)
    assert torch.equal(again.constants, programs.constants)
    by_name = dict(zip(NAMES, x.unbind(1), strict=True))
    for tree, value in zip(trees, programs(x), strict=True):
        torch.testing.assert_close(value, tree(by_name), rtol=1e-12, atol=1e-12, equal_nan=True)
    sizes = subtree_sizes(programs.code, programs.arities).tolist()
    for tree, row in zip(trees, sizes, strict=True):
        assert row == [node.size for node in tree] + [1] * (12 - tree.size)


def test_gradcheck_by_points_and_constants():
    trees = [parse_infix(text) for text in TEXTS if "log" not in text]
    programs = compiled(trees, NAMES, length=12, dtype=F64)
    x = points(3).requires_grad_()
    parameters = programs.parameters.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, p: programs(x, p), (x, parameters))
    own = points(3 * len(trees)).view(len(trees), 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: programs(x), (own,))
    torch.testing.assert_close(programs(x.expand(len(trees), 3, 2)), programs(x))
    torch.testing.assert_close(programs.linearise(own)[0], programs(own))
    torch.testing.assert_close(programs.values(x), programs(x).detach())
    assert torch.autograd.gradgradcheck(lambda x, p: programs(x, p), (x, parameters), fast_mode=True)
    forward = torch.func.jacfwd(lambda p: programs(x.detach(), p))(parameters.detach())
    rows = torch.arange(len(trees))
    torch.testing.assert_close(forward[rows, :, rows], programs.linearise(x, parameters)[1])


def test_parameters_replace_constants():
    trees = [parse_infix("1.0 * x + 2.0"), parse_infix("x"), parse_infix("3.0 - y")]
    programs = compiled(trees, NAMES, dtype=F64)
    moved = programs.with_parameters(programs.parameters + 10)
    assert [str(e) for e in moved.expressions()] == ["11.0 * x + 12.0", "x", "13.0 - y"]
    x = points()
    torch.testing.assert_close(programs(x, programs.parameters + 10), moved(x))
    torch.testing.assert_close(programs.linearise(x, programs.parameters + 10)[0], moved(x))
    assert str(programs[torch.tensor([False, False, True])].expressions()[0]) == "3.0 - y"
    assert compiled(trees[1:2], NAMES)(x.float()).dtype == torch.float32
    assert compiled(trees[1:2], NAMES).parameters.shape == (1, 1)
    assert compiled(trees, ("y", "x"))(x.float())[1].tolist() == x.float()[:, 1].tolist()


def test_the_plan_has_few_steps_whatever_the_population():
    x = points()
    programs = random_programs(0, 500, NAMES, ("add", "mul", "div"), 9, 9, x)
    # At most one group for each height and operator; 500 programs of 9 nodes have heights up to 4.
    assert len(programs.plan.groups) <= 4 * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compiled([], NAMES), "expressions must hold one at least"),
        (lambda: compiled([parse_infix("z")], NAMES), r"variables must hold 'z', which occurs in z; got \('x', 'y'\)"),
        (
            lambda: compiled([parse_infix("sin(x)")], NAMES, operators=("add",)),
            r"operators must hold 'sin', which occurs in sin\(x\); got \('add',\)",
        ),
        (
            lambda: compiled([parse_infix("x + y")], NAMES, length=2),
            "length must be at least 3, the size of the largest",
        ),
        (
            lambda: compiled([parse_infix("x")], NAMES)(torch.zeros(4, 3)),
            r"x must have the 2 variables \('x', 'y'\) last, got \(4, 3\)",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
