"""Choices between pictures that were computed beforehand: they move with a kernel and, in the static book, without one.

The pictures lie in an `ipywidgets.Stack`, and the browser itself links the control's index to the picture shown. Where
ipywidgets is too old for `Stack` (version 7, as in Colab), a kernel swaps the picture instead; the call is the same.
"""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import ipywidgets
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from pdebook.plotting import DPI, encode

__all__ = ["MAX_BYTES", "MAX_FRAMES", "choices", "flipbook"]

MAX_FRAMES = 15
MAX_BYTES = 300_000  # of all frames, as they are stored

Frame = Figure | bytes
Control = Literal["auto", "slider", "buttons", "dropdown"]


def flipbook(
    frames: Mapping[str, Frame],
    *,
    label: str,
    alt: str,
    caption: str,
    start: int = 0,
    control: Control = "auto",
    dpi: int = DPI,
) -> ipywidgets.Widget:
    """One picture at a time, chosen by a slider, buttons or a list; the last expression of a cell shows it.

    Args:
        frames: picture by the text of its choice, at most 15: figures of `pdebook.plotting`, or bytes of a PNG or WebP.
            All of one size, or the page jumps.
        label: what is chosen, written before the control.
        alt: what the pictures show, for a reader who hears them; each picture's text adds its own choice.
        caption: text under the picture.
        start: index of the picture shown first.
        control: "auto" takes buttons up to four choices, a slider beyond.
        dpi: resolution of figures.
    Raises:
        ValueError: no frame or too many, more than 300 kB in all, bytes that are no PNG or WebP, or a bad start.
    """
    pictures = _pictures([((name,), frame) for name, frame in frames.items()], (label,), alt, dpi)
    chooser = _control(list(frames), label, start, control)
    return _assemble([chooser], pictures, caption)


def choices(
    frames: Mapping[str, Mapping[str, Frame]],
    *,
    labels: Sequence[str],
    alt: str,
    caption: str,
    start: Sequence[int] = (0, 0),
    controls: Sequence[Control] = ("auto", "auto"),
    dpi: int = DPI,
) -> ipywidgets.Widget:
    """Two choices, every combination of which has its picture; otherwise as `flipbook`.

    Args:
        frames: ``frames[first][second]``; the second choices are the same for each first one.
        labels, start, controls: for the first and the second choice.
        alt, caption, dpi: as in `flipbook`.
    Raises:
        ValueError: as `flipbook`, or a combination is missing.
    """
    for name, values in (("labels", labels), ("start", start), ("controls", controls)):
        if len(values) != 2:
            raise ValueError(f"{name}: expected one for each of the two choices, got {len(values)}")
    names = [list(row) for row in frames.values()]
    if any(row != names[0] for row in names):
        raise ValueError(f"frames: expected the same second choices for each first one, got {names}")
    pairs = [((first, second), frame) for first, row in frames.items() for second, frame in row.items()]
    pictures = _pictures(pairs, tuple(labels), alt, dpi)
    options = (list(frames), names[0])
    choosers = [_control(*item) for item in zip(options, labels, start, controls, strict=True)]
    return _assemble(choosers, pictures, caption)


def _pictures(
    frames: Iterable[tuple[tuple[str, ...], Frame]], labels: tuple[str, ...], alt: str, dpi: int
) -> list[ipywidgets.HTML]:
    """One HTML widget a frame: unlike `ipywidgets.Image`, it carries alternative text."""
    frames = list(frames)
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ValueError(f"frames: expected 1 to {MAX_FRAMES} pictures, got {len(frames)}")
    if not alt.strip():
        raise ValueError("alt: expected a text, got an empty one")
    sources = []
    for names, frame in frames:
        data = encode(frame, format="webp", dpi=dpi) if isinstance(frame, Figure) else frame
        try:
            picture = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            raise ValueError(f"frames: expected a figure or the bytes of a PNG or WebP for {names}") from None
        if picture.format not in ("PNG", "WEBP"):
            raise ValueError(f"frames: expected a PNG or WebP for {names}, got {picture.format}")
        choice = ", ".join(f"{label} {name}" for label, name in zip(labels, names, strict=True))
        sources.append(
            f'<img class="dark-light" alt="{html.escape(f"{alt} ({choice})")}" width="{picture.width}" '
            f'style="max-width:100%;height:auto;background:white" '
            f'src="data:image/{picture.format.lower()};base64,{base64.b64encode(data).decode()}">'
        )
    size = sum(map(len, sources))
    if size > MAX_BYTES:
        raise ValueError(
            f"frames: expected at most {MAX_BYTES // 1000} kB in all, got {size / 1000:.0f} kB; "
            "take fewer or smaller figures, a lower dpi, or fewer points"
        )
    return [ipywidgets.HTML(source, layout=ipywidgets.Layout(max_width="100%")) for source in sources]


def _control(options: list[str], label: str, start: int, kind: str) -> Any:
    """Control with an ``index``, which the browser can link; it can be reached and moved with the keyboard."""
    kinds = {
        "slider": ipywidgets.SelectionSlider,
        "buttons": ipywidgets.ToggleButtons,
        "dropdown": ipywidgets.Dropdown,
    }
    if kind == "auto":
        kind = "buttons" if len(options) <= 4 else "slider"
    if kind not in kinds:
        raise ValueError(f"control: expected auto or one of {sorted(kinds)}, got {kind!r}")
    if not 0 <= start < len(options):
        raise ValueError(f"start: expected an index from 0 to {len(options) - 1}, got {start}")
    style = {"description_width": "initial"} | ({"button_width": "auto"} if kind == "buttons" else {})
    layout = ipywidgets.Layout(width="auto", max_width="30em") if kind == "slider" else ipywidgets.Layout(width="auto")
    return kinds[kind](options=options, index=start, description=label, style=style, layout=layout)


def _assemble(choosers: list[Any], pictures: list[ipywidgets.HTML], caption: str) -> ipywidgets.VBox:
    """Controls above the picture that they choose, caption below."""
    if not caption.strip():
        raise ValueError("caption: expected a text, got an empty one")
    shown = _stacked(choosers, pictures) if hasattr(ipywidgets, "Stack") else _swapped(choosers, pictures)
    legend = ipywidgets.HTML(f'<p style="margin:0">{html.escape(caption)}</p>')
    return ipywidgets.VBox([*choosers, shown, legend], layout=ipywidgets.Layout(width="100%"))


def _stacked(choosers: list[Any], children: list[Any]) -> ipywidgets.Widget:
    """Stack of the children, or stacks within a stack for the second choice, linked in the browser."""
    outer, *inner = choosers
    if inner:
        width = len(inner[0].options)
        children = [_stacked(inner, children[i : i + width]) for i in range(0, len(children), width)]
    stack = ipywidgets.Stack(children, selected_index=outer.index)
    ipywidgets.jslink((outer, "index"), (stack, "selected_index"))
    return stack


def _swapped(choosers: list[Any], pictures: list[ipywidgets.HTML]) -> ipywidgets.Widget:
    """Box whose only child the kernel changes."""
    box = ipywidgets.VBox()

    def show(_: Any = None) -> None:
        index = 0
        for chooser in choosers:
            index = index * len(chooser.options) + chooser.index
        box.children = (pictures[index],)

    for chooser in choosers:
        chooser.observe(show, names="index")
    show()
    return box
