"""The training loop: what one step does, that a run resumes to the last bit, survives a kill, and is shared by processes."""

import copy
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from torch import nn

from pdebook import checkpoints, rng, training

SCRIPT = """
import json, sys, time
import torch
from torch import nn
from pdebook import rng, training

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))

def batches(seed, step):
    time.sleep(pause)
    x = rng.normal(seed, torch.arange(8 * step, 8 * step + 8), (3,))
    return {"x": x, "y": (torch.sin(x[:, :2]), 0.5)}

def loss(module, batch):
    y, scale = batch["y"]
    return (module(batch["x"]) - y).square().mean() * scale

path, out, pause = sys.argv[1] or None, sys.argv[2], float(sys.argv[3])
result = training.fit(
    net(), loss, batches, steps=40, lr=1e-2, clip=0.5, ema=0.9, weight_decay=0.1, checkpoint=path, checkpoint_every=1
)
sums = {k: v.double().sum().item() for k, v in result.ema.items()}
from accelerate import PartialState
if PartialState().is_main_process:
    processes = PartialState().num_processes
    json.dump({"losses": result.losses.tolist(), "ema": sums, "processes": processes}, open(out, "w"))
"""


class Net(nn.Module):
    """All that a state can hold: dropout, buffers that change, an unused parameter, a complex and a shared one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(3, 3)
        self.last.weight = self.first.weight
        self.phase = nn.Parameter(torch.tensor([1 + 1j, 2j, 0.5]))
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))

    def forward(self, x):
        x = self.drop(torch.tanh(self.norm(self.first(x))))
        return self.last(x) + (self.phase * x).abs()


def make(seed=0):
    torch.manual_seed(seed)
    return Net()


def batches(seed, step):
    x = rng.normal(seed, torch.arange(16 * step, 16 * step + 16), (3,))
    return x, x.sin()


def loss(module, batch):
    x, y = batch
    return (module(x) - y).square().mean()


def linear(dtype=torch.float32):
    module = nn.Linear(3, 1, dtype=dtype)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.3, -0.2, 0.1]]))
        module.bias.zero_()
    return module


def linear_batches(seed, step):
    return rng.normal(seed, torch.arange(4) + 4 * step, (3,), dtype=torch.float64)


def linear_loss(module, x):
    return (module(x) - x.sum(1, keepdim=True)).square().mean()


def stop_at(last):
    """The batch source that is interrupted at a step."""

    def source(seed, step):
        if step == last:
            raise KeyboardInterrupt
        return batches(seed, step)

    return source


# -------------------- schedules

ALL = {
    "constant": training.constant(warmup=5),
    "warmup_cosine": training.warmup_cosine(warmup=5, final=0.1),
    "one_cycle": training.one_cycle(),
    "exponential": training.exponential(final=0.01, warmup=5),
    "inverse_sqrt": training.inverse_sqrt(warmup=5),
}


def test_the_registry_holds_the_schedules():
    assert training.SCHEDULES.keys() == ALL.keys()
    for name, factory in training.SCHEDULES.items():
        assert factory is getattr(training, name)
        for steps in (1, 2, 3, 10, 100):
            factors = [factory()(step, steps) for step in range(steps)]
            assert all(0 <= factor <= 1 for factor in factors), (name, steps)


def test_schedules_are_what_they_say():
    steps = 105
    assert [ALL["constant"](k, steps) for k in (0, 4, 5, 104)] == pytest.approx([1 / 6, 5 / 6, 1, 1])
    assert [ALL["warmup_cosine"](k, steps) for k in (0, 4, 5, 55)] == pytest.approx([1 / 6, 5 / 6, 1, 0.55])
    assert ALL["warmup_cosine"](steps, steps) == pytest.approx(0.1)
    assert [ALL["exponential"](k, steps) for k in (52, 104)] == pytest.approx([0.1, 0.01])
    assert [ALL["inverse_sqrt"](k, steps) for k in (0, 4, 19, 79)] == pytest.approx([0.2, 1, 0.5, 0.25])


@pytest.mark.parametrize("steps", [10, 11, 100])
def test_one_cycle_is_that_of_pytorch(steps):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    expected = []
    for _ in range(steps):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step() if len(expected) < steps else None
    assert [training.one_cycle()(step, steps) for step in range(steps)] == pytest.approx(expected, rel=1e-12)


# -------------------- what a step does


def test_the_loop_is_adamw_with_schedule_clipping_and_average():
    module, ours = linear(torch.float64), linear(torch.float64)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, betas=(0.8, 0.9), weight_decay=0.3)
    schedule = training.warmup_cosine(warmup=3, final=0.2)
    average = {name: p.detach().clone() for name, p in module.named_parameters()}
    losses, rates = [], []
    for step in range(12):
        optimizer.param_groups[0]["lr"] = 0.1 * schedule(step, 12)
        optimizer.zero_grad()
        value = linear_loss(module, linear_batches(5, step))
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.7)
        optimizer.step()
        decay = min(0.6, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * p.detach() for name, p in module.named_parameters()}
        losses.append(value.item())
        rates.append(0.1 * schedule(step, 12))
    history = training.fit(
        ours,
        linear_loss,
        linear_batches,
        steps=12,
        lr=0.1,
        seed=5,
        schedule=schedule,
        betas=(0.8, 0.9),
        weight_decay=0.3,
        clip=0.7,
        ema=0.6,
    )
    assert history.losses.dtype == torch.float64
    assert history.losses.tolist() == losses
    assert history.rates.tolist() == rates
    assert torch.equal(ours.weight, module.weight)
    # The average is one interpolation here and two products there.
    torch.testing.assert_close(history.ema, average, rtol=1e-14, atol=1e-15)


def test_groups_have_their_own_rates_and_decays():
    module = linear()
    before = copy.deepcopy(module.state_dict())
    groups = [{"params": [module.weight], "lr": 0.0}, {"params": [module.bias], "lr": 0.5}]
    training.fit(module, lambda m, x: m(x).mean(), lambda seed, step: torch.ones(2, 3), steps=1, groups=groups)
    assert torch.equal(module.weight, before["weight"])
    # Adam's first step is the learning rate, up to eps = 1e-8 over the gradient 1.
    torch.testing.assert_close(module.bias, before["bias"] - 0.5, rtol=1e-6, atol=0)
    made = training.decay_matrices(0.1)(module)
    assert [(len(group["params"]), group["weight_decay"]) for group in made] == [(1, 0.1), (1, 0.0)]


def test_the_average_loads_and_the_module_gets_its_weights_back():
    module = make()
    history = training.fit(module, loss, batches, steps=5, ema=0.9)
    own = copy.deepcopy(module.state_dict())
    with training.swapped(module, history.ema):
        assert torch.equal(module.first.weight, history.ema["first.weight"])
        assert not torch.equal(module.first.weight, own["first.weight"])
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_global_random_numbers_are_neither_used_nor_changed():
    curves = []
    for before in (1, 2):
        module = make()
        torch.manual_seed(before)
        expected = torch.rand(3, generator=torch.Generator().manual_seed(before))
        curves.append(training.fit(module, loss, batches, steps=6).losses)
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(*curves)
    assert not torch.equal(curves[0], training.fit(make(), loss, batches, steps=6, seed=1).losses)


def test_bf16_trains_with_full_weights(device):
    module = make().to(device)
    full = training.fit(make().to(device), loss, batches, steps=30, lr=1e-2)
    for precision in ("bf16", "full", "bf16"):
        history = training.fit(make().to(device), loss, batches, steps=30, lr=1e-2, precision=precision)
        assert torch.equal(history.losses, full.losses) == (precision == "full")
        # Eight bits of mantissa: losses agree to a few times 2^-8.
        torch.testing.assert_close(history.losses, full.losses, rtol=0.05, atol=0.01)
    assert {p.dtype for p in module.parameters()} == {torch.float32, torch.complex64}


def test_fp16_clips_gradients_without_their_scale_and_resumes(device, tmp_path):
    options = {"steps": 30, "lr": 3e-2, "clip": 0.02, "log_every": 5, "checkpoint_every": 10}

    def small_loss(module, x):
        # Times the first scale, 2^16, within the range of fp16: no step is skipped.
        return 0.01 * linear_loss(module, x)

    full = training.fit(linear().to(device), small_loss, linear_batches_32, **options)
    half = training.fit(linear().to(device), small_loss, linear_batches_32, precision="fp16", **options)
    assert not torch.equal(half.losses, full.losses)
    # Eleven bits of mantissa, thirty steps.
    torch.testing.assert_close(half.losses, full.losses, rtol=0.02, atol=1e-4)
    options |= {"precision": "fp16", "checkpoint": tmp_path / "a.safetensors"}

    def stopped(seed, step):
        if step == 15:
            raise KeyboardInterrupt
        return linear_batches_32(seed, step)

    with pytest.raises(KeyboardInterrupt):
        training.fit(linear().to(device), small_loss, stopped, **options)
    assert checkpoints.load(tmp_path / "a.safetensors")[1]["scaler"]["_growth_tracker"] == 10
    again = training.fit(linear().to(device), small_loss, linear_batches_32, **options)
    assert torch.equal(again.losses, half.losses)
    assert checkpoints.load(tmp_path / "a.safetensors")[1]["scaler"]["_growth_tracker"] == 30


def test_the_host_looks_only_at_intervals(monkeypatch):
    looks = []
    original = training._Run.check_finite
    monkeypatch.setattr(training._Run, "check_finite", lambda *a: (looks.append(a[1]), original(*a))[1])
    for name in ("item", "tolist", "__bool__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, _counted(getattr(torch.Tensor, name), looks))
    training.fit(linear(), linear_loss, linear_batches_32, steps=25, log_every=10)
    steps = [look for look in looks if isinstance(look, int)]
    assert steps == [9, 19, 24]
    by_us = [look for look in looks if look == "training.py"]
    assert 3 <= len(by_us) <= 4 * len(steps)


def _counted(original, looks):
    def method(self, *args):
        looks.append(os.path.basename(sys._getframe(1).f_code.co_filename))
        return original(self, *args)

    return method


def linear_batches_32(seed, step):
    return linear_batches(seed, step).float()


def test_the_bar_shows_loss_and_rate_and_is_off_without_a_terminal(capfd):
    training.fit(linear(), linear_loss, linear_batches_32, steps=3, log_every=1)
    assert capfd.readouterr() == ("", "")
    training.fit(linear(), linear_loss, linear_batches_32, steps=3, log_every=1, progress=True)
    text = capfd.readouterr().err
    assert "loss=" in text
    assert "3/3" in text
    assert "it/s" in text


# -------------------- resuming


def everything(module, history, path):
    tensors, _ = checkpoints.load(path)
    return {"losses": history.losses, "rates": history.rates, **history.ema, **module.state_dict()} | {
        f"file.{name}": value for name, value in tensors.items()
    }


def test_resuming_changes_no_bit(tmp_path):
    options = {
        "steps": 40,
        "lr": 1e-2,
        "ema": 0.9,
        "clip": 0.5,
        "weight_decay": 0.1,
        "log_every": 7,
        "checkpoint_every": 10,
    }
    straight = make()
    expected = everything(
        straight, training.fit(straight, loss, batches, checkpoint=tmp_path / "a", **options), tmp_path / "a"
    )
    # Interrupted at step 23, so it goes on from 20; again at 35, from 30, in modules with other weights.
    for last, seed in ((23, 0), (35, 98)):
        with pytest.raises(KeyboardInterrupt):
            training.fit(make(seed), loss, stop_at(last), checkpoint=tmp_path / "b", **options)
    module = make(99)
    module.mask.zero_()
    found = everything(
        module, training.fit(module, loss, batches, checkpoint=tmp_path / "b", **options), tmp_path / "b"
    )
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert {"file.optimizer.phase/exp_avg", "file.optimizer.first.weight/step"} <= found.keys()
    # A finished run is read and not trained further.
    again = make(5)
    history = training.fit(again, loss, stop_at(0), checkpoint=tmp_path / "b", **options)
    assert torch.equal(history.losses, expected["losses"])
    assert torch.equal(again.phase, straight.phase)


def test_resume_false_starts_anew(tmp_path):
    options = {"steps": 4, "checkpoint": tmp_path / "a.safetensors"}
    first = training.fit(make(), loss, batches, **options)
    other = training.fit(make(1), loss, batches, resume=False, **options)
    assert not torch.equal(first.losses, other.losses)
    assert torch.equal(training.fit(make(), loss, stop_at(0), **options).losses, other.losses)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 9}, "its steps is 8, this one's is 9"),
        ({"lr": 0.5}, "its rates is"),
        ({"schedule": training.constant()}, "its rates is"),
        ({"seed": 1}, "its seed is 0, this one's is 1"),
        ({"ema": 0.5}, "its ema is None"),
        ({"clip": 1.0}, "its clip is None"),
        ({"betas": (0.5, 0.9)}, "its betas is"),
        ({"weight_decay": 0.1}, "its weight_decay is"),
        ({"precision": "bf16"}, "its precision is full"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, words):
    path = tmp_path / "a.safetensors"
    training.fit(make(), loss, batches, steps=8, checkpoint=path)
    module, before = make(3), path.read_bytes()
    state = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=rf"a\.safetensors is of another run: {words}"):
        training.fit(module, loss, batches, **{"steps": 8, "checkpoint": path} | change)
    assert path.read_bytes() == before
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-5])


def _altered(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _foreign(path):
    checkpoints.save(path, {"w": torch.ones(1)})


def _without_digest(path):
    safetensors.torch.save_file({"w": torch.ones(1)}, path)


def _pickled(path):
    torch.save({"w": torch.ones(1)}, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_truncated, "is truncated"),
        (_altered, "was altered after it was written"),
        (_foreign, "does not hold the state of a run"),
        (_without_digest, "was not written by"),
        (_pickled, "is refused: by its first bytes it is a zip archive"),
    ],
)
def test_a_bad_checkpoint_is_refused_and_left_alone(tmp_path, spoil, words):
    path = tmp_path / "a.safetensors"
    training.fit(make(), loss, batches, steps=2, checkpoint=path)
    spoil(path)
    module, before = make(3), path.read_bytes()
    state = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=rf"a\.safetensors.*{words}|{words}"):
        training.fit(module, loss, batches, steps=2, checkpoint=path)
    assert path.read_bytes() == before
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    training.fit(nn.Linear(3, 3), loss, batches, steps=2, checkpoint=path)
    wide, more, frozen = nn.Linear(3, 3, bias=False), nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 3)
    frozen.bias.requires_grad_(False)
    for module, words in (
        (wide, "has an unknown tensor 'module.bias'"),
        (more, "lacks tensor 'module.0.bias'"),
        (frozen, "there, bias was trained"),
    ):
        before = copy.deepcopy(module.state_dict())
        with pytest.raises(ValueError, match=words):
            training.fit(module, loss, batches, steps=2, checkpoint=path)
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# -------------------- what goes wrong


def nan_at(*steps):
    def source(seed, step):
        x = linear_batches_32(seed, step)
        return x * math.nan if step in steps else x

    return source


def test_a_non_finite_loss_names_its_step_and_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(
        training.Diverged, match=rf"loss became nan at step 13; last good .*: step 10 in {path}"
    ) as error:
        training.fit(linear(), linear_loss, nan_at(13, 14), steps=30, checkpoint=path, checkpoint_every=5, log_every=50)
    assert (error.value.step, error.value.checkpoint) == (13, path)
    tensors, note = checkpoints.load(path)
    assert note["step"] == 10
    assert all(tensors[f"module.{name}"].isfinite().all() for name in ("weight", "bias"))
    # The same after a resumption, which makes no checkpoint of its own.
    with pytest.raises(training.Diverged, match="at step 13; last good checkpoint: step 10 in"):
        training.fit(linear(), linear_loss, nan_at(13), steps=30, checkpoint=path, checkpoint_every=5)
    with pytest.raises(training.Diverged, match="at step 3; last good checkpoint: none was written") as error:
        training.fit(linear(), linear_loss, nan_at(3), steps=30)
    assert error.value.checkpoint is None


@pytest.mark.parametrize("log_every", [1, 50])
def test_a_finite_loss_with_a_bad_gradient_makes_no_checkpoint(tmp_path, log_every):
    def root(module, x):
        # The square root's slope at 0 is infinite, and times the inner zero it is NaN.
        return linear_loss(module, x) + (0 * module(x)).square().sum().sqrt() * 1.0

    path = tmp_path / "a.safetensors"
    with pytest.raises(training.Diverged, match="a weight is no longer finite at step 0; last good checkpoint: none"):
        training.fit(linear(), root, linear_batches_32, steps=1, checkpoint=path, log_every=log_every)
    assert not path.exists()
    with pytest.raises(training.Diverged, match="a weight is no longer finite at step 0"):
        training.fit(linear(), root, linear_batches_32, steps=1, log_every=log_every)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"lr": math.nan}, "lr must be positive, got nan"),
        ({"seed": -1}, "seed must be"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"betas": (0.9, 1.0)}, "beta"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"ema": 1.0}, r"ema must be in \[0, 1\), got 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"checkpoint": "x.pt"}, "checkpoint must be a .safetensors file"),
        ({"checkpoint": "no/such/folder/x.safetensors"}, "checkpoint must be .* in a folder that exists"),
        ({"groups": [{"params": [nn.Parameter(torch.ones(1))]}]}, "groups must hold each trainable parameter"),
        ({"groups": []}, "weight is in none"),
        ({"loss": lambda module, x: module(x)}, r"loss must return a scalar tensor, got torch.Size\(\[4, 1\]\)"),
        ({"loss": lambda module, x: 1.0}, "loss must return a scalar tensor, got float"),
        ({"module": nn.Tanh()}, "module must have a parameter to train"),
        ({"module": nn.Linear(3, 1).requires_grad_(False)}, "module must have a parameter to train"),
    ],
)
def test_bad_arguments(change, words):
    arguments = {"module": linear(), "loss": linear_loss, "batches": linear_batches_32, "steps": 2} | change
    with pytest.raises(ValueError, match=words):
        training.fit(**arguments)


@pytest.mark.parametrize(
    ("make_schedule", "words"),
    [
        (lambda: training.constant(warmup=-1), "warmup must be at least 0, got -1"),
        (lambda: training.warmup_cosine(final=1.0), r"final must be in \[0, 1\)"),
        (lambda: training.warmup_cosine(warmup=-1), "warmup must be at least 0"),
        (lambda: training.one_cycle(rise=1.0), "rise must be in"),
        (lambda: training.one_cycle(start=2.0), r"start and final must be in \[0, 1\], got 2.0"),
        (lambda: training.one_cycle(final=-1.0), r"start and final must be in \[0, 1\], got 0.04 and -1"),
        (lambda: training.exponential(final=0.0), r"final must be in \(0, 1\]"),
        (lambda: training.exponential(warmup=-2), "warmup must be at least 0"),
        (lambda: training.inverse_sqrt(warmup=0), "warmup must be at least 1"),
    ],
)
def test_bad_arguments_of_schedules(make_schedule, words):
    with pytest.raises(ValueError, match=words):
        make_schedule()


def test_a_batch_is_shared_in_slices():
    x = torch.arange(6)
    assert [training._share(x, rank, 3).tolist() for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert training._share(torch.tensor(2.0), 1, 3) == 2.0
    with pytest.raises(ValueError, match="batches must give batches that split evenly over 4 processes, got one of 6"):
        training._share(x, 0, 4)


# -------------------- other processes


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


def environment():
    return dict(os.environ) | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_alone(script, checkpoint, out, pause="0"):
    command = [sys.executable, str(script), str(checkpoint), str(out), pause]
    subprocess.run(command, env=environment(), check=True, capture_output=True, text=True, timeout=120)
    return json.loads(out.read_text())


@pytest.mark.slow
def test_a_run_survives_kills_at_any_moment(script, tmp_path):
    """Killed (SIGKILL) again and again: each checkpoint that is left is whole, and the end is that of one run, to the bit."""
    expected = run_alone(script, "", tmp_path / "straight.json")
    path, seen = tmp_path / "state.safetensors", [0]
    for delay in itertools.islice(itertools.cycle([0.0, 0.003, 0.011]), 4):
        command = [sys.executable, str(script), str(path), str(tmp_path / "out.json"), "0.02"]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and _step(path) < seen[-1] + 5:
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        seen.append(_step(path))
    assert seen == sorted(set(seen))
    assert 20 <= seen[-1] < 40
    found = run_alone(script, path, tmp_path / "out.json")
    assert found == expected


def _step(path):
    """Steps of the checkpoint; whole at every moment, or this raises."""
    return checkpoints.load(path, own=True)[1]["step"] if path.exists() else 0


def torchrun(arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments]
    return [subprocess.Popen(command, env=environment() | {"ACCELERATE_USE_CPU": "true"}, stderr=subprocess.PIPE)]


def accelerate(arguments):
    """What ``mpirun -n 2 accelerate launch --cpu --num_processes 2`` does: on CPUs, the launcher starts one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", port, *arguments]
    ranks = [{"RANK": k, "LOCAL_RANK": k, "WORLD_SIZE": "2"} for k in "01"]
    return [subprocess.Popen(command, env=environment() | rank, stderr=subprocess.PIPE) for rank in ranks]


@pytest.mark.slow
@pytest.mark.parametrize("launch", [torchrun, accelerate])
def test_two_processes_give_the_curve_of_one(script, tmp_path, launch):
    expected = run_alone(script, "", tmp_path / "one.json")
    out, path = tmp_path / "two.json", tmp_path / "state.safetensors"
    processes = launch([str(script), str(path), str(out), "0"])
    try:
        errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), errors[0][-3000:]
    found = json.loads(out.read_text())
    assert (expected["processes"], found["processes"]) == (1, 2)
    # Sums of float32 in another order.
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert found["losses"] != expected["losses"]
    assert found["ema"] == pytest.approx(expected["ema"], rel=1e-4, abs=1e-5)
    # And one process can go on where two have stopped.
    assert run_alone(script, path, tmp_path / "again.json")["losses"] == found["losses"]
