"""USF: one update rule in which every step of a sampler freely chooses its strategy, and solver schedules as plain data.

``usf`` runs any schedule, ``SolverSchedule`` is one (readable JSON, validated), ``from_solver`` writes known solvers as schedules,
``from_official`` reads the released ones. Schedules are searched for in ``solver_search``; ``shipped`` returns what was found.

Source: Liu, Ning, Yang, Wang: A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models, ICLR 2024, and
the official code.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from pdebook.diffusion.affine import State, Tableau, axpby, trace
from pdebook.diffusion.sampling import (
    Ending,
    ExponentialStep,
    Model,
    Prediction,
    Steps,
    exponential_step,
    predictor,
    sampler,
    step_orders,
    walk,
)
from pdebook.diffusion.scalars import Scalar, expm1, phi, solve_moments
from pdebook.diffusion.schedules import NoiseSchedule
from pdebook.diffusion.solver_decisions import (
    Analytic,
    Scaling,
    Step,
    Update,
    build,
    check_choice,
    check_number,
    check_reach,
    read_json,
    read_released,
    to_record,
)

CONDITION = 1e8
"""Largest condition number of a difference system; beyond it two nodes nearly coincide."""


@dataclass(frozen=True)
class SolverSchedule:
    """A whole sampler: its times and the decisions of each step.

    Attributes:
        times: strictly falling times, one more than steps; every time is a node, those of inner stages too.
        steps: decisions, in order.
        analytic: what stands in for the first evaluation: "none" (nothing: the model is asked), "noise" (the state itself, ε ≈ x)
            or "mean" (x_0 is the data's mean). Saves one evaluation.
        provenance: where it comes from, any JSON values.
    Raises:
        ValueError: times that do not fall, or a step that needs nodes which do not exist yet; the message names it.
    """

    times: tuple[float, ...]
    steps: tuple[Step, ...]
    analytic: Analytic = "none"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for t in self.times:
            check_number("times", t)
        if len(self.times) != len(self.steps) + 1 or not self.steps:
            raise ValueError(
                f"times must be one more than steps, of which there is at least one; got {len(self.times)}, {len(self.steps)}"
            )
        for i, (s, t) in enumerate(pairwise(self.times)):
            if t >= s:
                raise ValueError(f"times must fall strictly, but times[{i + 1}] = {t} follows {s}")
        check_choice("analytic", self.analytic, get_args(Analytic))
        check_reach(self.steps)

    @property
    def evaluations(self) -> int:
        """Number of model evaluations that a sample costs."""
        last = len(self.steps) - 1
        # After a step the model is asked, except at the end, where only a corrector needs it; "implicit" asks again.
        after = sum((i < last) + (step.corrector != "none" and i == last) for i, step in enumerate(self.steps))
        again = sum(step.corrector == "implicit" for step in self.steps[:-1])
        return (self.analytic == "none") + after + again

    def options(self) -> dict[str, Any]:
        """Options of ``usf``."""
        return {"steps": self.steps, "analytic": self.analytic}

    def run(self, denoiser: Model, x: State, **options: Any) -> Any:
        """Samples at the last time; ``usf`` on this schedule's times."""
        return usf(denoiser, x, self.times, **self.options(), **options)

    def to_tableau(self, schedule: NoiseSchedule) -> Tableau:
        """What it computes, whatever the model. A mean is the symbol ``mu``."""
        return trace(usf, schedule, self.times, **self.options())

    def condition(self, schedule: NoiseSchedule) -> float:
        """Largest condition number of its difference systems."""
        lam = [float(schedule.half_log_snr(t)) for t in self.times]
        worst = 1.0
        for i, step in enumerate(self.steps):
            updates = [(step.update, lam[: i + 1])] + [(step.again, lam[: i + 2])] * (step.corrector != "none")
            for update, nodes in updates:
                for points in set(update.points):
                    worst = max(worst, condition([nodes[k] - nodes[update.start] for k in points]))
        return worst

    def to_json(self) -> str:
        """Readable JSON: one line a step, defaults left out."""
        record = to_record(self)
        steps = ",\n  ".join(json.dumps(step) for step in record.pop("steps"))
        rest = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
        return "{" + ",\n ".join([*rest, f'"steps": [\n  {steps}]']) + "}"

    @staticmethod
    def from_json(text: str | bytes) -> "SolverSchedule":
        """Inverse of ``to_json``.

        Raises:
            ValueError: anything but such JSON: other bytes (a pickle), unknown, missing or repeated fields, impossible decisions.
        """
        return SolverSchedule.from_record(read_json(text))

    @staticmethod
    def from_record(record: Any) -> "SolverSchedule":
        """A schedule from parsed JSON; raises ValueError like ``from_json``."""
        return build(SolverSchedule, record, "schedule")

    @staticmethod
    def load(path: Path | str) -> "SolverSchedule":
        """Read a schedule from a JSON file; raises ValueError like ``from_json``, with the file's name."""
        try:
            return SolverSchedule.from_json(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"path {Path(path).name} holds no solver schedule: {error}") from error


# -------------------- the sampler


@dataclass
class _Node:
    """A point where the model was asked: its time, the state from which later steps start, and what the model said."""

    time: Scalar
    half_log_snr: Scalar
    state: State
    point: State
    values: dict[str, State]

    def value(self, prediction: str, schedule: NoiseSchedule) -> State:
        """The prediction in either form; the other one is converted at the point where the model was asked."""
        if prediction not in self.values:
            alpha, sigma = schedule.alpha(self.time), schedule.sigma(self.time)
            known, own, other = ("noise", sigma, alpha) if prediction == "data" else ("data", alpha, sigma)
            self.values[prediction] = axpby(1.0 / other, self.point, -own / other, self.values[known])
        return self.values[prediction]


@sampler
def usf(
    denoiser: Model,
    x: State,
    times: list[Scalar],
    *,
    steps: Sequence[Step],
    analytic: Analytic = "none",
    mean: Any = None,
    gammas: Sequence[Scalar] | None = None,
) -> Steps:
    """Run a solver schedule. From the node s to t, with h = λ_t - λ_s and the weights of ``ExponentialStep``,

        x_t = ratio x_s + Σ_{k < n} w_{k+1} h^k m^(k),   m^(0) = m_s,   m^(q) = Σ_i a_i (m_i - m_s)

    where m is the prediction, and the a_i make the estimate exact on polynomials in λ whose degree is the number of points.

    Args:
        denoiser: model; one evaluation serves both predictions.
        x: state at ``times[0]``.
        times: falling times, shared by the batch.
        steps: decisions for each interval.
        analytic: see ``SolverSchedule``.
        mean: mean of the data for ``analytic="mean"``, broadcast against x.
        gammas: values of γ instead of the steps' own, so that they may be tensors with a gradient.
    Raises:
        ValueError: steps that do not fit the times or use nodes that do not exist, per-sample times, a missing mean, or nodes so
            close that a difference system has a condition number above 1e8.
    """
    if len(steps) != len(times) - 1:
        raise ValueError(f"steps must be one for each of the {len(times) - 1} intervals of times, got {len(steps)}")
    if gammas is not None and len(gammas) != len(steps):
        raise ValueError(f"gammas must be one for each of the {len(steps)} steps, got {len(gammas)}")
    if isinstance(times[0], Tensor) and times[0].ndim:
        raise ValueError("times must be shared by the batch")
    check_choice("analytic", analytic, get_args(Analytic))
    if analytic == "mean" and mean is None:
        if isinstance(x, Tensor):
            raise ValueError("mean must be given for analytic = 'mean': the mean of the data")
        mean = type(x).symbol("mu")
    check_reach(steps)
    schedule, reach = denoiser.schedule, max(max(step.update.reach, step.again.reach) for step in steps)

    def node(state: State, t: Scalar, prediction: Prediction) -> _Node:
        values: dict[str, State] = {prediction: predictor(denoiser, prediction)(state, t)}
        return _Node(t, schedule.half_log_snr(t), state, state, values)

    if analytic == "none":
        nodes = [node(x, times[0], steps[0].prediction)]
    else:
        guess = {"noise": x} if analytic == "noise" else {"data": axpby(0.0, x, 1.0, mean)}
        nodes = [_Node(times[0], schedule.half_log_snr(times[0]), x, x, guess)]
    for i, _, t in walk(times):
        step, last = steps[i], i == len(steps) - 1
        gamma = step.update.gamma if gammas is None else gammas[i]
        x = advance(schedule, nodes, t, step.prediction, step.update, gamma)
        if not last or step.corrector != "none":
            asked = step.prediction if step.corrector != "none" else steps[i + 1].prediction
            nodes = [*nodes, node(x, t, asked)][-reach:]
        if step.corrector != "none":
            x = nodes[-1].state = advance(schedule, nodes, t, step.prediction, step.again, step.again.gamma)
            if step.corrector == "implicit" and not last:
                nodes[-1] = node(x, t, steps[i + 1].prediction)
        yield t, x


def advance(
    schedule: NoiseSchedule, nodes: Sequence[_Node], t: Scalar, prediction: Prediction, update: Update, gamma: Scalar
) -> Any:
    """The update rule: the state at t from nodes, oldest first; see ``usf``."""
    start = nodes[update.start]
    step = exponential_step(schedule, start.time, t, prediction)
    weights: dict[int, Scalar] = {}
    for q, points in enumerate(update.points, start=1):
        distances = [(nodes[i].half_log_snr - start.half_log_snr) / step.h for i in points]
        size = step.weight(q + 1) * (scaling_factor(step, update.scaling, gamma) if q == 1 else 1.0)
        for i, a in zip(points, difference_weights(distances, q), strict=True):
            weights[i] = weights.get(i, 0.0) + size * a
    pairs = [item for i, w in weights.items() for item in (w, nodes[i].value(prediction, schedule))]
    own = step.weight(1) - sum(weights.values())
    return axpby(step.ratio, start.state, own, start.value(prediction, schedule), *pairs)


def difference_weights(distances: Sequence[Scalar], q: int) -> list[Scalar]:
    """Weights a_i with Σ_i a_i d_i^r / r! = 1 for r = q and 0 for the other r = 1, ..., p: the q-th derivative from p differences.

    Args:
        distances: positions d_i of p other nodes relative to the start, in units of the step.
        q: which derivative, 1 <= q <= p.
    Raises:
        ValueError: a condition number above 1e8: two nodes nearly coincide.
    """
    if not 1 <= q <= len(distances):
        raise ValueError(f"q must be between 1 and the number of distances, {len(distances)}, got {q}")
    if not any(isinstance(d, Tensor) for d in distances) and not (number := condition(distances)) <= CONDITION:
        raise ValueError(
            f"times must keep the nodes of a difference apart: its condition number is {number:.1e}, more than {CONDITION:.0e}"
        )
    moments = [float(math.factorial(q) * (r == q)) for r in range(1, len(distances) + 1)]
    return [w / d for w, d in zip(solve_moments(distances, moments), distances, strict=True)]


def condition(distances: Sequence[Scalar]) -> float:
    """Condition number of the system of ``difference_weights``, its distances scaled to at most 1."""
    if len(distances) == 1:
        return 1.0
    scaled = np.asarray(distances, dtype=np.float64) / max(abs(float(d)) for d in distances)
    return float(np.linalg.cond(scaled ** np.arange(1, len(scaled) + 1)[:, None]))


def scaling_factor(step: ExponentialStep, scaling: Scaling, gamma: Scalar = 0.0) -> Scalar:
    """Factor 1 + O(h) of the first derivative, with ĥ = h for noise and -h for data prediction (and always h in "linear"):

        none 1;  linear 1 + γ h;  bh1 (ĥ²/2)/(e^ĥ - 1 - ĥ);  bh2 (ĥ/2)(e^ĥ - 1)/(e^ĥ - 1 - ĥ);  exp± 1 ± (e^ĥ - 1)/2

    "bh2" turns a Taylor step of order 2 into DPM-Solver++ 2M's or DPM-Solver-2's, the two "bh" into UniPC's.
    """
    if scaling == "linear":
        return 1.0 + gamma * step.h
    if scaling in ("bh1", "bh2"):
        return 0.5 * (phi(1, step.z) if scaling == "bh2" else 1.0) / phi(2, step.z)
    return 1.0 + {"none": 0.0, "exp+": 0.5, "exp-": -0.5}[scaling] * expm1(step.z)


# -------------------- known solvers as schedules


def _multistep(order: int, scaling: Scaling) -> Update:
    return Update(order, (tuple(range(-2, -order - 1, -1)),) * (order - 1), scaling=scaling if order == 2 else "none")


def _single(stages: int) -> list[Update]:
    """DPM-Solver-2 or -3: each stage starts where the step does, and looks at the newest node only."""
    last: Scaling = "bh2" if stages == 2 else "none"
    return [
        Update(), *(Update(2, ((-1,),), -k, last if k == stages else "none") for k in range(2, stages + 1))
    ]  # fmt: skip


SOLVERS = (
    "ddim",
    "dpm-solver-2",
    "dpm-solver-3",
    "dpm-solver++2s",
    "dpm-solver++3s",
    "dpm-solver++2m",
    "taylor-2m",
    "taylor-3m",
    "unipc-1",
    "unipc-2",
    "unipc-3",
    "lambda-ab-0",
    "lambda-ab-1",
    "lambda-ab-2",
    "lambda-ab-3",
)
"""Names that ``from_solver`` knows."""


def from_solver(
    name: str,
    times: Sequence[float],
    *,
    prediction: Prediction | None = None,
    b: Literal["bh1", "bh2"] = "bh2",
    ending: Ending | None = None,
) -> SolverSchedule:
    """A known solver as a solver schedule.

    ===================== ==================================================================================================
    ddim                  order 1
    dpm-solver-2, -3      single-step: every 2 or 3 intervals are the stages of one step; ++2s, ++3s with data prediction
    dpm-solver++2m        order 2, scaling bh2;  taylor-2m, taylor-3m without scaling (all derivatives from all points)
    unipc-p               the same, scaling b where one difference is all there is, corrected without another evaluation
    lambda-ab-r           DEIS with polynomials in λ: order r + 1, noise prediction, all points
    ===================== ==================================================================================================

    Args:
        name: one of ``SOLVERS``.
        times: falling times of all nodes.
        prediction: "noise" or "data"; the solver's own if left out.
        b: UniPC's function B.
        ending: see ``step_orders``; the solver's own if left out ("lower" for unipc, "full" for lambda-ab, else "auto").
    Raises:
        ValueError: an unknown name or option, or times that do not fit the solver.
    """
    if name not in SOLVERS:
        raise ValueError(f"name must be one of {', '.join(SOLVERS)}, got {name!r}")
    check_choice("b", b, ("bh1", "bh2"))
    noise_first = name.startswith(("dpm-solver-", "lambda-ab"))
    kind: Prediction = prediction if prediction is not None else "noise" if noise_first else "data"
    count = len(times) - 1
    if name.startswith("dpm-solver") and name != "dpm-solver++2m":
        stages = int(name.removeprefix("dpm-solver").strip("-+s"))
        if count % stages:
            raise ValueError(f"times must hold a multiple of {stages} intervals for {name}, got {count}")
        return SolverSchedule(tuple(times), tuple(Step(kind, update) for update in _single(stages) * (count // stages)))
    if name.startswith("unipc"):
        orders = step_orders(count, int(name[-1]), ending or "lower")
        kept = (ending or "lower") != "lower" and orders[-1] == int(name[-1])
        steps = []
        for i, order in enumerate(orders):
            update = _multistep(order, b)
            again = update.corrected(b) if order == 1 else None
            corrected = i < count - 1 or kept
            steps.append(Step(kind, update, "pseudo", again) if corrected else Step(kind, update))
        return SolverSchedule(tuple(times), tuple(steps))
    if name.startswith("lambda-ab"):
        order, ending = int(name[-1]) + 1, ending or "full"
    else:
        order = 1 if name == "ddim" else int(name[-2])
    scaling: Scaling = "bh2" if name == "dpm-solver++2m" else "none"
    orders = step_orders(count, order, ending or "auto")
    return SolverSchedule(tuple(times), tuple(Step(kind, _multistep(k, scaling)) for k in orders))


# -------------------- released schedules


def from_official(path: Path | str, *, drop_skips: bool = False) -> SolverSchedule:
    """Read a schedule that the authors released, a ``.pth`` file of tensors, lists and numbers; nothing in it is executed.

    Args:
        path: the file.
        drop_skips: leave out the U-Net's skip coefficients. They change the network, so they are no part of a sampler; a file whose
            coefficients differ from 1 is refused unless they may be dropped.
    Raises:
        ValueError: a file with other objects, unknown fields, relaxations or predictions (DPM-Solver-v3's needs statistics of the
            model), or a schedule that is not possible. The message names the file and the reason.
    """
    parts = read_released(path, drop_skips)
    try:
        return SolverSchedule(**parts)
    except ValueError as error:
        raise ValueError(f"path {Path(path).name} holds no schedule that can be used: {error}") from error


# -------------------- what was found

_SHIPPED = Path(__file__).with_suffix(".json")


@cache
def _shipped() -> dict[str, dict[int, SolverSchedule]]:
    record = read_json(_SHIPPED.read_bytes())
    return {
        problem: {int(budget): SolverSchedule.from_record(entry) for budget, entry in entries.items()}
        for problem, entries in record.items()
    }


def shipped(problem: str, budget: int) -> SolverSchedule | None:
    """The schedule that was searched for on a problem at a budget of evaluations, or None; ``solver_search.make_shipped`` made them.

    "digits_net" gets those of "digits_gm" unchanged.
    """
    return _shipped().get({"digits_net": "digits_gm"}.get(problem, problem), {}).get(budget)
