"""Observed order: exact power laws, the regression's own statistics against scipy, round-off, and bad input."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress

from pdebook.metrics.order import observed_order, order_table

N = [10, 20, 40, 80, 160]


@given(order=st.floats(0.5, 8), constant=st.floats(1e-3, 1e3), ratio=st.floats(1.2, 3))
def test_a_power_law_gives_its_order_everywhere(order: float, constant: float, ratio: float) -> None:
    n = [5 * ratio**i for i in range(5)]
    result = observed_order([constant * k**-order for k in n], n=n, roundoff=0.0)
    # A power law is linear in logarithms: only rounding of log and exp remains.
    assert result.order == pytest.approx(order, rel=1e-11)
    assert result.constant == pytest.approx(constant, rel=1e-9)
    assert result.pairwise == pytest.approx([order] * 4, rel=1e-9)
    assert result.local == pytest.approx([order] * 5, rel=1e-9)
    assert result.standard_error == pytest.approx(0, abs=1e-9)
    assert not any(result.stalled)


def test_spacings_and_resolutions_say_the_same() -> None:
    errors = torch.tensor([3.0 * k**-2.0 + k**-3.0 for k in N], dtype=torch.float64)
    by_n, by_h = observed_order(errors, n=N), observed_order(errors, h=[1 / k for k in N])
    assert by_h.order == pytest.approx(by_n.order, rel=1e-13)
    assert by_h.fitted(320) == pytest.approx(by_n.fitted(320), rel=1e-12)
    assert "0.1" in by_h.table().splitlines()[1]


def test_slope_and_standard_error_are_those_of_linear_regression() -> None:
    errors = [1.0, 0.3, 0.055, 0.016, 0.0037]
    result = observed_order(errors, n=N)
    expected = linregress([math.log(k) for k in N], [math.log(e) for e in errors])
    assert result.order == pytest.approx(-expected.slope, rel=1e-12)
    assert result.standard_error == pytest.approx(expected.stderr, rel=1e-12)
    assert result.constant == pytest.approx(math.exp(expected.intercept), rel=1e-12)


def test_local_slopes_are_centred() -> None:
    # Slopes 1, 2, 3, 4 between points that are equally spaced in log n: a window of three averages its two slopes.
    result = observed_order([1.0, 2.0**-1, 2.0**-3, 2.0**-6, 2.0**-10], n=N)
    assert result.pairwise == pytest.approx([1, 2, 3, 4])
    assert result.local == pytest.approx([1.5, 1.5, 2.5, 3.5, 3.5])


def test_two_points_have_a_slope_and_no_standard_error() -> None:
    result = observed_order([1.0, 0.125], n=[1, 2])
    assert result.order == pytest.approx(3, rel=1e-14)
    assert math.isnan(result.standard_error)
    assert str(result) == "3.00"


def test_leading_constant_removes_the_next_term() -> None:
    errors = [3.0 * k**-2.0 + 7.0 * k**-3.0 for k in N]
    result = observed_order(errors, n=N)
    assert result.leading_constant(2) == pytest.approx(3, rel=1e-12)
    assert abs(errors[-1] * N[-1] ** 2 - 3) > 0.04


def test_round_off_is_flagged_and_left_out() -> None:
    errors = [1e-6 * 8.0**-i for i in range(7)] + [2.1e-12, 3.3e-12, 1.4e-12]
    result = observed_order(errors, n=[10 * 2**i for i in range(10)])
    assert result.used == (True,) * 7 + (False,) * 3
    assert result.stalled == (False,) * 7 + (True,) * 3
    assert result.order == pytest.approx(3, rel=1e-10)
    assert math.isnan(result.pairwise[6])
    assert math.isnan(result.local[7])
    assert result.table().count("round-off") == 3


def test_a_method_that_stalls_at_a_visible_level_is_not_excused() -> None:
    errors = [8.0**-i + 1e-4 for i in range(9)]
    result = observed_order(errors, n=[10 * 2**i for i in range(9)])
    assert all(result.used)
    assert any(result.stalled)
    assert result.order < 2.2
    assert "no longer decreases" in result.table()


def test_slow_start_and_a_noisy_sequence_are_not_taken_for_round_off() -> None:
    assert not any(observed_order([0.5, 0.6, 0.2, 0.03, 0.004], n=N).stalled)
    assert not any(observed_order([1e-2, 1e-3, 1.1e-3, 1e-4, 1e-5], n=N).stalled)


def test_a_constant_error_has_order_zero() -> None:
    assert observed_order([0.1] * 5, n=N).order == pytest.approx(0, abs=1e-12)


def test_tables() -> None:
    second = observed_order([3.0 * k**-2.0 for k in N], n=N)
    third = observed_order([8.0 * k**-3.0 for k in N[:3]], n=N[:3])
    assert second.table().splitlines() == [
        "        n      error   slope",
        "       10    3.0e-02        ",
        "       20    7.5e-03    2.00",
        "       40    1.9e-03    2.00",
        "       80    4.7e-04    2.00",
        "      160    1.2e-04    2.00",
        "order 2.00 ± 0.00",
    ]
    assert order_table({"heun": second, "third": third}, {"heun": 2}).splitlines() == [
        "method              n  theory  observed",
        "heun        10 to 160       2  2.00 ± 0.00",
        "third        10 to 40          3.00 ± 0.00",
    ]


@pytest.mark.parametrize(
    ("errors", "sizes", "words"),
    [
        ([1.0], {"n": [1]}, "n: expected a sequence of at least two|errors: expected a sequence of at least two"),
        ([1.0, 0.5], {}, "exactly one of the two, got neither"),
        ([1.0, 0.5], {"n": [1, 2], "h": [1, 0.5]}, "exactly one of the two, got both"),
        ([1.0, 0.0], {"n": [1, 2]}, "errors: expected positive finite"),
        ([1.0, -0.5], {"n": [1, 2]}, "errors: expected positive finite"),
        ([1.0, math.nan], {"n": [1, 2]}, "errors: expected positive finite"),
        ([1.0, math.inf], {"n": [1, 2]}, "errors: expected positive finite"),
        ([1.0, 0.5], {"n": [0, 2]}, "n: expected positive finite"),
        ([1.0, 0.5], {"n": [1, 2, 3]}, "errors: expected one for each of the 3 resolutions, got 2"),
        ([1.0, 0.5, 0.1], {"n": [1, 4, 2]}, "n: expected strictly increasing"),
        ([1.0, 0.5], {"n": [2, 2]}, "n: expected strictly increasing"),
        ([1.0, 0.5], {"h": [0.1, 0.2]}, "h: expected strictly decreasing"),
    ],
)
def test_bad_input(errors: list[float], sizes: dict[str, list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        observed_order(errors, **sizes)
