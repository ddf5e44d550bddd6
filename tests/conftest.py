"""Fixtures that all tests share: the device, and the run-time check of shapes and types."""

import os

import pytest
import torch
from jaxtyping import install_import_hook

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
