"""The digits' networks: a score network and a classifier that the book ships, and a U-Net for larger digits on a GPU.

The score network predicts the velocity v = α ε - σ x_0, so x_0 = α x - σ v and ε = σ x + α v. A network that predicts ε has
its error multiplied by σ/α, about 150 at t = 1, in x_0; that would hide the differences between samplers.

Each batch is a function of (seed, step), and so is each network of its seed.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pdebook import weights
from pdebook.data.digits import digits, split
from pdebook.diffusion.schedules import NoiseSchedule, VPLinear
from pdebook.nn.conv import ConvClassifier
from pdebook.nn.embeddings import NoiseAndClass
from pdebook.nn.mlp import ModulatedMLP
from pdebook.nn.unet import UNet
from pdebook.rng import fold_in, normal, uniform
from pdebook.training import fit, warmup_cosine

CLASSES = 10
NULL = CLASSES
"""Label that stands for "no class"."""

T_MIN = 1e-3
"""Smallest time that the score networks are trained on."""

Module = TypeVar("Module", bound=nn.Module)

NoisyBatch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Noisy images, half log-SNR, label, velocity."""


class ScoreNetwork(nn.Module):
    """Velocity of noisy 8x8 digits: residual perceptron of width 192 with 4 blocks, modulated by λ and class.

    488,800 parameters; exactly zero before training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.condition = NoiseAndClass(96, CLASSES)
        self.trunk = ModulatedMLP(64, 64, width=192, blocks=4, condition=96)

    def forward(
        self,
        x: Float[Tensor, "batch 64"],
        half_log_snr: Float[Tensor, " batch"],
        label: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch 64"]:
        """Velocity; without a label, or with label 10, the unconditional one.

        Args:
            x: noisy digits α x_0 + σ ε.
            half_log_snr: λ = log(α/σ) of each sample.
            label: class of each sample, 0 to 9, or 10 for none.
        """
        return self.trunk(x, self.condition(half_log_snr, label))


def velocity(
    data: Float[Tensor, "batch *shape"], noise: Float[Tensor, "batch *shape"], alpha: Tensor, sigma: Tensor
) -> Float[Tensor, "batch *shape"]:
    """v = α ε - σ x_0. Source: Salimans and Ho 2022, section 4."""
    return alpha * noise - sigma * data


def noisy_batches(
    images: Float[Tensor, "n *shape"],
    labels: Int64[Tensor, " n"],
    *,
    size: int,
    dropout: float = 0.3,
    schedule: NoiseSchedule | None = None,
) -> Callable[[int, int], NoisyBatch]:
    """Batches for training a velocity network: ``batches(seed, step) -> (x, λ, label, v)``.

    Images are drawn with replacement, times stratified: one uniform draw in each of ``size`` equal parts of [1e-3, 1].

    Args:
        images: data x_0.
        labels: their classes.
        size: number of samples in a batch.
        dropout: fraction of labels that become ``NULL``.
        schedule: noise schedule; ``VPLinear()`` if left out.
    """
    schedule = VPLinear() if schedule is None else schedule
    device, ones = images.device, [1] * (images.ndim - 1)

    def batches(seed: int, step: int) -> NoisyBatch:
        place = torch.arange(size, device=device)
        draws = uniform(seed, step * size + place, (3,), stream=1, dtype=torch.float64, device=device)
        chosen = (draws[:, 0] * len(images)).long()
        t = T_MIN + (schedule.t_max - T_MIN) * (place + draws[:, 1]) / size
        label = torch.where(draws[:, 2] < dropout, NULL, labels[chosen])
        noise = normal(seed, step * size + place, images.shape[1:], stream=2, dtype=images.dtype, device=device)
        alpha, sigma, half_log_snr = (
            torch.as_tensor(part(t)).to(images.dtype)
            for part in (schedule.alpha, schedule.sigma, schedule.half_log_snr)
        )
        alpha, sigma = alpha.reshape(-1, *ones), sigma.reshape(-1, *ones)
        x = alpha * images[chosen] + sigma * noise
        return x, half_log_snr, label, velocity(images[chosen], noise, alpha, sigma)

    return batches


def velocity_loss(net: nn.Module, batch: NoisyBatch) -> Float[Tensor, ""]:
    """Mean square error of the velocity."""
    x, half_log_snr, label, target = batch
    return nn.functional.mse_loss(net(x, half_log_snr, label), target)


def velocity_error(net: nn.Module, *, seed: int, conditional: bool, draws: int = 20) -> float:
    """Mean square error of a score network's velocity over all digits, with noise that training has not seen.

    Args:
        net: score network.
        seed: seed of the noise.
        conditional: with the digits' classes, or with none.
        draws: batches of 1797 images, times stratified.
    """
    images, labels = digits()
    batches = noisy_batches(images.flatten(1), labels, size=len(images), dropout=0.0 if conditional else 1.0)
    held_out = fold_in(seed, "held out")
    with torch.no_grad():
        return sum(velocity_loss(net, batches(held_out, step)).item() for step in range(draws)) / draws


def _initialised(build: Callable[[], Module], seed: int) -> Module:
    """A network whose first weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold_in(seed, "initialisation"))
        return build()


def _train(
    net: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Callable[[int, int], Any],
    steps: int,
    seed: int,
    precision: Literal["full", "bf16"] = "full",
) -> None:
    """Train a network in place and leave it with its averaged weights."""
    schedule = warmup_cosine(200)
    history = fit(
        net, loss, batches, steps=steps, lr=1e-3, seed=seed, schedule=schedule, clip=1.0, ema=0.999, precision=precision
    )
    if history.ema is not None:
        net.load_state_dict(history.ema)


def _rounded(net: nn.Module) -> dict[str, Tensor]:
    """Parameters in half precision, and the network set to exactly what will be loaded from them."""
    tensors = {name: value.half() for name, value in net.state_dict().items()}
    net.load_state_dict(tensors)
    return tensors


def make_score_network(seed: int = 0, *, steps: int = 8000) -> weights.Made:
    """Train the score network: batches of 128, Adam with 1e-3 (200 steps of warm-up, then cosine to 0), clip 1, EMA 0.999.

    Args:
        seed: seed of initialisation and batches.
        steps: iterations.
    Returns:
        The averaged weights in half precision; the velocity's errors on noise that training has not seen.
    """
    images, labels = digits()
    net = _initialised(ScoreNetwork, seed)
    _train(net, velocity_loss, noisy_batches(images.flatten(1), labels, size=128), steps, seed)
    tensors = _rounded(net)
    errors = {
        f"velocity_error_{name}": velocity_error(net, seed=seed, conditional=name == "conditional")
        for name in ("conditional", "unconditional")
    }
    return weights.Made(tensors, errors)


def make_classifier(seed: int = 0, *, steps: int = 1500) -> weights.Made:
    """Train the classifier on the training part of the digits, in batches of 128 drawn with replacement.

    Returns:
        The weights in half precision; the accuracy on both parts.
    """
    images, labels = digits()
    train, test = split()
    net = _initialised(lambda: ConvClassifier(8, CLASSES), seed)

    def batches(seed: int, step: int) -> tuple[Tensor, Tensor]:
        draws = uniform(seed, step * 128 + torch.arange(128), dtype=torch.float64)
        chosen = train[(draws * len(train)).long()]
        return images[chosen], labels[chosen]

    _train(net, _cross_entropy, batches, steps, seed)
    tensors = _rounded(net)
    metrics = {f"accuracy_{name}": accuracy(net, part) for name, part in (("train", train), ("test", test))}
    return weights.Made(tensors, metrics)


def full_network() -> UNet:
    """U-Net for digits of 16x16 pixels: three levels of 64, 128 and 128 channels, about six million parameters."""
    return UNet(1, (64, 128, 128), classes=CLASSES)


def train_full(seed: int = 0, device: torch.device | str = "cuda", *, steps: int = 6000, size: int = 256) -> UNet:
    """Train the U-Net on the digits up-sampled to 16x16; for the full profile, minutes on one GPU.

    Args:
        seed: seed of initialisation and batches.
        device: where to train.
        steps: iterations.
        size: samples in a batch.
    Returns:
        The averaged network, for evaluation.
    """
    images, labels = digits(size=16, device=device)
    net = _initialised(full_network, seed).to(device)
    precision: Literal["full", "bf16"] = "bf16" if torch.device(device).type == "cuda" else "full"
    _train(net, velocity_loss, noisy_batches(images, labels, size=size), steps, seed, precision)
    return net.eval().requires_grad_(False)


def _cross_entropy(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(net(images), labels)


def accuracy(net: nn.Module, part: Int64[Tensor, " n"]) -> float:
    """Fraction of the digits with indices ``part`` that a classifier gets right."""
    images, labels = digits()
    with torch.no_grad():
        return (net(images[part]).argmax(1) == labels[part]).double().mean().item()


def _loaded(net: Module, name: str) -> Module:
    net.load_state_dict(weights.load(name))
    return net.eval().requires_grad_(False)


def score_network() -> ScoreNetwork:
    """The shipped score network in float32, for evaluation."""
    return _loaded(ScoreNetwork(), "digits_net")


def classifier() -> ConvClassifier:
    """The shipped classifier in float32, for evaluation; ``classifier().features`` are those of the Fréchet digit distance."""
    return _loaded(ConvClassifier(8, CLASSES), "digits_classifier")
