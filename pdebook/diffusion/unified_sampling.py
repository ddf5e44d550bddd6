"""USF: one update rule in which every step of a sampler freely chooses its strategy, and solver schedules as plain data.

``usf`` runs any schedule, ``SolverSchedule`` is one (readable JSON, validated), ``from_solver`` writes known solvers as schedules,
``from_official`` reads the released ones. Schedules are searched for in ``solver_search``; ``shipped`` returns what was found.

Source: Liu, Ning, Yang, Wang: A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models, ICLR 2024, and
the official code.
"""

import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
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

Scaling = Literal["none", "linear", "bh1", "bh2", "exp+", "exp-"]
Corrector = Literal["none", "pseudo", "implicit"]
Analytic = Literal["none", "noise", "mean"]

CONDITION = 1e8
"""Largest condition number of a difference system; beyond it two nodes nearly coincide."""


@dataclass(frozen=True)
class Update:
    """How one Taylor step is made. Nodes are numbered from the newest, -1, backwards.

    Attributes:
        order: number n of terms: the prediction itself and n - 1 derivatives in λ.
        points: for each derivative the nodes whose differences to the start estimate it, at least as many as its order.
        start: node from which the step starts.
        scaling: factor of the first derivative; see ``scaling_factor``.
        gamma: γ of the scaling "linear".
    Raises:
        ValueError: choices that no history allows; the message names the field.
    """

    order: int = 1
    points: tuple[tuple[int, ...], ...] = ()
    start: int = -1
    scaling: Scaling = "none"
    gamma: float = 0.0

    def __post_init__(self) -> None:
        _integer("order", self.order, low=1)
        _integer("start", self.start, high=-1)
        if len(self.points) != self.order - 1:
            raise ValueError(
                f"points must have one set for each of the {self.order - 1} derivatives of order {self.order}, got {self.points!r}"
            )
        for q, chosen in enumerate(self.points, start=1):
            for node in chosen:
                _integer("points", node, high=-1)
            if len(set(chosen)) != len(chosen) or self.start in chosen or len(chosen) < q:
                raise ValueError(
                    f"points of derivative {q} must be at least {q} distinct nodes other than the start {self.start}, got {chosen!r}"
                )
        _choice("scaling", self.scaling, get_args(Scaling))
        _number("gamma", self.gamma)

    @property
    def reach(self) -> int:
        """Number of nodes that must exist."""
        return -min(self.start, *(node for chosen in self.points for node in chosen), -1)

    def corrected(self, scaling: Scaling = "none") -> "Update":
        """The corrector of this update: the same step again, one order higher, with the node that was reached among the points."""
        shifted = [(-1, *(node - 1 for node in chosen)) for chosen in self.points] or [(-1,)]
        last = [shifted[-1]] if self.points else []
        return Update(self.order + 1, (*shifted, *last), self.start - 1, scaling)


@dataclass(frozen=True)
class Step:
    """All decisions of one step.

    Attributes:
        prediction: what is expanded, "noise" or "data".
        update: how the next state is predicted.
        corrector: "none", "pseudo" (correct the state, keep the evaluation at the predicted one) or "implicit" (evaluate again).
        correction: how it is corrected; ``update.corrected()`` if left out.
    """

    prediction: Prediction = "data"
    update: Update = field(default_factory=Update)
    corrector: Corrector = "none"
    correction: Update | None = None

    def __post_init__(self) -> None:
        _choice("prediction", self.prediction, get_args(Prediction))
        _choice("corrector", self.corrector, get_args(Corrector))
        if self.corrector == "none" and self.correction is not None:
            raise ValueError("correction must be left out where corrector is 'none'")
        if self.correction is not None and self.correction.start == -1:
            raise ValueError("correction must not start from -1, the node that it corrects")

    @property
    def again(self) -> Update:
        """The correction that is used."""
        return self.correction or self.update.corrected()


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
            _number("times", t)
        if len(self.times) != len(self.steps) + 1 or not self.steps:
            raise ValueError(
                f"times must be one more than steps, of which there is at least one; got {len(self.times)}, {len(self.steps)}"
            )
        for i, (s, t) in enumerate(pairwise(self.times)):
            if t >= s:
                raise ValueError(f"times must fall strictly, but times[{i + 1}] = {t} follows {s}")
        _choice("analytic", self.analytic, get_args(Analytic))
        _check_reach(self.steps)

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
        record = _record(self)
        steps = ",\n  ".join(json.dumps(step) for step in record.pop("steps"))
        rest = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()]
        return "{" + ",\n ".join([*rest, f'"steps": [\n  {steps}]']) + "}"

    @staticmethod
    def from_json(text: str | bytes) -> "SolverSchedule":
        """Inverse of ``to_json``.

        Raises:
            ValueError: anything but such JSON: other bytes (a pickle), unknown, missing or repeated fields, impossible decisions.
        """
        return SolverSchedule.from_record(_read_json(text))

    @staticmethod
    def from_record(record: Any) -> "SolverSchedule":
        """A schedule from parsed JSON; raises ValueError like ``from_json``."""
        return _build(SolverSchedule, record, "schedule")

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
    if isinstance(times[0], Tensor) and times[0].ndim:
        raise ValueError("times must be shared by the batch")
    _choice("analytic", analytic, get_args(Analytic))
    if analytic == "mean" and mean is None:
        if isinstance(x, Tensor):
            raise ValueError("mean must be given for analytic = 'mean': the mean of the data")
        mean = type(x).symbol("mu")
    _check_reach(steps)
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
    _choice("b", b, ("bh1", "bh2"))
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

_RELAXATIONS: dict[str | None, Scaling] = {
    None: "none",
    "no_relaxation": "none",
    "linear": "linear",
    "unipc-bh1": "bh1",
    "unipc-bh2": "bh2",
    "dpmsolver-2": "bh2",
    "0.5exp": "exp+",
    "-0.5exp": "exp-",
}
_PREDICTIONS: dict[str, Prediction] = {"noise_prediction": "noise", "data_prediction": "data"}
_ANALYTIC: dict[str, Analytic] = {"no_afs": "none", "zero_x0": "noise", "average_x0": "mean"}
_KEYS = ("timesteps", "orders", "prediction_types", "start_points", "derivative_types", "corrector_types")


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
    name = Path(path).name
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            f"path {name} is not a file of plain tensors, lists and numbers, and is not read: {str(error).splitlines()[-1]}"
        ) from error
    try:
        return _convert(content, name, drop_skips)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"path {name} holds no released solver schedule: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"path {name} holds no schedule that can be used: {error}") from error


def _convert(content: Any, name: str, drop_skips: bool) -> SolverSchedule:
    unknown = set(content) - {*_KEYS, "afs", "skip_coefficients"}
    if unknown or set(_KEYS) - set(content):
        raise ValueError(f"fields must be {', '.join(_KEYS)}, afs and skip_coefficients, got {', '.join(content)}")
    skips = content.get("skip_coefficients")
    dropped = skips is not None and bool((torch.as_tensor(skips) != 1.0).any())
    if dropped and not drop_skips:
        raise ValueError("skip_coefficients differ from 1: they scale a U-Net inside; drop_skips=True leaves them out")
    times = tuple(torch.as_tensor(content["timesteps"]).double().tolist())
    count = len(times) - 1
    for key in _KEYS[1:]:
        if len(content[key]) != count:
            raise ValueError(f"{key} must be one for each of the {count} steps, got {len(content[key])}")
    steps = []
    for i in range(count):
        what, corrector = content["prediction_types"][i], content["corrector_types"][i]
        if what not in _PREDICTIONS:
            raise ValueError(f"step {i} has prediction {what!r}; known are {', '.join(_PREDICTIONS)}")
        update = _convert_update(content["orders"][i], content["start_points"][i], content["derivative_types"][i], i)
        kind: Corrector = {"no_corrector": "none", "pseudo": "pseudo"}.get(corrector["type"], "unknown")  # type: ignore[assignment]
        again = None
        if kind == "pseudo":
            start, again_types = corrector["start_point"], corrector["derivative_type"]
            again = _convert_update(corrector["taylor_order"], start, again_types, i)
            again = None if again == update.corrected() else again
        elif kind != "none":
            raise ValueError(f"step {i} has corrector {corrector['type']!r}; known are no_corrector and pseudo")
        steps.append(Step(_PREDICTIONS[what], update, kind, again))
    afs = content.get("afs", "no_afs")
    if afs not in _ANALYTIC:
        raise ValueError(f"afs must be one of {', '.join(_ANALYTIC)}, got {afs!r}")
    note = {"file": name, "skip_coefficients": "dropped"} if dropped else {"file": name}
    return SolverSchedule(times, tuple(steps), _ANALYTIC[afs], note)


def _convert_update(order: int, start: int, types: Sequence[Mapping[str, Any]], i: int) -> Update:
    used = list(types)[: order - 1]
    points = []
    for entry in used:
        if not entry["active_points"] or entry["estimate"] != f"Difference_{len(entry['active_points'])}":
            raise ValueError(f"step {i} estimates a derivative by {entry['estimate']!r} at {entry['active_points']!r}")
        points.append(tuple(sorted(entry["active_points"], reverse=True)))
    relaxation = used[0]["relaxation"] if used else None
    if relaxation not in _RELAXATIONS:
        raise ValueError(f"step {i} has relaxation {relaxation!r}; known are {', '.join(map(str, _RELAXATIONS))}")
    scaling = _RELAXATIONS[relaxation]
    gamma = float(used[0].get("relaxation_coefficient") or 0.0) if scaling == "linear" else 0.0
    return Update(order, tuple(points), start, scaling, gamma)


# -------------------- JSON and checks


def _check_reach(steps: Sequence[Step]) -> None:
    """Raise ValueError if a step uses nodes that do not exist yet: before step i there are i + 1."""
    for i, step in enumerate(steps):
        if step.update.reach > i + 1:
            raise ValueError(f"steps[{i}].update needs {step.update.reach} nodes, but there are {i + 1} so far")
        if step.corrector != "none" and step.again.reach > i + 2:
            raise ValueError(f"steps[{i}].correction needs {step.again.reach} nodes, but there are {i + 2} so far")


def _choice(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def _integer(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        expected = f"at least {low}" if low > -math.inf else f"{high} or less"
        raise ValueError(f"{name} must be an integer, {expected}, got {value!r}")


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be finite numbers, got {value!r}")


def _record(value: Any) -> Any:
    """A dataclass as JSON values, without fields that have their defaults."""
    if not hasattr(value, "__dataclass_fields__"):
        return [_record(item) for item in value] if isinstance(value, tuple | list) else value
    record = {}
    for part in fields(value):
        content = getattr(value, part.name)
        default = part.default if part.default_factory is MISSING else part.default_factory()
        if default is MISSING or content != default:
            record[part.name] = _record(content)
    return record


def _read_json(text: str | bytes) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"numbers must be finite, got {name}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise ValueError(f"fields must not be repeated, got {', '.join(name for name, _ in pairs)}")
        return record

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=once, parse_constant=refuse)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"text must be JSON, and is not: {error}") from error


def _real(value: Any, name: str) -> Any:
    """A whole number where a real one stands is read as such."""
    return float(value) if type(value) is int and name in ("times", "gamma") else value


_INSIDE: dict[str, type] = {"update": Update, "correction": Update}


def _build(kind: Callable[..., Any], record: Any, where: str) -> Any:
    """A dataclass from parsed JSON; ValueError names the place of what is wrong."""
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object, got {type(record).__name__}")
    known = {part.name: part for part in fields(kind)}  # type: ignore[arg-type]
    unknown = [name for name in record if name not in known]
    if unknown:
        raise ValueError(f"{where} has unknown fields: {', '.join(unknown)}; known are {', '.join(known)}")
    needed = [name for name, part in known.items() if part.default is MISSING and part.default_factory is MISSING]
    missing = [name for name in needed if name not in record]
    if missing:
        raise ValueError(f"{where} must have {', '.join(missing)}")
    values: dict[str, Any] = {}
    for name, value in record.items():
        place = f"{where}.{name}"
        if name in _INSIDE:
            values[name] = _build(_INSIDE[name], value, place)
        elif name == "provenance":
            if not isinstance(value, dict):
                raise ValueError(f"{place} must be an object, got {type(value).__name__}")
            values[name] = value
        elif name in ("times", "steps", "points"):
            if not isinstance(value, list) or (name == "points" and not all(isinstance(item, list) for item in value)):
                raise ValueError(f"{place} must be a list{' of lists' if name == 'points' else ''}, got {value!r}")
            if name == "steps":
                values[name] = tuple(_build(Step, item, f"{place}[{i}]") for i, item in enumerate(value))
            else:
                values[name] = tuple(tuple(item) if isinstance(item, list) else _real(item, name) for item in value)
        else:
            values[name] = _real(value, name)
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


# -------------------- what was found

_SHIPPED = Path(__file__).with_suffix(".json")


@cache
def _shipped() -> dict[str, dict[int, SolverSchedule]]:
    record = _read_json(_SHIPPED.read_bytes())
    return {
        problem: {int(budget): SolverSchedule.from_record(entry) for budget, entry in entries.items()}
        for problem, entries in record.items()
    }


def shipped(problem: str, budget: int) -> SolverSchedule | None:
    """The schedule that was searched for on a problem at a budget of evaluations, or None; ``solver_search.make_shipped`` made them.

    "digits_net" gets those of "digits_gm" unchanged.
    """
    return _shipped().get({"digits_net": "digits_gm"}.get(problem, problem), {}).get(budget)
