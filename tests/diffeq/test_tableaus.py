"""Tableaus: order conditions of every method, a mistyped coefficient, dense output, bad input."""

import math

import numpy as np
import pytest

from pdebook.diffeq.butcher import ButcherTableau, order_defects, rooted_trees
from pdebook.diffeq.tableaus import DOPRI5, HEUN, TABLEAUS, TSIT5


def test_the_numbers_of_rooted_trees_are_the_known_ones() -> None:
    # OEIS A000081.
    assert [len(rooted_trees(p)) for p in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert all(len(set(map(str, rooted_trees(p)))) == len(rooted_trees(p)) for p in range(1, 8))


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_every_method_has_its_order_and_no_more(tableau: ButcherTableau) -> None:
    b = np.array(tableau.b)
    defects = order_defects(tableau.stage_matrix, b, tableau.order + 1)
    assert max(value for p, value in defects.items() if p <= tableau.order) < 1e-12
    assert defects[tableau.order + 1] > 1e-8
    if tableau.adaptive:
        embedded = order_defects(tableau.stage_matrix, b - np.array(tableau.b_error), tableau.embedded_order + 1)
        assert max(value for p, value in embedded.items() if p <= tableau.embedded_order) < 1e-12
        assert embedded[tableau.embedded_order + 1] > 1e-8
        assert abs(sum(tableau.b_error)) < 1e-14
    # The last stage is the field at the end, which the next step begins with.
    np.testing.assert_allclose(tableau.stage_matrix[-1], b, atol=1e-15)
    assert tableau.c[-1] == 1.0


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_dense_output_passes_through_both_ends_with_their_slopes(tableau: ButcherTableau) -> None:
    powers = np.arange(1, tableau.interpolation.shape[1] + 1)
    first, last = np.eye(tableau.stages)[[0, -1]]
    np.testing.assert_allclose(tableau.interpolation.sum(1), tableau.b, atol=1e-12)
    np.testing.assert_allclose(tableau.interpolation[:, 0], first, atol=1e-12)
    np.testing.assert_allclose(tableau.interpolation @ powers, last, atol=1e-7 if tableau is TSIT5 else 1e-12)


def test_dense_output_of_dopri5_and_tsit5_is_of_fourth_order() -> None:
    # y' = λ y gives y(θ) = e^{θz}: the interpolant's stability function differs from it by O(z⁵).
    for tableau in (DOPRI5, TSIT5):
        errors = []
        for z in (0.1, 0.05):
            k = np.linalg.solve(np.eye(tableau.stages) - z * tableau.stage_matrix, np.ones(tableau.stages))
            theta = 0.3
            value = 1.0 + z * (tableau.interpolation @ theta ** np.arange(1, 5)) @ k
            errors.append(abs(value - math.exp(theta * z)))
        assert 4.7 < math.log2(errors[0] / errors[1]) < 5.3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b": (0.5, 0.4)}, "order 1"),
        ({"a": ((), (0.9,))}, "order 2"),
        ({"b_error": (-0.5, 0.4)}, "embedded method"),
        ({"a": ((1.0,), (1.0,))}, "first stage must be explicit"),
        ({"a": ((), (1.0, 0.0, 0.0))}, "a must have 2 rows"),
        ({"b_error": (1.0,)}, "b_error must have 2"),
        ({"nodes": (0.0, 0.9)}, "row sums"),
        ({"nodes": (0.0,)}, "nodes must have 2"),
        ({"dense": ((1.0,), (0.0,))}, "dense must have one row"),
    ],
)
def test_a_wrong_coefficient_is_refused(change: dict[str, object], words: str) -> None:
    parts = {
        "name": "heun",
        "order": 2,
        "a": ((), (1.0,)),
        "b": (0.5, 0.5),
        "b_error": (-0.5, 0.5),
        "embedded_order": 1,
    }
    assert ButcherTableau(**parts).b == HEUN.b  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        ButcherTableau(**{**parts, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dopri5", "tsit5", "dopri8", "kvaerno5"])
def test_each_digit_matters(name: str) -> None:
    tableau = TABLEAUS[name]
    a, b = tableau.stage_matrix, np.array(tableau.b)
    for i, j in zip(*np.nonzero(np.tril(a)), strict=True):
        if i == tableau.stages - 1 and name != "kvaerno5":
            continue
        wrong = a.copy()
        wrong[i, j] *= 1 + 1e-3
        assert max(order_defects(wrong, b, tableau.order).values()) > 1e-9, (i, j)
