"""Figures: fixed looks that can be told apart, small deterministic pictures, alternative text, and bad input."""

import base64
import io
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from pdebook import plotting
from pdebook.metrics.order import observed_order

N = [10, 20, 40, 80, 160]


def orders() -> dict[str, Any]:
    return {
        "ddim": observed_order([1.0 / k for k in N], n=N),
        "dpm-solver-3": observed_order([8e-10, 1e-10, 1.25e-11, 8e-12, 9e-12], n=N),
    }


def busy_figure() -> Figure:
    fig, ax = plotting.subplots()
    plotting.convergence(ax, orders(), title="Each solver reaches its order", slopes=(1, 3))
    return fig


def test_methods_can_be_told_apart_without_colour() -> None:
    looks = [(style.marker, style.dash) for style in plotting.METHODS.values()]
    assert len(set(looks)) == len(looks)


def test_colours_are_those_of_okabe_and_ito_and_differ_in_grey() -> None:
    colors = {style.color for style in plotting.METHODS.values()}
    assert colors <= {"#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"}
    assert plotting.color("DDIM") == plotting.color("ddim") == "#E69F00"


def test_an_unknown_method_has_a_stable_look_that_no_known_one_has() -> None:
    known = {(style.marker, style.dash) for style in plotting.METHODS.values()}
    names = [f"my method {i}" for i in range(40)]
    looks = [plotting.method_style(name) for name in names]
    assert looks == [plotting.method_style(name.upper()) for name in names]
    assert not known & {(look.marker, look.dash) for look in looks}
    assert len({(look.marker, look.dash, look.color) for look in looks}) > 30
    assert plotting.method_style("my method 0") == plotting.MethodStyle("#0072B2", "H", "solid")


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_figure_made_twice_has_the_same_bytes_and_no_date(format: Any) -> None:
    first, second = (plotting.encode(busy_figure(), format=format) for _ in range(2))
    assert first == second
    assert len(first) < 60_000
    assert not Image.open(io.BytesIO(first)).info.keys() & {"Software", "Creation Time", "date"}


def test_the_background_is_white_and_the_palette_keeps_the_colours() -> None:
    picture = Image.open(io.BytesIO(plotting.encode(busy_figure()))).convert("RGB")
    assert picture.getpixel((1, 1)) == (255, 255, 255)
    pixels = np.asarray(picture).reshape(-1, 3).astype(int)
    for color in ("#E69F00", "#0072B2"):
        exact = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        assert np.abs(pixels - exact).max(axis=1).min() <= 2


def test_a_figure_shows_alternative_text_caption_and_a_png(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    shown: list[plotting.Picture] = []
    monkeypatch.setattr(plotting, "display", shown.append)
    plotting.figure(busy_figure(), "Errors & orders", 'Two lines, "ddim" falls with slope < 1')
    bundle = shown[0]._repr_mimebundle_()
    assert bundle["text/plain"] == "Figure: Errors & orders"
    assert 'alt="Two lines, &quot;ddim&quot; falls with slope &lt; 1"' in bundle["text/html"]
    assert ">Errors &amp; orders</figcaption>" in bundle["text/html"]
    data = re.search(r"data:image/png;base64,([^\"]+)", bundle["text/html"])
    assert data
    picture = Image.open(io.BytesIO(base64.b64decode(data[1])))
    assert (picture.format, picture.mode, picture.width) == ("PNG", "P", shown[0].width)


def test_a_pyplot_figure_is_closed(monkeypatch: Any) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plotting, "display", lambda picture: None)
    fig = plt.figure()
    plotting.figure(fig, "caption", "alt")
    assert not plt.fignum_exists(fig.number)


def test_labels_at_line_ends_do_not_overlap() -> None:
    fig, ax = plotting.subplots()
    errors = {f"method {i}": ([5, 10, 20], [1.0, 0.1, 0.01 * (1 + i / 50)]) for i in range(6)}
    plotting.error_vs_evaluations(ax, errors, title="Six lines that end together", floor=1e-3)
    fig.canvas.draw()
    names = [text for text in ax.texts if text.get_text().startswith("method")]
    boxes = [text.get_window_extent() for text in names]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert ax.get_legend() is None


def test_round_off_points_are_drawn_hollow_and_off_the_line() -> None:
    _, ax = plotting.subplots()
    plotting.convergence(ax, orders(), title="Round-off is not convergence", labels={"ddim": "DDIM"})
    by_label = {str(item.get_label()): item for item in ax.get_lines()}
    assert len(by_label["dpm-solver-3"].get_xdata()) == 3
    hollow = [item for item in ax.get_lines() if item.get_fillstyle() == "none" and len(item.get_xdata())]
    assert [list(item.get_xdata()) for item in hollow] == [[80, 160]]
    assert "DDIM" in [text.get_text() for text in ax.texts]


def test_letters_are_dark_enough_on_white() -> None:
    def luminance(rgb: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for style in plotting.METHODS.values():
        assert 1.05 / (luminance(plotting._ink(style.color)) + 0.05) >= 4.5


def test_a_mosaic_places_images_by_rows_with_a_gap() -> None:
    _, ax = plotting.subplots()
    batch = torch.arange(5.0)[:, None, None].expand(5, 2, 3)
    plotting.images(ax, batch, title="Five", columns=3)
    mosaic = ax.get_images()[0].get_array()
    assert mosaic is not None
    assert mosaic.shape == (5, 11)
    assert [mosaic[0, 0], mosaic[0, 4], mosaic[0, 8], mosaic[3, 0], mosaic[3, 4]] == [0, 1, 2, 3, 4]
    assert np.ma.getmaskarray(mosaic)[2].all()
    assert np.ma.getmaskarray(mosaic)[3:, 8:].all()


def test_signed_colours_are_centred_at_zero() -> None:
    for draw in (plotting.heatmap, lambda *a, **k: plotting.field(*a, signed=True, **k)):
        _, ax = plotting.subplots()
        draw(ax, torch.tensor([[1.0, 0.0], [-3.0, 2.0]]), title="Signed")
        assert ax.get_images()[0].get_clim() == (-3, 3)


def test_a_field_has_x_to_the_right_and_y_upwards() -> None:
    _, ax = plotting.subplots()
    plotting.field(ax, torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), title="u[x, y]")
    picture = ax.get_images()[0]
    data = picture.get_array()
    assert data is not None
    assert picture.origin == "lower"
    assert data[0].tolist() == [0, 3]


def test_planes_have_equal_axes(device: torch.device) -> None:
    _, axes = plotting.subplots(1, 2)
    plotting.scatter2d(axes[0], torch.zeros(5, 2, device=device), title="Points", limit=2)
    plotting.trajectories(axes[1], torch.zeros(4, 3, 2, device=device), title="Paths")
    assert [ax.get_aspect() for ax in axes] == [1.0, 1.0]
    assert axes[0].get_xlim() == (-2, 2)


def axes() -> Any:
    return plotting.subplots()[1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plotting.images(axes(), torch.zeros(8, 8), title=""), r"batch: expected images of shape \(n, height"),
        (lambda: plotting.scatter2d(axes(), torch.zeros(8, 3), title=""), r"points: expected shape \(n, 2\)"),
        (lambda: plotting.trajectories(axes(), torch.zeros(8, 2), title=""), r"paths: expected shape \(time, n, 2\)"),
        (lambda: plotting.heatmap(axes(), torch.zeros(8), title=""), "matrix: expected two axes"),
        (lambda: plotting.field(axes(), torch.zeros(8), title=""), "values: expected two axes"),
        (lambda: plotting.figure(busy_figure(), " ", "alt"), "caption: expected a text"),
        (lambda: plotting.figure(busy_figure(), "caption", ""), "alt: expected a text"),
    ],
)
def test_bad_input(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
