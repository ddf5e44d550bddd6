import pytest
import torch

from pdebook.benchmarks import pdebench
from pdebook.benchmarks.data_sets import data_set
from pdebook.benchmarks.tasks import METRICS, Coefficients, Forward, Inverse, Report, extrapolation, persistence, table
from pdebook.metrics.fields import FieldMetrics
from pdebook.pde.files import Reader

F64 = torch.float64


def trajectories(samples=7, frames=6, channels=2, n=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, frames, channels, n, generator=generator, dtype=F64)


def test_a_report_is_the_metrics_of_the_rollout_without_the_history_in_any_batch():
    u = trajectories()
    task = Forward.of(u, test=5, history=2)
    report = task.evaluate(persistence(2), "last", batch=2)
    held = u[:5, 1:2].expand(-1, 4, -1, -1)
    expected = FieldMetrics(1).update(held, u[:5, 2:]).compute()
    assert set(METRICS) <= set(report.metrics)
    for name, value in expected.items():
        assert torch.allclose(report[name], value)
        assert report[name].shape == (4, 2)
    assert report.curve("rmse").shape == (4,)
    assert report.mean("rmse") == pytest.approx(float(expected["rmse"].mean()))
    assert report.times.tolist() == [2, 3, 4, 5]


def test_given_frames_are_measured_as_the_rollout_that_makes_them():
    u = trajectories(samples=70)
    task = Forward.of(u, test=66, history=2)
    held = u[:66, 1:2].expand(-1, 4, -1, -1)
    given, rolled = task.compare(held, "held", convention="paper"), task.evaluate(persistence(2), convention="paper")
    for name, value in rolled.metrics.items():
        assert torch.allclose(given[name], value)
    assert given.name == "held"
    assert torch.equal(given.times, rolled.times)
    assert task.compare(u[:66, 2:]).mean("max") == 0
    # The order of the samples counts.
    assert task.compare(u[:66, 2:].flip(0)).mean("max") > 1


def test_trivial_baselines_are_exact_where_they_should_be():
    n = torch.arange(8, dtype=F64)
    still = torch.ones(3, 5, 2, 8, dtype=F64) * n
    line = still + torch.arange(5, dtype=F64).view(1, 5, 1, 1)
    assert Forward.of(still, test=2, history=1).evaluate(persistence(2)).mean("max") == 0
    assert Forward.of(still, test=2, history=1).evaluate(persistence(2, 3), bundle=3).mean("max") == 0
    assert Forward.of(line, test=2, history=2).evaluate(extrapolation(2)).mean("max") < 1e-12
    assert Forward.of(line, test=2, history=2).evaluate(persistence(2)).mean("max") > 1
    with pytest.raises(ValueError, match="2 frames"):
        extrapolation(2)(line[:, 0])


def test_modules_are_measured_in_evaluation_mode():
    net = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1), torch.nn.Dropout(0.5))
    task = Forward.of(torch.randn(3, 4, 1, 8), test=2, history=1)
    one, two = (task.evaluate(net.train()).mean("rmse") for _ in range(2))
    assert one == two


def test_training_examples_come_from_the_training_samples_alone():
    task = Forward.of(trajectories(), test=5, history=2)
    windows = task.windows(ahead=3)
    assert len(windows) == 2 * 2
    assert {windows[i]["sample"] for i in range(len(windows))} == {5, 6}
    assert windows[0]["history"].shape == (2, 2, 16)
    assert windows[0]["target"].shape == (3, 2, 16)


def test_a_file_is_a_task_with_its_official_split(tmp_path):
    options = {"resolution": 16, "frames": 4, "end": 0.1, "samples": 10}
    for name, test in (("advection_beta1", [0]), ("diff_sorp", [9])):
        path = pdebench.generate(name, tmp_path, **options)
        with Reader(path, data_set(name).layout) as reader:
            task = Forward.from_file(reader, history=2)
            assert list(task.test) == test
            assert len(task.train) == 9
            report = task.evaluate(persistence(1))
            u = reader.batch(test)
            assert report.mean("max") == pytest.approx(float((u[:, 2:] - u[:, 1:2]).abs().amax(-1).mean()), rel=1e-5)


def test_coefficients_are_mapped_and_measured_on_the_first_samples():
    a = torch.rand(6, 1, 8, 8, dtype=F64)
    task = Coefficients(a, 2 * a, test=2)
    assert task.evaluate(lambda v: 2 * v).mean("max") == 0
    assert task.evaluate(lambda v: 2 * v + 1).metrics["rmse"].tolist() == pytest.approx([1.0])
    batch = task.batches(32)(0, 0)
    assert torch.equal(2 * batch["input"], batch["target"])
    assert not any(torch.equal(row, test) for row in batch["input"] for test in a[:2])
    assert torch.equal(task.batches(32)(0, 0)["input"], batch["input"])


def test_the_inverse_reports_each_band_by_itself():
    x = torch.arange(64, dtype=F64) / 64
    truth = torch.sin(2 * torch.pi * x)[None, None]
    task = Inverse(lambda u: 3 * u, truth, 3 * truth)
    assert task.evaluate(truth).mean("l2") == 0
    for k, band in ((2, "low"), (6, "mid"), (20, "high")):
        found = truth + 0.5 * torch.cos(2 * torch.pi * k * x)
        report = task.evaluate(found)
        assert report.mean(band) == pytest.approx(0.5)
        assert report.mean("l2") == pytest.approx(0.5)
        assert report.mean("end_l2") == pytest.approx(0.5)
        assert report.mean("end_mse") == pytest.approx(9 * report.mean("mse"))
        others = {"low", "mid", "high"} - {band}
        assert max(report.mean(other) for other in others) < 1e-12


def test_a_table_is_text_and_markdown():
    reports = [Report("one", {"rmse": torch.tensor([0.5]), "max": torch.tensor([2.0])})]
    shown = table(reports, ["rmse", "max"])
    assert str(shown).splitlines() == ["     rmse  max", "one   0.5    2"]
    assert shown._repr_markdown_().splitlines()[2] == "| one | 0.5 | 2 |"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Forward.of(trajectories(), test=7), "test must be between"),
        (lambda: Forward.of(trajectories(), test=2, history=6), "history must leave"),
        (lambda: Forward.of(trajectories(), test=2, history=0), "history must leave"),
        (lambda: Forward(Forward.of(trajectories(), test=2, history=1).source, [1, 2], [2], 1), "no sample in common"),
        (
            lambda: Forward.of(trajectories(), test=2, history=1).compare(torch.ones(2, 6, 2, 16)),
            r"predicted must have the shape \(2, 5, 2, 16\), got \(2, 6, 2, 16\)",
        ),
        (lambda: Coefficients(torch.ones(3, 1, 4), torch.ones(2, 1, 4), 1), "as many"),
        (
            lambda: Inverse(lambda u: u, torch.ones(1, 1, 8), torch.ones(1, 1, 8)).evaluate(torch.ones(1, 8)),
            "found must",
        ),
        (lambda: Report("a", {"rmse": torch.ones(1)})["mae"], "metric must be one of rmse"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
