"""The book's figures: how they are drawn, in the looks of ``styles``, and how they are shown.

A figure is made by `subplots`, drawn on by the helpers below or by matplotlib itself, and ended by `figure`, which
shows it with a caption and alternative text in HTML, JupyterLab and Colab alike. The background is white, in dark mode
too.
"""

import base64
import html
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pdebook.metrics.order import ObservedOrder
from pdebook.styles import BLACK, BLUE, DPI, GREY, METHODS, STYLE, MethodStyle, color, method_style

__all__ = [
    "METHODS",
    "STYLE",
    "MethodStyle",
    "Picture",
    "color",
    "convergence",
    "encode",
    "error_vs_evaluations",
    "field",
    "figure",
    "heatmap",
    "images",
    "label_ends",
    "line",
    "method_style",
    "scatter2d",
    "subplots",
    "trajectories",
]

_WIDTH = 5.4  # inches: nearly the text column at 110 dpi, while its letters still read on a phone

Number = float | int


def subplots(rows: int = 1, columns: int = 1, *, height: Number = 3.6, **kwargs: Any) -> tuple[Figure, Any]:
    """Figure of the text column's width and its axes, in the book's style, which stays for what is drawn later.

    The figure is not pyplot's: nothing shows it but `figure`, and nothing must close it.

    Args:
        rows, columns: grid of axes; one is returned as such, several as an array.
        height: in inches; the width is always the text column's.
        kwargs: handed to `Figure.subplots`.
    """
    mpl.rcParams.update(STYLE)
    fig = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, **kwargs)


def encode(fig: Figure, *, format: Literal["png", "webp"] = "png", dpi: int = DPI, colors: int = 256) -> bytes:
    """Figure as a small palette PNG or lossless WebP without date or software: the same bytes on the same machine."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi)
    picture = (
        Image.open(buffer).convert("RGB").quantize(colors, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    result = io.BytesIO()
    if format == "png":
        picture.save(result, "PNG", optimize=True)
    else:
        picture.convert("RGB").save(result, "WEBP", lossless=True, quality=100, method=4)
    return result.getvalue()


@dataclass(frozen=True)
class Picture:
    """PNG with caption and alternative text, as a notebook shows it: HTML with the picture inside, and plain text.

    The plain text, the caption, is the same on every machine and may be compared; the HTML is not.
    """

    png: bytes
    caption: str
    alt: str
    width: int

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        data = base64.b64encode(self.png).decode()
        # `dark-light` asks the book's theme to leave the picture as it is in dark mode.
        picture = (
            f'<figure style="margin:0 0 1em 0"><img class="dark-light" width="{self.width}" '
            f'alt="{html.escape(self.alt)}" '
            f'style="max-width:100%;height:auto;background:white" src="data:image/png;base64,{data}">'
            # The theme's pale caption would vanish on the light box that it puts behind HTML in dark mode.
            f'<figcaption style="color:inherit;text-align:left">{html.escape(self.caption)}</figcaption></figure>'
        )
        return {"text/html": picture, "text/plain": f"Figure: {self.caption}"}


def figure(fig: Figure, caption: str, alt: str, *, dpi: int = DPI) -> None:
    """Show a figure with a caption under it and alternative text for those who don't see it, and close it.

    Args:
        fig: of `subplots`, or any matplotlib figure.
        caption: what is shown, with the conditions that it holds under.
        alt: what the picture says, for a reader who hears it: the kind of plot, the axes, the finding.
        dpi: pixels per inch; the picture is shown at its natural size.
    Raises:
        ValueError: the caption or the alternative text is empty.
    """
    for name, text in (("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"{name}: expected a text, got an empty one")
    png = encode(fig, dpi=dpi)
    display(Picture(png, caption, alt, Image.open(io.BytesIO(png)).width))
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(fig)


def line(
    ax: Axes, name: str, x: Iterable[Number], y: Iterable[Number], *, label: str | None = None, **kwargs: Any
) -> None:
    """Line of one method in its own colour, marker and dash; `label_ends` writes the label at its end."""
    ax.plot(_array(x), _array(y), label=label or name, **{**method_style(name).kwargs, **kwargs})


def label_ends(ax: Axes, *, side: Literal["left", "right"] = "right") -> None:
    """Write each line's name at its end, in its colour, moved apart where names would overlap: no legend to look up."""
    lines = [item for item in ax.get_lines() if not str(item.get_label()).startswith("_")]
    if not lines:
        return
    ax.autoscale_view()  # limits are stale until something asks for them
    ends = []
    for item in lines:
        points = np.column_stack([item.get_xdata(), item.get_ydata()])
        points = points[np.isfinite(points).all(axis=1)]
        ends.append(points[-1 if side == "right" else 0])
    order = sorted(range(len(lines)), key=lambda i: ends[i][1])
    # Axes coordinates of the final layout: a name is about one font size high.
    to_axes = ax.transData + ax.transAxes.inverted()
    figure_height = ax.figure.get_figure(root=True).get_size_inches()[1]
    gap = 1.25 * mpl.rcParams["xtick.labelsize"] / 72 / (figure_height * ax.get_position().height)
    heights = np.array([to_axes.transform(ends[i])[1] for i in order])
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    heights -= max(0.0, (heights[-1] - 1.02)) if len(heights) * gap < 1 else 0.0
    for i, height in zip(order, heights, strict=True):
        where = ax.transAxes.inverted().transform(ax.transData.transform(ends[i]))[0]
        ax.annotate(
            str(lines[i].get_label()),
            (where, height),
            xycoords="axes fraction",
            xytext=(6 if side == "right" else -6, 0),
            textcoords="offset points",
            color=_ink(lines[i].get_color()),
            ha="left" if side == "right" else "right",
            va="center",
            fontsize=10.5,
            annotation_clip=False,
        )


def convergence(
    ax: Axes,
    results: Mapping[str, ObservedOrder],
    *,
    title: str,
    labels: Mapping[str, str] | None = None,
    slopes: Sequence[Number] = (),
    xlabel: str = "steps",
    ylabel: str = "error",
) -> None:
    """Error against resolution, both logarithmic; points at the round-off floor are hollow and off their line.

    Args:
        results: of `pdebook.metrics.order.observed_order`, by method.
        title: the figure's message.
        labels: text at the line's end instead of the method's name.
        slopes: orders whose reference triangles are drawn, each under the line that has about this order.
    """
    for name, result in results.items():
        used = np.array(result.used)
        n, errors = np.array(result.n), np.array(result.errors)
        line(ax, name, n[used], errors[used], label=(labels or {}).get(name))
        style = method_style(name)
        ax.plot(n[~used], errors[~used], linestyle="none", marker=style.marker, color=style.color, fillstyle="none")
    _logarithmic(ax, title, xlabel, ylabel)
    ticks = sorted({n for result in results.values() for n in result.n})
    _plain_ticks(ax, ticks)
    for slope in slopes:
        _triangle(ax, min(results.values(), key=lambda result: abs(result.order - slope)), slope)
    label_ends(ax)


def error_vs_evaluations(
    ax: Axes,
    errors: Mapping[str, tuple[Iterable[Number], Iterable[Number]]],
    *,
    title: str,
    labels: Mapping[str, str] | None = None,
    floor: Number | None = None,
    xlabel: str = "network evaluations",
    ylabel: str = "error",
) -> None:
    """Error against budget for several methods, both logarithmic, with the methods' names at the ends of the lines.

    Args:
        errors: (evaluations, errors) by method.
        title: the figure's message.
        labels: text at the line's end instead of the method's name.
        floor: level below which errors say nothing, drawn as a grey band.
    """
    for name, (evaluations, values) in errors.items():
        line(ax, name, evaluations, values, label=(labels or {}).get(name))
    _logarithmic(ax, title, xlabel, ylabel)
    _plain_ticks(ax, sorted({float(x) for evaluations, _ in errors.values() for x in evaluations}))
    if floor is not None:
        bottom = min(ax.get_ylim()[0], floor / 2)
        ax.axhspan(bottom / 10, floor, color="#EEEEEE", zorder=0)
        ax.set_ylim(bottom=bottom)
        ax.annotate(
            "sampling floor", (0.01, floor), xycoords=("axes fraction", "data"), va="top", fontsize=9, color="#555555"
        )
    label_ends(ax)


def images(
    ax: Axes,
    batch: Tensor,
    *,
    title: str,
    columns: int | None = None,
    low: Number | None = None,
    high: Number | None = None,
) -> None:
    """Mosaic of grey images with a thin gap between them.

    Args:
        batch: (n, height, width).
        title: the figure's message.
        columns: images in a row, by default a square.
        low, high: values shown black and white, by default the batch's extremes.
    """
    if batch.ndim != 3 or not len(batch):
        raise ValueError(f"batch: expected images of shape (n, height, width), got {tuple(batch.shape)}")
    values = _array(batch)
    n, height, width = values.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    mosaic = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, image in enumerate(values):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        mosaic[top : top + height, left : left + width] = image
    ax.imshow(np.ma.masked_invalid(mosaic), cmap="gray", vmin=low, vmax=high)
    ax.set_title(title)
    ax.set_axis_off()


def scatter2d(
    ax: Axes, points: Tensor, *, title: str, color: str = BLUE, limit: Number | None = None, label: str | None = None
) -> None:
    """Points (n, 2) of the plane with equal axes; more points are drawn smaller and paler."""
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points: expected shape (n, 2), got {tuple(points.shape)}")
    x = _array(points)
    weight = min(1.0, (300 / max(len(x), 1)) ** 0.5)
    ax.scatter(x[:, 0], x[:, 1], s=14 * weight, alpha=max(0.25, weight), color=color, linewidths=0, label=label)
    _plane(ax, title, limit)


def trajectories(
    ax: Axes, paths: Tensor, *, title: str, color: str = BLUE, limit: Number | None = None, marker: str = "."
) -> None:
    """Paths (time, n, 2) in the plane: a pale line each, hollow start, full end."""
    if paths.ndim != 3 or paths.shape[2] != 2:
        raise ValueError(f"paths: expected shape (time, n, 2), got {tuple(paths.shape)}")
    x = _array(paths)
    ax.plot(x[..., 0], x[..., 1], color=color, linewidth=0.9, alpha=0.6, marker=marker, markersize=3)
    ax.plot(x[0, :, 0], x[0, :, 1], linestyle="none", marker="o", markersize=5, color=GREY, fillstyle="none")
    ax.plot(x[-1, :, 0], x[-1, :, 1], linestyle="none", marker="o", markersize=4, color=BLACK)
    _plane(ax, title, limit)


def heatmap(
    ax: Axes,
    matrix: Tensor,
    *,
    title: str,
    xlabel: str = "",
    ylabel: str = "",
    limit: Number | None = None,
    annotate: bool = False,
) -> None:
    """Signed matrix, white at zero, red above and blue below; entries that are exactly zero or NaN stay white.

    Args:
        matrix: (rows, columns).
        title: the figure's message.
        limit: value of full colour, by default the largest size of an entry.
        annotate: write the entries, to two digits.
    """
    if matrix.ndim != 2:
        raise ValueError(f"matrix: expected two axes, got shape {tuple(matrix.shape)}")
    values = _array(matrix)
    limit = float(np.nanmax(np.abs(values))) if limit is None else limit
    picture = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    ax.figure.colorbar(picture, ax=ax, fraction=0.05, pad=0.02)
    for i, j in np.argwhere(np.isfinite(values) & (values != 0)) if annotate else ():
        shade = "white" if abs(values[i, j]) > 0.6 * limit else "black"
        ax.text(j, i, f"{values[i, j]:.2g}", ha="center", va="center", fontsize=8, color=shade)
    ax.grid(visible=False)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)


def field(
    ax: Axes,
    values: Tensor,
    *,
    title: str,
    extent: tuple[Number, Number, Number, Number] | None = None,
    signed: bool = False,
    xlabel: str = "x",
    ylabel: str = "y",
) -> None:
    """Scalar field ``u[x, y]`` on a grid, first axis to the right and second upwards, with its colour bar.

    Args:
        values: (x, y).
        title: the figure's message.
        extent: left, right, bottom, top, in the units of the axes.
        signed: diverging colours around zero instead of a ramp that is also monotone in grey.
    """
    if values.ndim != 2:
        raise ValueError(f"values: expected two axes, got shape {tuple(values.shape)}")
    data = _array(values).T
    limit = float(np.nanmax(np.abs(data)))
    range_ = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "cividis"}
    picture = ax.imshow(data, origin="lower", extent=extent, **range_)
    ax.figure.colorbar(picture, ax=ax, fraction=0.046, pad=0.03)
    ax.grid(visible=False)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)


def _array(values: Any) -> np.ndarray:
    """NumPy array of a tensor on any device, or of anything else."""
    if isinstance(values, Tensor):
        return values.detach().to("cpu", torch.float64).numpy()
    return np.asarray(list(values) if not isinstance(values, np.ndarray) else values, dtype=float)


def _ink(color: Any) -> tuple[float, ...]:
    """The colour, darkened until letters in it have a contrast of 4.5 : 1 on white (WCAG 2, level AA)."""
    rgb = np.array(mpl.colors.to_rgb(color))

    def contrast(shade: np.ndarray) -> float:
        linear = np.where(shade <= 0.04045, shade / 12.92, ((shade + 0.055) / 1.055) ** 2.4)
        return 1.05 / (float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)

    while contrast(rgb) < 4.5:
        rgb = 0.95 * rgb
    return tuple(rgb.tolist())


def _logarithmic(ax: Axes, title: str, xlabel: str, ylabel: str) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)


def _plain_ticks(ax: Axes, values: list[float]) -> None:
    """Ticks at the values themselves, thinned until they don't touch, instead of powers of ten."""
    kept: list[float] = []
    for value in values:
        if not kept or value / kept[-1] >= (values[-1] / values[0]) ** (1 / 8) * 0.999:
            kept.append(value)
    ax.set_xticks(kept, [f"{value:g}" for value in kept])
    ax.set_xticks([], minor=True)


def _plane(ax: Axes, title: str, limit: Number | None) -> None:
    ax.set_aspect("equal")
    if limit is not None:
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
    ax.set(title=title, xlabel="x₁", ylabel="x₂")


def _triangle(ax: Axes, result: ObservedOrder, slope: Number) -> None:
    """Reference triangle of a given slope under the finest half of a line."""
    last = sum(result.used) - 1
    left, right = result.n[max(last - 2, 0)], result.n[max(last - 1, 1)]
    top = result.fitted(left) / 3
    bottom = top * (left / right) ** slope
    ax.plot([left, left, right, left], [top, bottom, bottom, top], color="#555555", linewidth=1, label="_triangle")
    ax.annotate(f"{slope:g}", (left, math.sqrt(top * bottom)), xytext=(-4, 0), textcoords="offset points", ha="right",
                va="center", fontsize=9, color="#555555")  # fmt: skip
