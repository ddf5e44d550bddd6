"""Quadrature: exactness on polynomials, convergence, orientation, bad input."""

import numpy as np
import pytest

from pdebook.quadrature import gauss_legendre


@pytest.mark.parametrize("n", [1, 2, 5, 32])
def test_legendre_is_exact_for_polynomials_of_degree_2n_minus_1(n: int) -> None:
    nodes, weights = gauss_legendre(n, 0.5, 2.0)
    for degree in range(2 * n):
        exact = (2.0 ** (degree + 1) - 0.5 ** (degree + 1)) / (degree + 1)
        assert weights @ nodes**degree == pytest.approx(exact, rel=1e-12)
    assert (
        weights @ nodes ** (2 * n) != pytest.approx((2.0 ** (2 * n + 1) - 0.5 ** (2 * n + 1)) / (2 * n + 1), rel=1e-14)
        or n > 5
    )


def test_legendre_turns_with_the_interval() -> None:
    nodes, weights = gauss_legendre(8, 3.0, 1.0)
    assert (np.diff(nodes) < 0).all()
    assert weights @ np.exp(nodes) == pytest.approx(np.e - np.e**3, rel=1e-12)


def test_the_stored_rule_cannot_be_changed_by_a_caller() -> None:
    nodes, weights = gauss_legendre(3)
    nodes[0], weights[0] = 7.0, 7.0
    assert gauss_legendre(3)[0][0] == pytest.approx(-np.sqrt(0.6))
    assert gauss_legendre(3)[1].sum() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("args", "words"), [((0,), "n must be"), ((2, 0.0, np.inf), "finite"), ((2, np.nan, 1), "finite")]
)
def test_bad_input(args: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gauss_legendre(*args)  # type: ignore[arg-type]
