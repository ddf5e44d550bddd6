import pytest
import torch

from pdebook import weights
from pdebook.benchmarks import baselines
from pdebook.benchmarks.baselines import NETWORKS, Plan, fno, shipped, train, unet
from pdebook.benchmarks.tasks import Forward
from pdebook.counting import parameter_count

F64 = torch.float64


class Scale(torch.nn.Module):
    """u to a u, one frame at a time or as a bundle a u, a² u."""

    def __init__(self, a=1.1, bundle=1, history=1):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a, dtype=F64))
        self.bundle, self.history = bundle, history

    def forward(self, window):
        last = window[:, -1:]
        return torch.cat([last * self.a ** (i + 1) for i in range(self.bundle)], 1)


def examples(frames, growth=1.5):
    u = torch.tensor([1.0, 2.0], dtype=F64).view(2, 1, 1, 1).expand(2, 1, 1, 8)
    powers = growth ** torch.arange(frames + 1, dtype=F64).view(1, -1, 1, 1)
    path = u * powers
    return {"history": path[:, :1], "target": path[:, 1:]}


def test_the_sizes_are_pdebenchs():
    assert parameter_count(fno(10, 1, 1), complex_as=1) == 23_937
    assert parameter_count(fno(20, 2, 2), complex_as=1) == 465_886
    assert parameter_count(unet(10, 1, 1)) == 2_708_673
    assert parameter_count(unet(20, 2, 2)) == 7_767_970


def test_networks_depend_on_their_seed_alone():
    torch.manual_seed(3)
    one, two, other = fno(1, 1, 1, seed=1), fno(1, 1, 1, seed=1), fno(1, 1, 1, seed=2)
    v = torch.randn(2, 1, 32)
    assert torch.equal(one(v), two(v))
    assert not torch.equal(one(v), other(v))


def test_one_step_and_autoregressive_losses_are_those_of_the_formula():
    a, growth = 1.1, 1.5
    batch = examples(3, growth)
    start = batch["history"].square().mean()
    assert float(Plan().loss(Scale(a), batch).detach()) == pytest.approx(float(start) * (a - growth) ** 2)
    expected = sum((a**k - growth**k) ** 2 for k in (1, 2, 3)) / 3 * float(start)
    assert float(Plan(calls=3).loss(Scale(a), batch)) == pytest.approx(expected)


def test_pushforward_sees_its_own_input_and_sends_no_gradient_into_it():
    model, growth, batch = Scale(1.1), 1.5, examples(3)
    start = float(batch["history"].square().mean())
    loss = Plan(free=2).loss(model, batch)
    assert float(loss) == pytest.approx(start * (1.1**3 - growth**3) ** 2)
    loss.backward()
    # d/da of (a b - g³)² with b = a² held fixed.
    assert float(model.a.grad) == pytest.approx(2 * start * (1.1**3 - growth**3) * 1.1**2)
    model.a.grad = None
    Plan(calls=3).loss(model, batch).backward()
    through = 2 * start / 3 * sum((1.1**k - growth**k) * k * 1.1 ** (k - 1) for k in (1, 2, 3))
    assert float(model.a.grad) == pytest.approx(through)


def test_while_warm_a_plan_is_one_step():
    batch = examples(3)
    assert float(Plan(free=2, warm=0.3).loss(Scale(), batch, warm=True)) == float(Plan().loss(Scale(), batch))


def test_bundles_count_frames():
    plan = Plan(free=1, bundle=2)
    assert plan.ahead == 4
    batch, a, growth = examples(4), 1.1, 1.5
    start = float(batch["history"].square().mean())
    expected = sum((a**k - growth**k) ** 2 for k in (3, 4)) / 2 * start
    assert float(plan.loss(Scale(a, bundle=2), batch)) == pytest.approx(expected)


def test_noise_moves_the_inputs_and_not_the_targets():
    batch = examples(1)
    quiet, loud, again = (float(Plan(noise=s).loss(Scale(), batch, seed=1)) for s in (0.0, 0.1, 0.1))
    assert loud != quiet
    assert loud == again
    assert float(Plan(noise=0.1).loss(Scale(), batch, seed=2)) != loud


def test_training_learns_a_shift_and_is_repeated_by_its_seed():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(12, 1, 1, 32, generator=generator).cumsum(-1)
    start = start - start.mean(-1, keepdim=True)
    u = torch.cat([start.roll(2 * k, -1) for k in range(5)], 1)
    task = Forward.of(u, test=4, history=1)
    runs = []
    for _ in range(2):
        model = unet(1, 1, 1, features=4, levels=2, padding_mode="circular")
        history = train(model, task, Plan(free=1, warm=0.5), steps=30, batch=8, lr=1e-2, seed=3)
        runs.append(history.losses)
    assert torch.equal(*runs)
    # After the warm half the loss is that of the second step.
    assert float(runs[0][:15].min()) < 0.5 * float(runs[0][0])


def test_a_warm_start_is_the_one_step_run():
    u = torch.randn(6, 5, 1, 16, generator=torch.Generator().manual_seed(1))
    task = Forward.of(u, test=2, history=1)
    # Windows three frames longer are other windows: compare with a plan of the same length.
    runs = [
        train(
            unet(1, 1, 1, features=4, levels=2), task, plan, steps=6, batch=4, schedule=lambda step, steps: 1.0
        ).losses
        for plan in (Plan(free=2, warm=0.5), Plan(free=2, warm=1.0), Plan(free=2))
    ]
    assert torch.equal(runs[0][:3], runs[1][:3])
    assert not torch.equal(runs[0][3:], runs[1][3:])
    # Without a warm-up the first loss is that of the third step already.
    assert float(runs[0][0]) != float(runs[2][0])


@pytest.mark.slow
def test_the_burgers_task_has_the_same_training_set_for_every_seed():
    options = {"train": 2, "test": 2}
    one, two = (baselines.burgers_task(seed=seed, **options) for seed in (0, 1))
    assert one.source.shape == (4, 21, 1, 64)
    assert torch.equal(one.source.data[2:], two.source.data[2:])
    assert not torch.equal(one.source.data[:2], two.source.data[:2])


@pytest.mark.slow
def test_shipped_networks_are_those_that_the_card_describes():
    card = weights.card("pdebench_burgers")
    task = baselines.burgers_task(train=1, test=40)
    for name in NETWORKS:
        model = shipped(name)
        assert not model.training
        measured = task.evaluate(model).mean("nrmse")
        # Rollouts of unstable networks amplify the rounding of another machine.
        assert measured == pytest.approx(card["metrics"][f"{name}: rollout nRMSE"], rel=0.05)
    assert set(baselines.burgers_models()) == set(NETWORKS)


@pytest.mark.slow
def test_the_maker_stores_what_shipped_reads(monkeypatch):
    monkeypatch.setattr(baselines, "STEPS", 2)
    small = baselines.burgers_task(train=4, test=2)
    monkeypatch.setattr(baselines, "burgers_task", lambda: small)
    made = baselines.make_burgers(0)
    assert set(made.tensors) == set(weights.load("pdebench_burgers"))
    assert all(not value.is_complex() for value in made.tensors.values())
    assert sum(value.nbytes for value in made.tensors.values()) < weights.MAX_BYTES


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Plan(calls=0), "calls and bundle must be positive"),
        (lambda: Plan(free=-1), "free and noise not negative"),
        (lambda: Plan(warm=2.0), "warm in"),
        (lambda: shipped("transformer"), "name must be one of fno"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
