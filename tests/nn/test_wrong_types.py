"""Wrong types given to networks and to what feeds them, where nothing checks annotations: errors that name the argument."""

import os
import subprocess
import sys

CASES = [
    ("SpectralConv(2, 2, (4.0, 4))", "modes must hold a positive integer"),
    ("SpectralConv(2, 2, (4, 4), weight='tucker', rank='half')", "rank must be at least 1 and at most the full rank"),
    ("SpectralConv(2, 2, (4, 4), weight='tt', rank=None)", "rank must be at least 1 and at most the full rank"),
    ("SpectralConv(2, 2, (4, 4), weight='tucker', rank=(2.5, 2, 2, 2))", "rank must be at least 1"),
    ("SpectralConv(2, 2, (4, 4))(torch.zeros(1, 2, 8, 8) + 0j)", "x must be real, got torch.complex64"),
    ("FNO(1, 1, '4', width=4)", "modes must hold a positive integer"),
    ("FNO(1, 1, (4,), width=4, padding=0.25)", "padding must be a DomainPad or None, got 0.25"),
    ("Tucker((3, 2, 4), 2).apply_to(torch.zeros(4, 3) + 0j)", "x must have shape (4, batch, 3), got (4, 3)"),
    ("SoftGate(3)(torch.zeros(3))", "v must have 3 channels, got shape (3,)"),
    ("DomainPad('1')", "amount must not be negative, one number or one for each axis, got '1'"),
    ("GridEmbedding((0, 1))", "bounds must be rising pairs, one for each axis, got (0, 1)"),
    ("box((0.0,), (1.0,), 2.5)", "points must be at least 1, an integer, got 2.5"),
    ("variable(torch.zeros(2, 3), torch.eye(3), 1) ** 'two'", "exponent must be a finite number, got two"),
    (
        "relative_lp(torch.ones(1, 2, 4), torch.ones(1, 2, 4), dims=1, groups=[0, 1])",
        "groups must hold lists of channels",
    ),
    ("constant(float('nan'))", "warmup must be at least 0, got nan"),
    ("Normalizer(1, dims=1, over='pointwise', size=8)", "size must hold 1 positive numbers"),
    ("Normalizer(1, dims=1).update(torch.zeros(1, 1, 4) + 0j)", "u must be real, got torch.complex64"),
    ("FieldMetrics(1, cuts=(4.5, 12))", "cuts must rise from above 0, got (4.5, 12)"),
    ("FieldMetrics(1, cuts=(4, 12, 16))", "cuts must rise from above 0, got (4, 12, 16)"),
    ("FieldMetrics(1).update(torch.zeros(1, 4) + 0j, torch.zeros(1, 4) + 0j)", "target must be real"),
    ("TensorSource(torch.zeros(5, 12))", "data must be (sample, time, channel, *size), got shape (5, 12)"),
    ("Windows(torch.zeros(5, 12, 1, 4), samples=[0.5, 1.7])", "samples must be one or more of 0 to 4, got [0.5, 1.7]"),
    ("Windows(torch.zeros(5, 12, 1, 4), parameters={'nu': [1.0] * 5})", "parameters['nu'] must have one row"),
    ("batches(Windows(torch.zeros(5, 12, 1, 4)), 2.5)", "size must be positive, got 2.5"),
    ("noisy(0, torch.arange(3), torch.zeros(2, 2), 0.1)", "data must have a row for each of 3 samples"),
    (
        "patches(torch.zeros(1, 1, 16), 1, 0.5)",
        "levels and padding must be integers that are not negative, got 1 and 0.5",
    ),
    ("MultiGrid(torch.nn.Identity(), 1.5, 0)", "levels, padding and chunk must be integers"),
]
PROGRAM = """
import torch
from pdebook.data.normalizers import Normalizer
from pdebook.data.series import noisy
from pdebook.data.trajectories import TensorSource, Windows, batches
from pdebook.learning_rates import constant
from pdebook.losses import relative_lp
from pdebook.metrics.fields import FieldMetrics
from pdebook.nn.channel import SoftGate
from pdebook.nn.collocation import box
from pdebook.nn.factorized import Tucker
from pdebook.nn.fno import FNO
from pdebook.nn.grid_embedding import GridEmbedding
from pdebook.nn.jets import variable
from pdebook.nn.padding import DomainPad
from pdebook.nn.spectral import SpectralConv
from pdebook.operators.mg_tfno import MultiGrid, patches
import sys
for case in sys.argv[1:]:
    try:
        eval(case)
        print("accepted")
    except ValueError as error:
        print(str(error).splitlines()[0])
"""


def test_wrong_types_are_named() -> None:
    command = [sys.executable, "-c", PROGRAM, *(case for case, _ in CASES)]
    options = {"env": os.environ | {"PDEBOOK_CHECK_SHAPES": "0"}, "text": True, "capture_output": True, "check": True}
    lines = subprocess.run(command, **options).stdout.splitlines()
    assert [(case, line) for (case, words), line in zip(CASES, lines, strict=True) if words not in line] == []
