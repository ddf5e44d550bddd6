"""How the book's figures look: one style, and one colour, marker and dash for each method, the same in all chapters."""

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cycler import cycler

__all__ = [
    "BLACK",
    "BLUE",
    "DPI",
    "GREEN",
    "GREY",
    "METHODS",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "STYLE",
    "MethodStyle",
    "color",
    "method_style",
]

DPI = 110
Dash = Literal["solid", "dashed", "dotted", "dashdot"]

# Okabe and Ito 2008; yellow is left out, which is unreadable on white.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE, GREY = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F",
)  # fmt: skip
_DASHES: dict[Dash, Any] = {
    "solid": "-",
    "dashed": (0, (5, 2)),
    "dotted": (0, (1.2, 1.6)),
    "dashdot": (0, (6, 2, 1.2, 2)),
}

STYLE: Any = {
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY, GREY]),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "text.antialiased": True,
}


@dataclass(frozen=True)
class MethodStyle:
    """How one method looks in every figure: marker and dash alone tell it apart when colours don't."""

    color: str
    marker: str
    dash: Dash

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": _DASHES[self.dash], "markeredgecolor": "white"}


# A family shares its colour; within the book no two methods share marker and dash.
METHODS: Mapping[str, MethodStyle] = {
    "exact": MethodStyle(BLACK, "None", "solid"),
    "reference": MethodStyle(BLACK, "None", "dashed"),
    "ddim": MethodStyle(ORANGE, "o", "solid"),
    "ddpm": MethodStyle(ORANGE, "o", "dotted"),
    "euler": MethodStyle(PURPLE, "s", "solid"),
    "heun": MethodStyle(PURPLE, "s", "dashed"),
    "edm": MethodStyle(PURPLE, "s", "dashdot"),
    "rk45": MethodStyle(GREY, "*", "solid"),
    "rk2-t": MethodStyle(GREY, "v", "dotted"),
    "rk3-t": MethodStyle(GREY, "^", "dotted"),
    "rk2-lambda": MethodStyle(GREY, "v", "dashed"),
    "rk3-lambda": MethodStyle(GREY, "^", "dashed"),
    "rk4": MethodStyle(GREY, "*", "dashed"),
    "dpm-solver-1": MethodStyle(SKY, "D", "dotted"),
    "dpm-solver-2": MethodStyle(SKY, "D", "dashed"),
    "dpm-solver-3": MethodStyle(BLUE, "D", "solid"),
    "dpm-solver-fast": MethodStyle(BLUE, "P", "dashed"),
    "dpm-solver-adaptive": MethodStyle(BLUE, "P", "dotted"),
    "dpm-solver-12": MethodStyle(SKY, "P", "dashdot"),
    "dpm-solver-23": MethodStyle(BLUE, "P", "solid"),
    "dpm-solver++2s": MethodStyle(RED, "<", "dotted"),
    "dpm-solver++3s": MethodStyle(RED, "<", "dashdot"),
    "dpm-solver++2m": MethodStyle(RED, "v", "solid"),
    "dpm-solver++3m": MethodStyle(RED, "^", "solid"),
    "dpm-solver-v3": MethodStyle(RED, "X", "dashed"),
    "unipc-2": MethodStyle(GREEN, "h", "solid"),
    "unipc-3": MethodStyle(GREEN, "h", "dashed"),
    "tab-1": MethodStyle(SKY, ">", "dotted"),
    "tab-2": MethodStyle(SKY, ">", "dashed"),
    "tab-3": MethodStyle(BLUE, ">", "solid"),
    "rho-ab-3": MethodStyle(BLUE, ">", "dashdot"),
    "lambda-ab-3": MethodStyle(BLUE, "H", "dotted"),
    "rho-rk-3": MethodStyle(GREY, "H", "dashed"),
    "frozen-score": MethodStyle(RED, "H", "dashdot"),
    "ipndm": MethodStyle(GREEN, "p", "dotted"),
    "s-pndm": MethodStyle(GREEN, "p", "dashed"),
    "f-pndm": MethodStyle(GREEN, "p", "solid"),
    "fon": MethodStyle(PURPLE, "p", "dashdot"),
    "usf": MethodStyle(BLACK, "d", "solid"),
    "random-search": MethodStyle(GREY, "8", "dotted"),
    "evolution": MethodStyle(ORANGE, "8", "dashed"),
    "predictor-search": MethodStyle(BLUE, "8", "solid"),
    "dpm-solver-v3-1": MethodStyle(RED, "X", "dotted"),
    "bosh3": MethodStyle(SKY, "*", "dashdot"),
    "dopri5": MethodStyle(BLUE, "o", "dashed"),
    "tsit5": MethodStyle(RED, "o", "dashdot"),
    "dopri8": MethodStyle(GREEN, "v", "dashdot"),
    "reversible-heun": MethodStyle(ORANGE, "D", "dashdot"),
    "euler-maruyama": MethodStyle(SKY, "s", "dotted"),
    "milstein": MethodStyle(GREEN, "^", "dashdot"),
    "heun-sde": MethodStyle(PURPLE, "X", "solid"),
    "srid2": MethodStyle(BLACK, "X", "dashdot"),
    "sde": MethodStyle(PURPLE, "d", "dotted"),
    "sde-dpm-solver++2m": MethodStyle(PURPLE, "d", "dashdot"),
}


def method_style(name: str) -> MethodStyle:
    """Style of a method by its name, in any case; a name that the table lacks gets a stable style of its own."""
    key = name.lower()
    if key in METHODS:
        return METHODS[key]
    taken = {(style.marker, style.dash) for style in METHODS.values()}
    free = [pair for pair in itertools.product("oshDPXd8<>Hv^p*", _DASHES) if pair not in taken]
    code = zlib.crc32(key.encode())
    marker, dash = free[code % len(free)]
    return MethodStyle((BLUE, RED, GREEN, ORANGE, PURPLE, SKY)[code // len(free) % 6], marker, dash)


def color(name: str) -> str:
    """Colour of a method, as a hexadecimal string."""
    return method_style(name).color
