"""What a step of a solver schedule may decide, as data: checked where it is made, readable JSON, and the files of the authors.

``unified_sampling`` runs it.

Source: Liu, Ning, Yang, Wang: A Unified Sampling Framework for Solver Searching of Diffusion Probabilistic Models, ICLR 2024, and
the official code.
"""

import json
import math
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from pdebook.diffusion.sampling import Prediction

Scaling = Literal["none", "linear", "bh1", "bh2", "exp+", "exp-"]
Corrector = Literal["none", "pseudo", "implicit"]
Analytic = Literal["none", "noise", "mean"]


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
        check_integer("order", self.order, low=1)
        check_integer("start", self.start, high=-1)
        if len(self.points) != self.order - 1:
            raise ValueError(
                f"points must have one set for each of the {self.order - 1} derivatives of order {self.order}, got {self.points!r}"
            )
        for q, chosen in enumerate(self.points, start=1):
            for node in chosen:
                check_integer("points", node, high=-1)
            if len(set(chosen)) != len(chosen) or self.start in chosen or len(chosen) < q:
                raise ValueError(
                    f"points of derivative {q} must be at least {q} distinct nodes other than the start {self.start}, got {chosen!r}"
                )
        check_choice("scaling", self.scaling, get_args(Scaling))
        check_number("gamma", self.gamma)

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
        check_choice("prediction", self.prediction, get_args(Prediction))
        check_choice("corrector", self.corrector, get_args(Corrector))
        if self.corrector == "none" and self.correction is not None:
            raise ValueError("correction must be left out where corrector is 'none'")
        if self.correction is not None and self.correction.start == -1:
            raise ValueError("correction must not start from -1, the node that it corrects")

    @property
    def again(self) -> Update:
        """The correction that is used."""
        return self.correction or self.update.corrected()


# -------------------- JSON and checks


def check_reach(steps: Sequence[Step]) -> None:
    """Raise ValueError if a step uses nodes that do not exist yet: before step i there are i + 1."""
    for i, step in enumerate(steps):
        if step.update.reach > i + 1:
            raise ValueError(f"steps[{i}].update needs {step.update.reach} nodes, but there are {i + 1} so far")
        if step.corrector != "none" and step.again.reach > i + 2:
            raise ValueError(f"steps[{i}].correction needs {step.again.reach} nodes, but there are {i + 2} so far")


def check_choice(name: str, value: Any, known: Sequence[Any]) -> None:
    """Raise ValueError unless ``value`` is one of ``known``."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def check_integer(name: str, value: Any, low: float | int = -math.inf, high: float | int = math.inf) -> None:
    """Raise ValueError unless ``value`` is an integer between ``low`` and ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        expected = f"at least {low}" if low > -math.inf else f"{high} or less"
        raise ValueError(f"{name} must be an integer, {expected}, got {value!r}")


def check_number(name: str, value: Any) -> None:
    """Raise ValueError unless ``value`` is a finite number."""
    # Not math.isfinite, which fails on whole numbers beyond the largest real one.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name} must be finite numbers, got {value!r}"[:200])


def to_record(value: Any) -> Any:
    """A dataclass as JSON values, without fields that have their defaults."""
    if not hasattr(value, "__dataclass_fields__"):
        return [to_record(item) for item in value] if isinstance(value, tuple | list) else value
    record = {}
    for part in fields(value):
        content = getattr(value, part.name)
        default = part.default if part.default_factory is MISSING else part.default_factory()
        if default is MISSING or content != default:
            record[part.name] = to_record(content)
    return record


def read_json(text: str | bytes) -> Any:
    """JSON without repeated fields and numbers that are not finite; ValueError for anything else, such as a pickle."""

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
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"text must be JSON, and is not: {error}") from error


def _real(value: Any, name: str) -> Any:
    """A whole number where a real one stands is read as such."""
    whole = type(value) is int and name in ("times", "gamma") and abs(value) <= sys.float_info.max
    return float(value) if whole else value


_INSIDE: dict[str, type] = {"update": Update, "correction": Update}


def build(kind: Callable[..., Any], record: Any, where: str) -> Any:
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
            values[name] = build(_INSIDE[name], value, place)
        elif name == "provenance":
            if not isinstance(value, dict):
                raise ValueError(f"{place} must be an object, got {type(value).__name__}")
            values[name] = value
        elif name in ("times", "steps", "points"):
            if not isinstance(value, list) or (name == "points" and not all(isinstance(item, list) for item in value)):
                raise ValueError(f"{place} must be a list{' of lists' if name == 'points' else ''}, got {value!r}")
            if name == "steps":
                values[name] = tuple(build(Step, item, f"{place}[{i}]") for i, item in enumerate(value))
            else:
                values[name] = tuple(tuple(item) if isinstance(item, list) else _real(item, name) for item in value)
        else:
            values[name] = _real(value, name)
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


# -------------------- released files

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


def read_released(path: Path | str, drop_skips: bool) -> dict[str, Any]:
    """Fields of a ``SolverSchedule`` from a released ``.pth`` file; see ``unified_sampling.from_official``."""
    name = Path(path).name
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        # The message of an empty file's error is empty.
        reason = [type(error).__name__, *str(error).splitlines()][-1]
        raise ValueError(
            f"path {name} is not a file of plain tensors, lists and numbers, and is not read: {reason}"
        ) from error
    try:
        return _convert(content, name, drop_skips)
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(f"path {name} holds no released solver schedule: {error!r}") from error
    except ValueError as error:
        raise ValueError(f"path {name} holds no schedule that can be used: {error}") from error


def _convert(content: Any, name: str, drop_skips: bool) -> dict[str, Any]:
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
    return {"times": times, "steps": tuple(steps), "analytic": _ANALYTIC[afs], "provenance": note}


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
