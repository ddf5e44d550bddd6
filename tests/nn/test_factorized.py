"""Weights in factors: every contraction equals that of the dense tensor, every decomposition its tensor at full rank."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdebook.nn.complex_product import product
from pdebook.nn.decompositions import alternating_least_squares, cp_rank, hosvd, tt_rank, tt_svd, tucker_rank
from pdebook.nn.factorized import CP, WEIGHTS, Dense, Factorized, TensorTrain, Tucker

IN_FACTORS = ("tucker", "cp", "tt")


def filled(kind: str, shape: tuple[int, ...], rank: float | int | tuple[int, ...] = 0.3, **options: bool) -> Factorized:
    torch.manual_seed(0)
    weight = WEIGHTS[kind](shape, rank, **options).double()
    weight.initialise(1.0)
    return weight


def coefficients(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))


def test_ranks_and_parameters_of_the_specification() -> None:
    shape = (64, 64, 24, 13)
    complex_numbers = {
        (kind, rank): sum(p.numel() // 2 for p in WEIGHTS[kind](shape, rank).parameters())
        for kind in IN_FACTORS
        for rank in (0.1, 0.01)
    }
    assert complex_numbers["tucker", 0.1] == 122_947
    assert complex_numbers["tucker", 0.01] == 12_760
    assert complex_numbers["tt", 0.1] == 127_995
    assert complex_numbers["tt", 0.01] == 13_396
    assert complex_numbers["cp", 0.1] == 128_650
    assert complex_numbers["cp", 0.01] == 77 * (64 + 64 + 24 + 13 + 1)
    assert tucker_rank(shape, 0.1) == (36, 36, 13, 7)
    assert tucker_rank(shape, 0.01) == (19, 19, 7, 4)
    assert (cp_rank(shape, 0.1), cp_rank(shape, 0.01)) == (775, 77)
    assert (tt_rank(shape, 0.1), tt_rank(shape, 0.01)) == ((50, 35, 15), (16, 11, 4))
    assert sum(p.numel() for p in Dense(shape).parameters()) == 2 * math.prod(shape)


def test_ranks_as_numbers() -> None:
    assert tucker_rank((4, 6, 5), 3) == (3, 3, 3)
    assert tucker_rank((4, 6, 5), (4, 6, 5)) == (4, 6, 5)
    assert tt_rank((4, 6, 5), (4, 5)) == (4, 5)
    assert cp_rank((4, 6, 5), 20) == 20
    # c = 0.0198 solves 2e6 c² + 5e6 c = 1e5.
    assert tucker_rank((1000, 2000), 0.05) == (20, 40)
    # A tiny fraction leaves one.
    assert (tucker_rank((4, 6), 1e-6), cp_rank((4, 6), 1e-6), tt_rank((4, 6), 1e-6)) == ((1, 1), 1, (1,))


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("modes", [(7,), (4, 3), (3, 4, 2)])
def test_contraction_is_that_of_the_dense_tensor(kind: str, batch: int, modes: tuple[int, ...]) -> None:
    weight = filled(kind, (5, 6, *modes))
    x = coefficients(math.prod(modes), batch, 5)
    expected = torch.einsum("kbi,iok->kbo", x, weight.to_dense().flatten(2))
    torch.testing.assert_close(weight.apply_to(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("modes", [(7,), (4, 3), (3, 4, 2)])
def test_separable(kind: str, modes: tuple[int, ...]) -> None:
    weight = filled(kind, (5, *modes), separable=True)
    x = coefficients(math.prod(modes), 2, 5)
    expected = torch.einsum("kbc,ck->kbc", x, weight.to_dense().flatten(1))
    torch.testing.assert_close(weight.apply_to(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", IN_FACTORS)
@pytest.mark.parametrize("separable", [False, True])
def test_a_layer_of_a_shared_tensor_is_its_slice(kind: str, separable: bool) -> None:
    channels = (5,) if separable else (5, 6)
    weight = filled(kind, (3, *channels, 4, 3), separable=separable, shared=True)
    x = coefficients(12, 2, 5)
    for layer in range(3):
        dense = weight.to_dense()[layer].flatten(-2)
        expected = x * dense.mT[:, None] if separable else torch.einsum("kbi,iok->kbo", x, dense)
        torch.testing.assert_close(weight.apply_to(x, layer), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_some_of_the_modes(kind: str) -> None:
    weight = filled(kind, (5, 6, 4, 3))
    places = (torch.tensor([0, 1, 3]), torch.tensor([0, 2]))
    x = coefficients(6, 2, 5)
    dense = weight.to_dense().index_select(2, places[0]).index_select(3, places[1]).flatten(2)
    torch.testing.assert_close(weight.apply_to(x, places=places), torch.einsum("kbi,iok->kbo", x, dense))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_initial_standard_deviation_of_the_entries(kind: str) -> None:
    torch.manual_seed(0)
    squares = []
    for _ in range(20):
        weight = WEIGHTS[kind]((16, 16, 8, 5), 0.3)
        weight.initialise(0.2)
        squares.append(weight.to_dense().abs().square().mean().item())
    assert math.sqrt(sum(squares) / 20) == pytest.approx(0.2, rel=0.15)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(2, 5), min_size=2, max_size=4), st.integers(0, 100))
def test_full_rank_decompositions_are_exact(shape: list[int], seed: int) -> None:
    w = torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    core, factors = hosvd(w, shape)
    for u in factors:
        core = torch.tensordot(core, u, dims=([0], [1]))
        torch.testing.assert_close(u.mH @ u, torch.eye(u.shape[1], dtype=w.dtype))
    torch.testing.assert_close(core, w)
    full = [min(math.prod(shape[:k]), math.prod(shape[k:])) for k in range(1, len(shape))]
    for surplus in (0, 2):
        train, *cores = tt_svd(w, [r + surplus for r in full])
        for g in cores:
            train = torch.tensordot(train, g, dims=1)
        torch.testing.assert_close(train.reshape(shape), w)


def test_truncated_decompositions_find_a_tensor_of_their_rank() -> None:
    for kind, rank in (("tucker", (2, 3, 2, 2)), ("tt", (2, 3, 2)), ("cp", 3)):
        source = filled(kind, (5, 6, 4, 3), rank)
        found = filled(kind, (5, 6, 4, 3), rank)
        torch.nn.init.zeros_(next(found.parameters()))
        found.load_dense(source.to_dense())
        error = (found.to_dense() - source.to_dense()).abs().max()
        # Alternating least squares converges linearly.
        assert error < (1e-6 if kind == "cp" else 1e-12), kind


def test_a_rank_above_what_an_unfolding_has_is_filled_up() -> None:
    w, tucker = coefficients(5, 2, 2), filled("tucker", (5, 2, 2), (5, 2, 2))
    tucker.load_dense(w)
    torch.testing.assert_close(tucker.to_dense(), w)


def test_hosvd_error_is_at_most_the_discarded_part() -> None:
    w = coefficients(6, 5, 4)
    approximate = filled("tucker", (6, 5, 4), (3, 3, 2))
    approximate.load_dense(w)
    bound = sum(
        torch.linalg.svdvals(w.movedim(k, 0).flatten(1))[r:].square().sum() for k, r in enumerate((3, 3, 2))
    ).sqrt()
    error = torch.linalg.vector_norm(approximate.to_dense() - w)
    assert 0.3 * bound < error <= bound


def test_alternating_least_squares_lowers_the_error_with_more_terms() -> None:
    w = coefficients(4, 4, 3)
    errors = []
    for rank in (1, 4, 12):
        weights, factors = alternating_least_squares(w, rank, sweeps=200)
        dense = torch.einsum("r,ar,br,cr->abc", weights, *factors)
        errors.append(torch.linalg.vector_norm(dense - w).item())
        assert all(torch.allclose(torch.linalg.vector_norm(u, dim=0), torch.ones(rank).double()) for u in factors)
    assert errors[0] > 1.5 * errors[1]
    # Rank 12 = 48 / 4 is enough for any tensor of this shape.
    assert errors[2] < 1e-6 * errors[0]


def test_product_and_its_derivatives() -> None:
    a, b = coefficients(2, 2, 3).requires_grad_(), coefficients(2, 3, 1).requires_grad_()
    assert torch.equal(product(a, b), a @ b)
    assert torch.autograd.gradcheck(product, (a, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(product, (a, b))
    assert torch.autograd.gradcheck(lambda m: product(a.detach(), m), (b,))
    mapped = torch.func.vmap(product)(torch.stack([a, 2 * a]), torch.stack([b, b]))
    torch.testing.assert_close(mapped[1], 2 * (a @ b))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_gradients_reach_every_factor(kind: str) -> None:
    weight = filled(kind, (2, 3, 2, 2), 0.7)
    x = coefficients(4, 1, 2).requires_grad_()
    names, parameters = zip(*weight.named_parameters(), strict=True)

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        class Call(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = weight

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.weight.apply_to(x)

        named = {f"weight.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Call(), named, (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_all_parameters_are_named_as_pairs_and_real(kind: str) -> None:
    weight = filled(kind, (5, 6, 4))
    assert {id(p) for p in weight.complex_pairs()} == {id(p) for p in weight.parameters()}
    assert all(p.shape[-1] == 2 and not p.is_complex() for p in weight.parameters())


def test_a_tensor_of_zeros_has_terms_of_zeros() -> None:
    weights, factors = alternating_least_squares(torch.zeros(4, 5, 3, dtype=torch.complex64), 2)
    assert weights.abs().max() == 0
    assert all(bool(torch.isfinite(torch.view_as_real(u)).all()) for u in factors)


BAD = [
    (lambda: Tucker((4, 5, 3), 0), r"rank must be at least 1 and at most the full rank \(4, 5, 3\), got 0"),
    (lambda: Tucker((4, 5, 3), (4, 6, 3)), r"at most the full rank \(4, 5, 3\), got \(4, 6, 3\)"),
    (lambda: Tucker((4, 5, 3), (4, 5)), "rank must be"),
    (lambda: Tucker((4, 5, 3), 0.0), r"rank as a fraction must be in \(0, 1\], got 0.0"),
    (lambda: CP((4, 5, 3), 1.5), r"rank as a fraction must be in \(0, 1\], got 1.5"),
    (lambda: CP((4, 5, 3), 13), r"full rank \(12,\), got 13"),
    (lambda: TensorTrain((4, 5, 3), (5, 3)), r"full rank \(4, 3\), got \(5, 3\)"),
    (lambda: TensorTrain((4, 5, 3), (0, 3)), "rank must be at least 1"),
    *[
        (lambda bad=bad: Tucker((4, 5, 3), bad), "rank must be at least 1 and at most the full rank")
        for bad in (True, (0, 5, 3))
    ],
    *[
        (
            lambda kind=kind, shape=shape: filled(kind, (4, 5, 3)).apply_to(coefficients(*shape)),
            r"x must have shape \(3, batch, 4\), got \(" + ", ".join(map(str, shape)),
        )
        for kind in WEIGHTS
        for shape in ((1, 2, 4), (4, 2, 4), (3, 2, 1))
    ],
    (
        lambda: filled("cp", (2, 4, 5, 3), shared=True).apply_to(coefficients(3, 1, 4), 2),
        "index must be from 0 to 1, got 2",
    ),
    (lambda: hosvd(coefficients(4, 5, 3), (4, 5)), r"rank must be .* got \(4, 5\)"),
    (lambda: tt_svd(coefficients(4, 5, 3), (4,)), r"ranks must be 2 positive integers, got \(4,\)"),
    (lambda: tt_svd(coefficients(4, 5, 3), (4, 0)), "ranks must be 2 positive integers"),
    (lambda: alternating_least_squares(coefficients(4, 5, 3), 0), "rank and sweeps must be at least 1, got 0 and 100"),
    (lambda: Tucker((4, 0, 3)), r"positive axes or more, got \(4, 0, 3\)"),
    (lambda: Tucker((4, 3)), r"shape must be \(\[layers\], inputs, outputs, \*modes\), got \(4, 3\)"),
    (lambda: Tucker((4, 4, 3), shared=True), "shape must be"),
    (lambda: Dense((2, 4, 4, 3), shared=True), "shared must be False for a dense tensor"),
    (
        lambda: filled("cp", (4, 5, 3)).apply_to(coefficients(3, 1, 4), 0),
        "index must be given for a tensor that layers",
    ),
    (lambda: filled("cp", (2, 4, 5, 3), shared=True).apply_to(coefficients(3, 1, 4)), "index must be given"),
    (lambda: filled("tt", (4, 5, 3)).load_dense(coefficients(4, 5, 2)), r"shape \(4, 5, 3\), got \(4, 5, 2\)"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
