"""Statistics of DPM-Solver-v3: what is estimated, the integrals that are taken of it, and the files that hold it."""

# ruff: noqa: E741 - l is the paper's name

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdebook import checkpoints
from pdebook.diffusion import model_statistics
from pdebook.diffusion.affine import Affine
from pdebook.diffusion.derivatives import noise_diagonal
from pdebook.diffusion.exact import GaussianMixture
from pdebook.diffusion.model_statistics import Statistics
from pdebook.diffusion.reference import probability_flow
from pdebook.diffusion.schedules import EDM, NoiseSchedule, VPCosine, VPLinear
from pdebook.diffusion.statistics_fit import differences, f_and_rate, least_squares
from pdebook.diffusion.testbeds import gauss, ring2d
from pdebook.rng import normal, uniform

SCHEDULE = VPLinear()
MEAN = torch.tensor([[0.5, -0.3, 0.8, 0.0]], dtype=torch.float64)
VARIANCE = torch.tensor([[0.25, 0.04, 1.5, 1e-3]], dtype=torch.float64)
GAUSSIAN = GaussianMixture(torch.ones(1, dtype=torch.float64), MEAN, VARIANCE)


def points(mixture: GaussianMixture, n: int, seed: int = 0) -> Tensor:
    index = torch.arange(n)
    return mixture.sample(
        uniform(seed, index, dtype=torch.float64), normal(seed, index, (mixture.dim,), stream=1, dtype=torch.float64)
    )


def smooth(intervals: int = 40, dims: tuple[int, ...] = (3,), schedule: NoiseSchedule = SCHEDULE) -> Statistics:
    """Made-up statistics, smooth in λ and different in each dimension."""
    grid = Statistics.degenerate("data", schedule, intervals=intervals, end=1e-2)
    lam = grid.half_log_snr.reshape(-1, *[1] * len(dims))
    d = torch.arange(math.prod(dims), dtype=torch.float64).reshape(dims)
    l, s, b = torch.sigmoid(1.0 - lam + 0.3 * d), 0.3 * torch.sin(lam + d) - 0.7, 0.2 * torch.cos(0.7 * lam - d)
    return replace(grid, l=l, s=s, b=b)


# -------------------- estimation


def test_a_gaussian_needs_one_point_and_one_probe() -> None:
    """The Jacobian is diagonal and the same everywhere: l = σ²/(α² v + σ²); f = -l μ does not vary, so s = 0, b = -l' μ."""
    statistics = Statistics.estimate(GAUSSIAN.denoiser(SCHEDULE), points(GAUSSIAN, 3), intervals=30)
    ratio = torch.exp(-2.0 * statistics.half_log_snr)[:, None]
    l = ratio / (VARIANCE + ratio)
    torch.testing.assert_close(statistics.l, l, rtol=0, atol=1e-12)
    assert not statistics.s.any()
    # The spline's derivative: h = 0.3, fourth order within and third at the ends.
    torch.testing.assert_close(statistics.b, 2.0 * l * (1.0 - l) * MEAN, rtol=0, atol=3e-3)
    assert statistics.errors is not None
    # The points differ in what the spline misses of l', times x/α.
    assert float(statistics.errors.abs().max()) < 1e-2


@pytest.mark.parametrize("schedule", [VPLinear(), VPCosine(), EDM(80.0)], ids=lambda schedule: type(schedule).__name__)
def test_f_changes_along_the_flow_as_its_derivative_says(schedule: NoiseSchedule) -> None:
    bed = ring2d(schedule=schedule)
    denoiser, lam, step = bed.mixture.denoiser(schedule), 0.7, 1e-3
    l = torch.tensor([0.6, 0.4], dtype=torch.float64)
    slope = torch.tensor([-0.3, -0.2], dtype=torch.float64)

    def time(offset: float) -> float:
        return float(schedule.time(lam + offset))

    x = schedule.alpha(time(0)) * points(bed.mixture, 16) + schedule.sigma(time(0)) * bed.initial(16)
    _, rate = f_and_rate(denoiser, x, time(0), l, slope)
    ends = []
    for offset in (-step, step):
        moved = probability_flow(denoiser, x, time(0), time(offset), tolerance=1e-12).x
        ends.append(f_and_rate(denoiser, moved, time(offset), l + offset * slope, slope)[0])
    # A central difference: h² times a third derivative of size 10.
    torch.testing.assert_close((ends[1] - ends[0]) / (2.0 * step), rate, rtol=0, atol=1e-4)


def test_f_is_what_it_is_called() -> None:
    bed = ring2d()
    denoiser, x, l = bed.mixture.denoiser(SCHEDULE), bed.initial(4), torch.tensor([0.3, 0.6], dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(0.4), SCHEDULE.sigma(0.4)
    f, _ = f_and_rate(denoiser, x, 0.4, l, torch.zeros_like(l))
    torch.testing.assert_close(f, (sigma * denoiser.noise(x, 0.4) - l * x) / alpha, rtol=0, atol=1e-13)
    torch.testing.assert_close(f, (1.0 - l) * x / alpha - denoiser.data(x, 0.4), rtol=0, atol=1e-12)


def test_probes_agree_with_the_exact_diagonal() -> None:
    bed = ring2d()
    denoiser, data = bed.mixture.denoiser(SCHEDULE), points(bed.mixture, 256)
    exact = Statistics.estimate(denoiser, data, intervals=4, end=bed.end, probes=None)
    probed = Statistics.estimate(denoiser, data, intervals=4, end=bed.end, probes=1)
    assert exact.errors is not None
    assert probed.errors is not None
    off = (probed.l - exact.l).abs()
    # Only the probes differ. Their error is within the standard error of the points, which holds both.
    assert float((off - 4.0 * probed.errors[0]).max()) < 0
    assert float(off.max()) > 1e-4
    ends = SCHEDULE.alpha(1.0) * data + SCHEDULE.sigma(1.0) * normal(
        model_statistics.fold_in(0, "noise"), torch.arange(256), (2,), dtype=torch.float64
    )
    noised = ends.requires_grad_()
    noise = denoiser.noise(noised, 1.0)
    diagonal = torch.stack([torch.autograd.grad(noise[:, d].sum(), noised, retain_graph=True)[0][:, d] for d in (0, 1)])
    torch.testing.assert_close(exact.l[0], SCHEDULE.sigma(1.0) * diagonal.mean(1), rtol=0, atol=1e-12)


def test_passes_of_any_size_give_the_same() -> None:
    bed = ring2d()
    denoiser, data = bed.mixture.denoiser(SCHEDULE), points(bed.mixture, 7)
    whole, parts = (
        Statistics.estimate(denoiser, data, intervals=3, end=bed.end, probes=None, batch=batch) for batch in (None, 3)
    )
    for name in ("l", "s", "b", "errors", "model"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-9)


def test_each_pass_has_its_own_signs_the_same_at_all_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    bed, seeds = ring2d(), []

    def watched(*args: Any, seed: int, **options: Any) -> Any:
        seeds.append(seed)
        return noise_diagonal(*args, seed=seed, **options)

    monkeypatch.setattr(model_statistics, "noise_diagonal", watched)
    for seed in (0, 1):
        data = points(bed.mixture, 9)
        Statistics.estimate(bed.mixture.denoiser(SCHEDULE), data, intervals=2, end=bed.end, batch=3, seed=seed)
    assert seeds[:3] == seeds[3:6] == seeds[6:9]
    assert seeds[9:12] == seeds[15:]
    assert len(set(seeds)) == 6


def test_least_squares_and_constant_dimensions() -> None:
    f = normal(0, torch.arange(500), (4,), dtype=torch.float64) + 3.0
    noise = normal(1, torch.arange(500), (4,), dtype=torch.float64)
    rate = torch.tensor([-2.0, 0.5, 0.0, 1.0]) * f + torch.tensor([1.0, 0.0, -3.0, 2.0]) + 0.1 * noise
    f[:, 3] = 3.0 + 1e-6 * noise[:, 3]  # a constant pixel, but for rounding
    s, b, s_error, b_error = least_squares(f, rate, torch.ones(()))
    for d in range(3):
        fit, covariance = np.polyfit(f[:, d].numpy(), rate[:, d].numpy(), 1, cov=True)
        assert [float(s[d]), float(b[d])] == pytest.approx(list(fit), rel=1e-9)
        assert [float(s_error[d]), float(b_error[d])] == pytest.approx(list(np.sqrt(np.diag(covariance))), rel=1e-9)
    assert (float(s[3]), float(s_error[3])) == (0.0, 0.0)
    assert float(b[3]) == pytest.approx(float(rate[:, 3].mean()))
    assert not least_squares(f, rate, torch.tensor(1e9))[0].any(), "what is small beside the data counts as constant"
    assert float(b_error[3]) == pytest.approx(float(rate[:, 3].std()) / 500**0.5, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": torch.zeros(2, 2, dtype=torch.float64)}, "data must hold at least 3 points, got 2"),
        ({"intervals": 1}, "intervals must be at least 2, got 1"),
        ({"probes": 0}, "probes must be at least 1, or None"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"end": 0.0}, "needs a positive noise level at both ends"),
        ({"start": 2.0}, "start and end must satisfy"),
    ],
)
def test_bad_estimates(change: dict[str, Any], words: str) -> None:
    bed = ring2d()
    call = {"data": points(bed.mixture, 4), "end": bed.end, "intervals": 2, **change}
    with pytest.raises(ValueError, match=words):
        Statistics.estimate(bed.mixture.denoiser(SCHEDULE), call.pop("data"), **call)


def test_a_model_without_finite_answers() -> None:
    bed = gauss(0.25)
    denoiser = bed.mixture.denoiser(SCHEDULE, hook=lambda data: data / 0.0)
    with pytest.raises(ValueError, match="denoiser must give finite predictions"):
        Statistics.estimate(denoiser, points(bed.mixture, 4), intervals=2)


# -------------------- grids and integrals


def test_refining_keeps_the_functions() -> None:
    statistics = smooth(20)
    finer = statistics.refined(60)
    for name in ("half_log_snr", "l", "s", "b"):
        torch.testing.assert_close(getattr(finer, name)[::3], getattr(statistics, name), rtol=0, atol=1e-12)
        exact = getattr(smooth(60), name)
        assert float((getattr(finer, name) - exact).abs().max()) < 2e-3
    with pytest.raises(ValueError, match="intervals must be at least 20, as they are, got 10"):
        statistics.refined(10)


@pytest.mark.parametrize(("s", "t"), [(10, 30), (30, 10)])
def test_constant_coefficients_have_closed_integrals(s: int, t: int) -> None:
    """One node, l, s, b constant: all integrals are exponentials."""
    l, r, b = 0.4, -0.9, 0.3
    errors = []
    for k in (1, 2, 4):
        grid = Statistics.degenerate("data", SCHEDULE, intervals=40 * k, end=1e-2)
        one = torch.ones_like(grid.half_log_snr)
        decay, constant, (weight,) = replace(grid, l=l * one, s=r * one, b=b * one).step(
            (s * k,), t * k, False, torch.device("cpu")
        )
        h = (t - s) * k * grid.spacing
        first = math.expm1((l + r) * h) / (l + r)
        offset = b / r * (first - math.expm1(l * h) / l)
        assert float(decay) == pytest.approx(math.exp(-l * h), rel=1e-12)
        errors.append(abs(float(weight) + math.exp(-l * h) * first) + abs(float(constant) + math.exp(-l * h) * offset))
    assert all(3.9 < a / b < 4.1 for a, b in pairwise(errors))


def test_weights_are_a_taylor_expansion() -> None:
    """If g is a cubic polynomial in λ, four values of f give the next point up to the quadrature."""
    errors = []
    for intervals in (240, 480):
        statistics = smooth(intervals)
        k = intervals // 24
        nodes, target = (12 * k, 9 * k, 5 * k, 4 * k), 16 * k
        lam = statistics.half_log_snr - statistics.half_log_snr[nodes[0]]
        cubic = (1.0 + lam - 0.5 * lam**2 + 0.3 * lam**3)[:, None]
        big_l, big_s = (statistics._integral(value, nodes[0]) for value in (statistics.l, statistics.s))
        big_b = statistics._integral(torch.exp(-big_s) * statistics.b, nodes[0])
        f = torch.exp(big_s) * (cubic + big_b)
        exact = torch.exp(-big_l[target]) * (2.0 - statistics._integral(torch.exp(big_l) * f, nodes[0])[target])
        for chosen in (nodes, (nodes[0], target, *nodes[1:3])):
            decay, constant, weights = statistics.step(chosen, target, False, torch.device("cpu"))
            result = decay * 2.0 + constant + sum(w * f[i] for w, i in zip(weights, chosen, strict=True))
            errors.append(float((result - exact).abs().max()))
    # Both sides use the same trapezoidal rule, so that they differ by rounding alone.
    assert max(errors) < 1e-10


def test_differences() -> None:
    places = [0.0, -0.3, -0.7, 0.5]
    values = np.array([1.0 + 2.0 * u - u**2 + 0.5 * u**3 for u in places])
    assert differences(places, False) @ values == pytest.approx([1.0, 2.0, -2.0, 3.0], abs=1e-12)
    pseudo = differences(places, True)
    assert np.array_equal(np.triu(pseudo, 1), np.zeros((4, 4)))
    # k! times the divided difference over the first k + 1 places.
    assert pseudo[1] @ values == pytest.approx((values[1] - values[0]) / -0.3)
    assert pseudo[3] @ values == pytest.approx(3.0)
    assert differences(places[:2], True) == pytest.approx(differences(places[:2], False))
    far = differences([place * 1e-6 for place in places], False) @ np.array(values)
    assert far[3] == pytest.approx(3e18, rel=1e-9)


def test_weights_are_kept_and_forgotten() -> None:
    statistics, cpu = smooth(), torch.device("cpu")
    first = statistics.step((3,), 9, False, cpu)
    assert statistics.step((3,), 9, False, cpu) is first
    for i in range(40):
        for j in range(40):
            statistics.step((i,), j, False, cpu)
    assert len(statistics._kept) <= 512


def test_exponentials_do_not_overflow() -> None:
    grid = Statistics.degenerate("data", SCHEDULE, intervals=100, end=1e-2)
    steep = replace(grid, s=grid.s + 300.0, l=grid.l * 300.0)
    decay, _, (weight,) = steep.step((99,), 100, False, torch.device("cpu"))
    assert math.isfinite(float(decay))
    assert math.isfinite(float(weight))
    assert float(weight) != 0.0


# -------------------- what they fit


@pytest.mark.parametrize("other", [VPCosine(), VPLinear(beta_max=19.9), EDM(152.0)], ids=repr)
def test_another_schedule_is_refused(other: NoiseSchedule) -> None:
    statistics = smooth()
    statistics.check(SCHEDULE, Affine())
    with pytest.raises(ValueError, match=f"statistics are of another noise schedule.*{type(other).__name__}"):
        statistics.check(other, Affine())


def test_another_model_is_refused() -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(SCHEDULE)
    statistics = Statistics.estimate(denoiser, points(bed.mixture, 8), intervals=4, end=bed.end)
    statistics.check_model(denoiser)
    other = ring2d(std=0.2).mixture.denoiser(SCHEDULE)
    with pytest.raises(ValueError, match="statistics are of another model: its prediction differs by 0"):
        statistics.check_model(other)
    with pytest.raises(ValueError, match=r"another model, which takes samples of \(2,\) in float64: x must have shape"):
        statistics.check_model(GAUSSIAN.denoiser(SCHEDULE))
    with pytest.raises(ValueError, match="statistics do not say of which model they are"):
        replace(statistics, model=None).check_model(denoiser)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"l": torch.zeros(40, 3)}, r"l must have shape \(41, 3\), got \(40, 3\)"),
        ({"s": torch.zeros(41, 2)}, r"s must have shape \(41, 3\), got \(41, 2\)"),
        ({"b": torch.full((41, 3), math.nan)}, "b must be finite"),
        ({"l": torch.full((41, 3), math.inf)}, "l must be finite"),
        ({"half_log_snr": torch.linspace(1, 0, 41)}, "half_log_snr must rise in equal steps"),
        ({"half_log_snr": torch.linspace(0, 1, 41) ** 2}, "half_log_snr must rise in equal steps"),
        ({"half_log_snr": torch.tensor([0.0, 1.0])}, "half_log_snr must hold at least 3 levels"),
        ({"model": torch.zeros(3)}, r"model must have shape \(2, 2, 3\), got \(3,\)"),
        ({"model": torch.zeros(2, 2, 4)}, r"model must have shape \(2, 2, 3\), got \(2, 2, 4\)"),
        ({"errors": torch.zeros(1)}, r"errors must have shape \(3, 41, 3\), got \(1,\)"),
        ({"schedule": torch.zeros(2, 3)}, r"schedule must have shape \(2, 9\), got \(2, 3\)"),
    ],
)
def test_bad_statistics(change: dict[str, Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(smooth(), **change)


def test_unknown_prediction() -> None:
    with pytest.raises(ValueError, match="prediction must be 'noise' or 'data', got 'v'"):
        Statistics.degenerate("v", SCHEDULE)


# -------------------- files


@settings(max_examples=15, deadline=None)
@given(intervals=st.integers(2, 12), dims=st.lists(st.integers(1, 3), max_size=3), whole=st.booleans())
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, intervals: int, dims: list[int], whole: bool
) -> None:
    statistics = smooth(intervals, tuple(dims))
    if whole:
        statistics = replace(statistics, model=torch.rand(2, 2, *dims), errors=torch.rand(3, intervals + 1, *dims))
    path = tmp_path_factory.mktemp("files") / "statistics.safetensors"
    statistics.save(path)
    again = Statistics.load(path)
    assert again.dims == tuple(dims)
    for name, value in statistics.tensors().items():
        assert torch.equal(getattr(again, name), value)
    assert (again.model is None) == (not whole)


def test_metadata_and_the_model_that_is_checked_on_loading(tmp_path: Path) -> None:
    bed = ring2d()
    denoiser = bed.mixture.denoiser(SCHEDULE)
    statistics = Statistics.estimate(denoiser, points(bed.mixture, 8), intervals=4, end=bed.end)
    statistics.save(tmp_path / "s.safetensors")
    note = checkpoints.load(tmp_path / "s.safetensors")[1]
    assert note["intervals"] == 4
    assert note["half_log_snr"] == pytest.approx([SCHEDULE.half_log_snr(1.0), SCHEDULE.half_log_snr(bed.end)])
    assert Statistics.load(tmp_path / "s.safetensors", denoiser).intervals == 4
    with pytest.raises(ValueError, match="another model"):
        Statistics.load(tmp_path / "s.safetensors", ring2d(modes=5).mixture.denoiser(SCHEDULE))
    with pytest.raises(ValueError, match="another noise schedule"):
        Statistics.load(tmp_path / "s.safetensors", bed.mixture.denoiser(VPCosine()))


def _without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("s"), "holds no statistics: its entries are b, half_log_snr, l, schedule"),
        (lambda tensors: tensors | {"extra": tensors["s"]}, "holds no statistics: its entries are b, extra"),
        (lambda tensors: tensors | {"s": tensors["s"].long()}, "not floating-point numbers"),
        (lambda tensors: tensors | {"s": tensors["s"] * math.nan}, "cannot be used|can be used: s must be finite"),
        (lambda tensors: tensors | {"s": tensors["s"][:, :2]}, "can be used: s must have shape"),
        (lambda tensors: tensors | {"model": tensors["s"]}, "can be used: model must have shape"),
        (lambda tensors: {name: value.half() for name, value in tensors.items()}, "must rise in equal steps"),
        (lambda tensors: {}, "holds no statistics: its entries are none"),
    ],
)
def test_wrong_contents_are_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str
) -> None:
    path = tmp_path / "wrong.safetensors"
    checkpoints.save(path, change(smooth().tensors()))
    with pytest.raises(ValueError, match=f"wrong.safetensors.*({words})"):
        Statistics.load(path)


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    smooth().save(path)
    data = path.read_bytes()
    for damaged in (data[:-20], data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], b"", b"not a file of tensors"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"s\.safetensors"):
            Statistics.load(path)
    path.write_bytes(safetensors.torch.save(smooth().tensors()))
    with pytest.raises(ValueError, match=r"s\.safetensors.*was not written by"):
        Statistics.load(path)
    for name in ("s.pt", "s.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(smooth().tensors()))
        with pytest.raises(ValueError, match=f"{name}.*pickle"):
            Statistics.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Statistics.load(tmp_path / "nowhere.safetensors")


def release(folder: Path, statistics: Statistics) -> None:
    np.savez(folder / "l.npz", l=statistics.l.numpy())
    np.savez(folder / "sb.npz", s=statistics.s.numpy(), b=statistics.b.numpy())


def test_released_arrays(tmp_path: Path) -> None:
    statistics = smooth(12, (1, 2, 2))
    release(tmp_path, statistics)
    again = Statistics.load_npz(tmp_path, SCHEDULE, end=1e-2)
    for name, value in statistics.tensors().items():
        torch.testing.assert_close(getattr(again, name), value, rtol=0, atol=1e-12)
    assert again.dims == (1, 2, 2)


def test_released_arrays_in_any_precision_and_byte_order(tmp_path: Path) -> None:
    statistics = smooth(12, (1, 2, 2))
    for kind, error in ((">f8", 0.0), ("<f4", 1e-7), (np.longdouble, 0.0)):
        release(tmp_path, statistics)
        np.savez(tmp_path / "l.npz", l=statistics.l.numpy().astype(kind))
        again = Statistics.load_npz(tmp_path, SCHEDULE, end=1e-2)
        torch.testing.assert_close(again.l, statistics.l, rtol=0, atol=error)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("l.npy", content)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("l", lambda path: np.savez(path, l=np.array([{}], dtype=object)), "Object arrays cannot be loaded"),
        ("l", lambda path: path.write_bytes(pickle.dumps([1])), "no released statistics"),
        ("l", lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "no released statistics"),
        ("l", lambda path: path.write_bytes(b""), "no released statistics"),
        ("l", lambda path: path.write_bytes(path.read_bytes()[:-30]), "it is no npz file"),
        ("l", lambda path: path.write_bytes(npy(np.zeros((13, 1, 2, 2)))), "it is no npz file"),
        ("l", lambda path: zipped(path, npy(np.zeros((13, 1, 2, 2)))[:-8]), "no released statistics"),
        (
            "l",
            lambda path: zipped(path, npy(np.zeros((13, 1, 2, 2))).replace(b"(13, 1, 2, 2)", b"(13, 10**12,)")),
            "no released",
        ),
        ("sb", lambda path: np.savez(path, s=np.zeros((13, 1, 2, 2))), "lacks the array 'b'"),
        ("l", lambda path: np.savez(path, l=np.zeros((13, 1, 2, 2), dtype=int)), "'l' is int64"),
        ("l", lambda path: np.savez(path, l=np.zeros((2, 1, 2, 2))), "l must hold at least 3 levels"),
        ("l", lambda path: np.savez(path, l=np.zeros((13, 1, 2, 3))), "s must have shape"),
        ("l", lambda path: np.savez(path, l=np.full((13, 1, 2, 2), np.nan)), "l must be finite"),
        ("l", lambda path: np.savez(path, l=np.float64(1.0)), "of shape"),
    ],
)
def test_bad_released_files_are_refused_by_name(
    tmp_path: Path, name: str, write: Callable[[Path], None], words: str
) -> None:
    release(tmp_path, smooth(12, (1, 2, 2)))
    write(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match=words) as caught:
        Statistics.load_npz(tmp_path, SCHEDULE, end=1e-2)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_release(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Statistics.load_npz(tmp_path, SCHEDULE, end=1e-2)
