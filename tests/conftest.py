"""Fixtures that all tests share: the device, and the run-time check of shapes and types."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

if os.environ.get("PDEBOOK_CHECK_SHAPES", "1") == "1":
    install_import_hook("pdebook", "beartype.beartype")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device that the tests of the library run on: cpu or cuda")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Device under test (``--device``)."""
    return torch.device(request.config.getoption("--device"))


class Reads(TorchDispatchMode):
    """Counts the operators that hand a value to the host: item, bool, float, int."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.equal.default,
            torch.ops.aten.nonzero.default,
        )
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    """Counts what is read back to the host while the test runs."""
    counter = Reads()
    # Some ways out of a CPU tensor pass no operator.
    for name in ("tolist", "cpu", "numpy", "__array__"):
        original = getattr(Tensor, name)

        def counted(self: Tensor, *args: Any, original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            counter.count += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Tensor, name, counted)
    with counter:
        yield counter
