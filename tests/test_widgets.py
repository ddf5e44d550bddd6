"""Widgets: which picture a choice shows, with `Stack` and without, what a static page stores, and bad input."""

import io
import re
from collections.abc import Callable
from typing import Any

import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from pdebook import plotting, widgets

FRAMES = [f"frame {i}" for i in range(6)]


def png(value: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("P" if format != "JPEG" else "L", (20, 10), value).save(buffer, format)
    return buffer.getvalue()


def flip(**kwargs: Any) -> Any:
    frames = {name: png(i) for i, name in enumerate(FRAMES)}
    return widgets.flipbook(frames, **{"label": "steps", "alt": "A square", "caption": "Squares & co", **kwargs})


def two(**kwargs: Any) -> Any:
    frames = {a: {b: png(3 * i + j) for j, b in enumerate("xyz")} for i, a in enumerate("ab")}
    return widgets.choices(frames, **{"labels": ("letter", "axis"), "alt": "A square", "caption": "Two", **kwargs})


def visible(widget: Any) -> str:
    """Alternative text of the picture that the browser shows."""
    while not isinstance(widget, ipywidgets.HTML):
        index = widget.selected_index if hasattr(widget, "selected_index") else 0
        widget = widget.children[index]
    return re.search(r'alt="([^"]*)"', widget.value)[1]  # type: ignore[index]


@pytest.fixture(params=["with Stack", "without Stack"])
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "without Stack":
        monkeypatch.delattr(ipywidgets, "Stack")
    return request.param == "with Stack"


def browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in Python what the browser does with a link: it keeps the two traits equal."""
    monkeypatch.setattr(ipywidgets, "jslink", ipywidgets.link)


def test_the_slider_chooses_the_picture(stack: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(monkeypatch)
    box = flip(start=2)
    slider, shown, caption = box.children
    assert isinstance(slider, ipywidgets.SelectionSlider)
    assert hasattr(shown, "selected_index") == stack
    assert visible(shown) == "A square (steps frame 2)"
    for i, name in enumerate(FRAMES):
        slider.index = i
        assert visible(shown) == f"A square (steps {name})"
        assert slider.label == name
    assert "Squares &amp; co" in caption.value


def test_two_choices_show_each_combination(stack: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(monkeypatch)
    first, second, shown, _ = two(start=(1, 2)).children
    assert isinstance(first, ipywidgets.ToggleButtons)
    assert visible(shown) == "A square (letter b, axis z)"
    for i, a in enumerate("ab"):
        for j, b in enumerate("xyz"):
            first.index, second.index = i, j
            assert visible(shown) == f"A square (letter {a}, axis {b})"


def test_the_links_are_the_browsers_and_none_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[Any] = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda a, b: links.append((a, b)))
    first, second, shown, _ = two().children
    expected = [((second, "index"), (inner, "selected_index")) for inner in shown.children]
    assert links == [*expected, ((first, "index"), (shown, "selected_index"))]


def test_figures_become_webp_and_bytes_stay_what_they_are() -> None:
    fig, ax = plotting.subplots(height=2)
    ax.plot([1, 2])
    _, shown, _ = widgets.flipbook(
        {"1": fig, "2": png(1, "WEBP"), "3": png(2)}, label="n", alt="Line", caption="Line"
    ).children
    kinds = [re.search(r"data:image/(\w+);", child.value)[1] for child in shown.children]  # type: ignore[index]
    assert kinds == ["webp", "webp", "png"]
    assert all("max-width:100%" in child.value for child in shown.children)


@pytest.mark.parametrize(
    ("control", "kind"),
    [
        ("slider", "SelectionSlider"),
        ("buttons", "ToggleButtons"),
        ("dropdown", "Dropdown"),
        ("auto", "SelectionSlider"),
    ],
)
def test_controls(control: str, kind: str) -> None:
    chooser = flip(control=control).children[0]
    assert type(chooser).__name__ == kind
    assert chooser.description == "steps"
    assert "index" in chooser.keys  # a trait that the browser knows


@pytest.mark.slow
def test_a_stored_notebook_holds_all_that_a_static_page_needs() -> None:
    code = (
        "import io\nfrom PIL import Image\nfrom pdebook import widgets\n"
        "def png(i):\n    b = io.BytesIO(); Image.new('P', (20, 10), i).save(b, 'PNG'); return b.getvalue()\n"
        "widgets.flipbook({str(i): png(i) for i in range(5)}, label='n', alt='Square', caption='Squares')"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, store_widget_state=True, kernel_name="python3").execute()
    state = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    models = {key: value["state"] for key, value in state.items()}
    (link,) = [m for m in models.values() if m.get("_model_name") == "LinkModel"]
    source, target = (models[end[0].removeprefix("IPY_MODEL_")] for end in (link["source"], link["target"]))
    assert (source["_model_name"], link["source"][1]) == ("SelectionSliderModel", "index")
    assert (target["_model_name"], link["target"][1]) == ("StackModel", "selected_index")
    pictures = [models[child.removeprefix("IPY_MODEL_")] for child in target["children"]]
    assert sum("data:image/png;base64," in picture["value"] for picture in pictures) == 5
    (output,) = notebook.cells[0].outputs
    assert output.data["text/plain"].startswith("VBox(children=(SelectionSlider(description='n'")
    assert " at 0x" not in output.data["text/plain"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: widgets.flipbook({}, label="n", alt="a", caption="c"), "frames: expected 1 to 15 pictures, got 0"),
        (
            lambda: widgets.flipbook({str(i): png(0) for i in range(16)}, label="n", alt="a", caption="c"),
            "frames: expected 1 to 15 pictures, got 16",
        ),
        (
            lambda: widgets.flipbook({"a": png(0) + bytes(250_000)}, label="n", alt="a", caption="c"),
            "frames: expected at most 300 kB in all, got 334 kB",
        ),
        (lambda: widgets.flipbook({"a": b"no picture"}, label="n", alt="a", caption="c"), "bytes of a PNG or WebP"),
        (lambda: widgets.flipbook({"a": png(0, "JPEG")}, label="n", alt="a", caption="c"), "got JPEG"),
        (lambda: flip(start=6), "start: expected an index from 0 to 5, got 6"),
        (lambda: flip(alt=" "), "alt: expected a text"),
        (lambda: flip(caption=""), "caption: expected a text"),
        (lambda: two(labels=("one",)), "labels: expected one for each of the two choices, got 1"),
        (
            lambda: widgets.choices({"a": {"x": png(0)}, "b": {"y": png(0)}}, labels=("l", "m"), alt="a", caption="c"),
            "frames: expected the same second choices",
        ),
    ],
)
def test_bad_input(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
