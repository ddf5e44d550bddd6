"""Gradients: all adjoints against each other and against finite differences, hidden tensors, cost and memory."""

import math
from typing import Any

import pytest
import torch
from problems import Network
from torch import Tensor

from pdebook.diffeq.adjoints import Checkpointed, Direct, split
from pdebook.diffeq.backsolve import Backsolve
from pdebook.diffeq.brownian import PrecomputedPath
from pdebook.diffeq.controllers import PID, Constant
from pdebook.diffeq.events import Event
from pdebook.diffeq.methods import SOLVERS
from pdebook.diffeq.paths import LinearPath
from pdebook.diffeq.reversible import Reversible, ReversibleHeun
from pdebook.diffeq.runge_kutta import RungeKutta
from pdebook.diffeq.solve import solve
from pdebook.diffeq.tableaus import TABLEAUS
from pdebook.diffeq.terms import CDE, ODE, SDE, Bound, Layout
from pdebook.rng import normal

Y0 = normal(4, torch.arange(5), (2,), dtype=torch.float64)
TS = [0.5, 1.0, 2.0]


def gradient(adjoint: Any, *, ts: Any = TS, **options: Any) -> Tensor:
    """Gradient of a loss of the saved states with respect to start and parameters, as one vector."""
    field, y0 = Network(), Y0.clone().requires_grad_()
    ys = solve(ODE(field), y0, 0.0, 2.0, ts=ts, adjoint=adjoint, **options).ys
    loss = (ys**2).sum() + ys.flatten()[0].sin()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [y0, *field.parameters()])])


CASES: dict[str, dict[str, Any]] = {
    "rk4, fixed": {"solver": "rk4", "controller": Constant(steps=13)},
    "tsit5": {"solver": "tsit5", "controller": PID(1e-6, 1e-6)},
    "kvaerno3": {"solver": "kvaerno3", "controller": Constant(steps=4)},
    "reversible": {"solver": "reversible-heun", "controller": Constant(steps=13)},
    "jump": {"solver": "bosh3", "controller": PID(1e-4, 1e-4, jumps=(0.7,))},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("checkpoints", [None, 1, 3])
def test_checkpoints_give_the_direct_gradient(name: str, checkpoints: int | None) -> None:
    for ts in (TS, None):
        direct = gradient(Direct(), ts=ts, **CASES[name])
        torch.testing.assert_close(
            gradient(Checkpointed(checkpoints), ts=ts, **CASES[name]), direct, rtol=1e-11, atol=1e-11
        )


def test_reversal_gives_the_direct_gradient_and_the_start() -> None:
    ts = torch.linspace(0, 2, 14, dtype=torch.float64)[[0, 4, 9, 13]]
    options = {"solver": "reversible-heun", "controller": Constant(steps=13), "ts": ts}
    direct = gradient(Direct(), **options)
    torch.testing.assert_close(gradient(Reversible(), **options), direct, rtol=1e-12, atol=1e-12)
    adaptive = {"solver": "reversible-heun", "controller": PID(1e-3, 1e-3, land=True), "ts": TS}
    torch.testing.assert_close(
        gradient(Reversible(), **adaptive), gradient(Direct(), **adaptive), rtol=1e-11, atol=1e-11
    )


def test_reversible_heun_is_undone_by_its_inverse() -> None:
    solver, bound = ReversibleHeun(), Bound(ODE(Network()), Layout(Y0))
    t = torch.zeros(5).double()
    carry = (Y0 + 0.01, *solver.start(bound, t, Y0)[1:])
    step = solver.step(bound, t, t + 0.3, Y0, carry)
    # Forwards in time the inverse is the step backwards with the roles of start and end exchanged.
    hat, f = step.carry
    back = 2 * step.y - hat - 0.3 * f
    torch.testing.assert_close(back, Y0 + 0.01, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("product", "low", "high"), [(0.99j, 0.0, 1e-12), (1.01j, 0.1, 0.2), (-0.1 + 0j, 0.1, 0.11)])
def test_stability_of_reversible_heun(product: complex, low: float, high: float) -> None:
    """Spectral radius of a step's matrix for y' = λ y: 1 strictly between -i and i, more elsewhere."""
    lam = torch.tensor(product)
    term = ODE(lambda t, y: lam.to(y.dtype) * y)
    solver, t = ReversibleHeun(), torch.zeros(2).double()
    states = torch.eye(2, dtype=torch.complex128)
    y, hat = states[:, :1], states[:, 1:]
    bound = Bound(term, Layout(y))
    step = solver.step(bound, t, t + 1.0, y, (hat, lam * hat))
    matrix = torch.cat([step.y, step.carry[0]], 1).T
    radius = float(torch.linalg.eigvals(matrix).abs().max())
    assert low <= radius - 1.0 <= high + 1e-12


def test_the_backward_solve_converges_in_its_tolerance() -> None:
    exact = gradient(Direct(), solver="dopri8", controller=PID(1e-12, 1e-12))
    off = []
    for tol in (1e-4, 1e-6, 1e-8):
        found = gradient(Backsolve(controller=PID(tol, tol)), controller=PID(1e-10, 1e-10))
        off.append(float((found - exact).norm() / exact.norm()))
    assert off[2] < 1e-6
    assert off[0] > 10 * off[1] > 100 * off[2] / 3
    # Optimise-then-discretise is not the gradient of the discrete solution: with few steps they differ, by the order.
    gaps = []
    for steps in (8, 16):
        coarse = {"solver": "heun", "controller": Constant(steps=steps), "ts": None}
        gaps.append(
            float((gradient(Backsolve(RungeKutta(TABLEAUS["tsit5"])), **coarse) - gradient(Direct(), **coarse)).norm())
        )
    assert gaps[0] > 1e-5
    assert gaps[0] / gaps[1] > 3


def test_the_seminorm_saves_steps() -> None:
    def cost(seminorm: bool) -> tuple[int, Tensor]:
        calls = [0]

        class Counted(Network):
            def forward(self, t: Tensor, y: Tensor) -> Tensor:
                calls[0] += 1
                return 4.0 * super().forward(t, y)

        field, y0 = Counted(), Y0.clone().requires_grad_()
        ys = solve(
            ODE(field), y0, 0.0, 5.0, solver="dopri5", controller=PID(1e-8, 1e-8),
            adjoint=Backsolve(controller=PID(1e-8, 1e-8), seminorm=seminorm),
        ).ys  # fmt: skip
        calls[0] = 0
        grads = torch.autograd.grad((ys**2).sum(), [y0, *field.parameters()])
        return calls[0], torch.cat([g.flatten() for g in grads])

    (semi, a), (full, b) = cost(True), cost(False)
    assert semi <= 0.95 * full
    assert float((a - b).norm() / b.norm()) < 1e-6


@pytest.mark.parametrize("name", ["euler", "heun", "rk4", "dopri5", "implicit-euler", "reversible-heun"])
def test_gradcheck_on_fixed_steps(name: str) -> None:
    w = torch.tensor([[0.3, -0.2], [0.5, 0.1]], dtype=torch.float64, requires_grad=True)

    def end(y0: Tensor, w: Tensor) -> Tensor:
        term = ODE(lambda t, y, w: (y @ w).tanh() + t[:, None])
        return solve(term, y0, 0.0, 1.0, args=(w,), ts=[0.4, 1.0], solver=name, controller=Constant(steps=3)).ys

    assert torch.autograd.gradcheck(end, (Y0[:2].clone().requires_grad_(), w))
    if name in ("euler", "heun", "rk4", "dopri5"):
        assert torch.autograd.gradgradcheck(end, (Y0[:1].clone().requires_grad_(), w))


def test_gradients_with_respect_to_times() -> None:
    t0, t1 = (torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (0.2, 1.0))
    ts = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    term, y0 = ODE(lambda t, y: t[:, None] * y), torch.ones(1, 1).double()
    end = solve(term, y0, t0, t1, controller=PID(1e-10, 1e-10)).ys
    exact = math.exp(0.5 * (1.0 - 0.04))
    by0, by1 = torch.autograd.grad(end.sum(), (t0, t1))
    assert float(by0) == pytest.approx(-0.2 * exact, rel=1e-6)
    assert float(by1) == pytest.approx(1.0 * exact, rel=1e-6)
    ys = solve(term, y0, 0.0, 1.0, ts=ts, controller=PID(1e-10, 1e-10)).ys
    (by,) = torch.autograd.grad(ys.sum(), ts)
    torch.testing.assert_close(by, (ts * (0.5 * ts**2).exp()).detach(), rtol=1e-6, atol=0)


def test_arguments_that_are_no_leaves_and_modules_in_arguments() -> None:
    raw = torch.tensor([[0.3, -0.2], [0.5, 0.1]], dtype=torch.float64, requires_grad=True)
    net = Network()
    grads = []
    for adjoint in (Direct(), Checkpointed(), Backsolve(controller=PID(1e-11, 1e-11))):
        term = ODE(lambda t, y, w, net: y @ w + net(t, y))
        end = solve(term, Y0, 0.0, 1.0, args=(raw.tanh(), net), adjoint=adjoint, controller=PID(1e-10, 1e-10)).ys
        found = torch.autograd.grad((end**2).sum(), [raw, *net.parameters()])
        grads.append(torch.cat([g.flatten() for g in found]))
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(grads[2], grads[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("adjoint", [Checkpointed(), Backsolve(), Reversible()], ids=lambda a: type(a).__name__)
def test_a_hidden_tensor_is_an_error_not_a_zero(adjoint: Any) -> None:
    hidden = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    options = {"solver": "reversible-heun", "controller": Constant(steps=4)} if isinstance(adjoint, Reversible) else {}
    for field in (lambda t, y: hidden * y, lambda t, y: hidden.exp() * y):
        with pytest.raises(ValueError, match=r"the field hides a tensor of shape \(\) that needs a gradient"):
            solve(ODE(field), Y0, 0.0, 1.0, adjoint=adjoint, **options)
    # Direct sees it, since it differentiates whatever was used.
    end = solve(ODE(lambda t, y: hidden * y), torch.ones(1, 1).double(), 0.0, 1.0, controller=PID(1e-10, 1e-10)).ys
    assert float(torch.autograd.grad(end.sum(), hidden)[0]) == pytest.approx(math.exp(0.5), rel=1e-7)


@pytest.mark.parametrize("adjoint", [Checkpointed(), Backsolve(), Reversible()], ids=lambda a: type(a).__name__)
def test_a_tensor_that_is_hidden_until_late_is_an_error_too(adjoint: Any) -> None:
    hidden = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    start = Y0.clone().requires_grad_()
    options = {"solver": "reversible-heun"} if isinstance(adjoint, Reversible) else {}

    def field(t: Tensor, y: Tensor) -> Tensor:
        return hidden * y if float(t.min()) > 0.6 else -y

    ys = solve(ODE(field), start, 0.0, 1.0, adjoint=adjoint, controller=Constant(steps=8), **options).ys
    with pytest.raises(ValueError, match=r"the field hides a tensor of shape \(\) that needs a gradient"):
        ys.sum().backward()
    assert start.grad is None


def test_values_of_a_path_get_their_gradient_or_an_error() -> None:
    values = normal(3, torch.arange(2), (5, 2), dtype=torch.float64).requires_grad_()
    path = PrecomputedPath(torch.linspace(0, 1, 5).double(), values)
    term = SDE(lambda t, y: -y, lambda t, y: 0.3 * y, path, calculus="stratonovich")
    start = torch.ones(2, 2).double()
    for controller in (Constant(steps=4), PID(1e-2, 1e-2)):
        options: dict[str, Any] = {"solver": "reversible-heun", "controller": controller}
        (found,) = torch.autograd.grad(solve(term, start, 0.0, 1.0, **options).ys.sum(), values)
        assert float(found.norm()) > 0.01
        for adjoint in (Reversible(), Checkpointed()):
            with pytest.raises(
                ValueError, match=r"hides a tensor of shape \(2, 5, 2\).*for values of a path use adjoint Direct"
            ):
                solve(term, start, 0.0, 1.0, adjoint=adjoint, **options)


@pytest.mark.parametrize("noise", ["diagonal", "scalar", "general"])
def test_reversal_gives_the_direct_gradient_of_every_kind_of_noise(noise: str) -> None:
    channels = 1 if noise == "scalar" else 2
    values = normal(5, torch.arange(5), (9, channels), dtype=torch.float64).cumsum(1)
    path, found = PrecomputedPath(torch.linspace(0, 1, 9).double(), values), []
    for adjoint in (Direct(), Reversible()):
        field, spread, y0 = Network(), Spread(Network(), noise == "general"), Y0.clone().requires_grad_()
        term = SDE(field, spread, path, noise=noise, calculus="stratonovich")
        steps = {"solver": "reversible-heun", "controller": Constant(steps=8)}
        end = solve(term, y0, 0.0, 1.0, adjoint=adjoint, **steps).ys
        parameters = [y0, *field.parameters(), *spread.parameters()]
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(end.square().sum(), parameters)]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-11, atol=1e-11)
    assert float(found[0].norm()) > 0


class Spread(torch.nn.Module):
    """A field as diffusion: its numbers, or a matrix of two columns."""

    def __init__(self, field: torch.nn.Module, matrix: bool) -> None:
        super().__init__()
        self.field, self.matrix = field, matrix

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        g = self.field(t, y)
        return torch.stack([g, 0.5 * g.flip(1)], 2) if self.matrix else g


def test_gradients_across_the_corners_of_a_control() -> None:
    knots = torch.tensor([0.0, 0.3, 0.6, 1.0], dtype=torch.float64)
    path = LinearPath(knots, normal(3, torch.arange(5), (4, 1), dtype=torch.float64))
    found = {}
    for name, adjoint in (
        ("direct", Direct()),
        ("checkpoints", Checkpointed(1)),
        ("back", Backsolve(controller=PID(1e-9, 1e-9))),
    ):
        field, y0 = Network(), Y0.clone().requires_grad_()
        end = solve(
            CDE(Columns(field), path), y0, 0.1, 1.0, solver="bosh3", controller=Constant(steps=90), adjoint=adjoint
        ).ys
        found[name] = torch.cat(
            [g.flatten() for g in torch.autograd.grad(end.square().sum(), [y0, *field.parameters()])]
        )
    torch.testing.assert_close(found["checkpoints"], found["direct"], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found["back"], found["direct"], rtol=1e-3, atol=1e-4)
    options: dict[str, Any] = {"solver": "reversible-heun", "controller": Constant(steps=10), "adjoint": Reversible()}
    with pytest.raises(ValueError, match="steps from the corners of a control"):
        solve(CDE(Columns(Network()), path), Y0, 0.0, 1.0, **options)


class Columns(torch.nn.Module):
    """A field as the one column of a controlled equation."""

    def __init__(self, field: torch.nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.field(t, y)[..., None]


def test_an_event_without_a_slope_has_a_time_but_no_gradient() -> None:
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    line = ODE(lambda t, y, w: w * torch.ones_like(y))
    touch = Event(lambda t, y, *_: torch.where(y[:, 0] < 0, -1.0 + 0 * y[:, 0], 0 * y[:, 0]))
    begin = -torch.ones(1, 1).double()
    assert float(solve(line, begin, 0.0, 3.0, args=(rate.detach(),), event=touch).t) == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(ValueError, match="event must cross zero with a slope"):
        solve(line, begin, 0.0, 3.0, args=(rate,), event=touch)


def test_rejected_steps_do_not_spoil_a_gradient() -> None:
    # The first trial leaves the domain of the square root: not a number, in a step that is rejected.
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    end = solve(
        ODE(lambda t, y, r: r * (1.0 - y).sqrt()), torch.zeros(1, 1).double(), 0.0, 1.5, args=(rate,),
        controller=PID(1e-9, 1e-9, first_step=1.5),
    ).ys  # fmt: skip
    # y = 1 - (1 - r t/2)², dy/dr = t (1 - r t/2).
    assert float(torch.autograd.grad(end.sum(), rate)[0]) == pytest.approx(1.5 * 0.25, rel=1e-5)


def test_memory_of_the_adjoints() -> None:
    """States that autograd keeps: as many as steps for Direct, a few for Checkpointed, none for Reversible."""

    def kept(adjoint: Any, steps: int) -> int:
        sizes: list[int] = []
        field, y0 = Network(), Y0.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            solve(ODE(field), y0, 0.0, 2.0, adjoint=adjoint, solver="reversible-heun", controller=Constant(steps=steps))
        return len(sizes)

    assert kept(Direct(), 80) > 3 * kept(Direct(), 20)
    assert kept(Reversible(), 80) == kept(Reversible(), 20) < 20
    assert kept(Checkpointed(), 80) == kept(Checkpointed(), 20) < 20


@pytest.mark.parametrize(("steps", "slots"), [(1000, 10), (1000, 3), (64, 1), (2, 5)])
def test_checkpoints_keep_few_states_and_repeat_little(steps: int, slots: int) -> None:
    """The schedule of ``split``: how many states are held at once, and how often steps are repeated."""
    most, repeated = 0, 0

    def reverse(first: int, last: int, room: int, held: int) -> None:
        nonlocal most, repeated
        most = max(most, held)
        while last - first > 1:
            middle = first + split(last - first, room)
            assert first < middle < last
            repeated += middle - first
            reverse(middle, last, max(room - 1, 0), held + (1 if room else 0))
            last = middle

    reverse(0, steps, slots, 0)
    assert most <= slots
    sweeps = next(r for r in range(1, steps + 1) if math.comb(slots + r, slots) >= steps)
    assert repeated <= sweeps * steps


def test_an_event_has_the_gradients_of_its_formula() -> None:
    g = torch.tensor(9.81, dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([[1.0, 0.0], [2.0, 0.5], [3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    fall = ODE(lambda t, y, g: torch.stack([y[:, 1], -g.expand(len(y))], 1))
    floor = Event(lambda t, y, g: y[:, 0], direction=-1)
    s = solve(fall, y0, 0.0, 10.0, args=(g,), event=floor, ts=[0.1, 5.0], max_steps=50)
    when = (y0[:, 1] + (y0[:, 1] ** 2 + 2 * g * y0[:, 0]).sqrt()) / g
    torch.testing.assert_close(s.t, when, rtol=1e-12, atol=0)
    assert s.status.tolist() == [4, 4, 4]
    assert bool(s.ys[:, 1].isnan().all())
    assert not bool(s.ys[:, 0].isnan().any())
    for mine, theirs in zip(
        torch.autograd.grad(s.t.square().sum(), (g, y0)), torch.autograd.grad(when.square().sum(), (g, y0)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    # The state at the event: position stays zero, speed is -sqrt(v² + 2 g h).
    end = solve(fall, y0, 0.0, 10.0, args=(g,), event=floor).ys
    speed = -(y0[:, 1] ** 2 + 2 * g * y0[:, 0]).sqrt()
    torch.testing.assert_close(end[:, 1], speed, rtol=1e-10, atol=0)
    (by,) = torch.autograd.grad(end.sum(), g)
    (exact,) = torch.autograd.grad(speed.sum(), g)
    torch.testing.assert_close(by, exact, rtol=1e-8, atol=1e-8)


def test_an_event_that_depends_on_time_has_the_gradient_of_its_formula() -> None:
    # y = e^{w t} y_0 meets the rising line c t + 2: e^{w t} = c t + 2 at y_0 = 1.
    w, c = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.0, 0.7))
    growth = ODE(lambda t, y, w, c: w * y)
    line = Event(lambda t, y, w, c: y[:, 0] - (c * t + 2.0))
    s = solve(growth, torch.ones(1, 1).double(), 0.0, 5.0, args=(w, c), event=line, controller=PID(1e-10, 1e-10))
    t = float(s.t.detach())
    assert math.exp(t) == pytest.approx(0.7 * t + 2.0, rel=1e-8)
    slope = math.exp(t) - 0.7
    by_w, by_c = torch.autograd.grad(s.t.sum(), (w, c))
    assert float(by_w) == pytest.approx(-t * math.exp(t) / slope, rel=1e-6)
    assert float(by_c) == pytest.approx(t / slope, rel=1e-6)


def test_events_by_direction_and_none() -> None:
    turn = ODE(lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1))
    y0 = torch.tensor([[1.0, 0.0]]).double()
    zero = {
        d: solve(turn, y0, 0.0, 10.0, event=Event(lambda t, y: y[:, 0], d), controller=PID(1e-10, 1e-10)).t
        for d in (-1, 0, 1)
    }
    assert float(zero[-1]) == pytest.approx(math.pi / 2, abs=1e-8)
    assert float(zero[0]) == pytest.approx(math.pi / 2, abs=1e-8)
    assert float(zero[1]) == pytest.approx(1.5 * math.pi, abs=1e-8)
    never = solve(turn, y0, 0.0, 10.0, event=Event(lambda t, y: y[:, 0] - 2.0))
    assert never.status.tolist() == [0]
    assert float(never.t) == 10.0
    with pytest.raises(ValueError, match="event must return one number for each sample"):
        solve(turn, y0, 0.0, 1.0, event=Event(lambda t, y: y))
    with pytest.raises(ValueError, match="direction must be"):
        Event(lambda t, y: y[:, 0], 2)
    with pytest.raises(ValueError, match="event needs adaptive steps"):
        solve(turn, y0, 0.0, 1.0, event=Event(lambda t, y: y[:, 0]), controller=Constant(steps=3))


@pytest.mark.parametrize(
    ("adjoint", "options", "words"),
    [
        (Reversible(), {}, "adjoint Reversible needs solver ReversibleHeun, got tsit5"),
        (
            Reversible(),
            {"solver": "reversible-heun", "controller": Constant(steps=3), "ts": [0.5, 1.0]},
            "saves at the ends of steps only",
        ),
        (Checkpointed(), {"dense": True}, "dense needs adjoint Direct"),
        (
            Reversible(),
            {"solver": "reversible-heun", "controller": Constant(steps=3), "record": (lambda info: None,)},
            "record and dense need adjoint Direct",
        ),
        (Backsolve(), {"record": (lambda info: None,)}, "record and dense need adjoint Direct"),
        (
            Backsolve(),
            {"solver": "rk4", "controller": Constant(steps=3)},
            "adjoint Backsolve needs a solver with an error estimate, rk4 has none",
        ),
    ],
)
def test_bad_combinations(adjoint: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        solve(ODE(Network()), Y0, 0.0, 1.0, adjoint=adjoint, **options)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="checkpoints must be at least 1"):
        Checkpointed(0)


def test_every_adaptive_method_can_be_differentiated() -> None:
    exact = gradient(Direct(), solver="dopri8", controller=PID(1e-11, 1e-11))
    for name in ("bosh3", "dopri5", "tsit5"):
        assert SOLVERS[name].adaptive
        found = gradient(Direct(), solver=name, controller=PID(1e-7, 1e-7))
        assert float((found - exact).norm() / exact.norm()) < 1e-4
