"""The book in a real browser: what is drawn, moves and unfolds, with a mouse, with a keyboard and on a phone.

Everything that a page loads from a CDN is answered from npm packages; any other request beyond the book fails the test.
"""

import functools
import mimetypes
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response, Route, expect, sync_playwright

from pdebook import catalogue

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CDN = "https://cdn.jsdelivr.net/npm/"
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
CHAPTERS = [f"chapters/{paper.part}/{paper.slug}" for paper in catalogue.papers() if paper.ready]
PHONE = 390
# The widgets' bundle looks for its icon fonts beside the page; no widget of the book has an icon.
ICON_FONTS = re.compile(r"/@jupyter-widgets/(html-manager/dist/)?\w+\.(woff2?|ttf|eot|svg)")
# What differs from its surroundings by colour alone must differ enough: contrast of text and background as in WCAG 2.
CONTRAST = """(selector) => {
  const channels = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const rgba = channels(getComputedStyle(e).backgroundColor);
      if (rgba.length === 3 || rgba[3] > 0.99) return rgba;
    }
    return [255, 255, 255];
  };
  const opacity = (e) => (e ? +getComputedStyle(e).opacity * opacity(e.parentElement) : 1);
  const bad = [];
  for (const e of document.querySelectorAll(selector)) {
    if (!e.checkVisibility() || !e.textContent.trim()) continue;
    const [ground, share] = [background(e), opacity(e)];
    const ink = channels(getComputedStyle(e).color).map((v, i) => share * v + (1 - share) * ground[i]);
    const [a, b] = [luminance(ink), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${e.tagName}.${e.className} "${e.textContent.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
}"""


@dataclass
class Watch:
    """What went wrong while pages were open."""

    faults: list[str] = field(default_factory=list)

    def response(self, response: Response) -> None:
        if response.status >= 400 and not ICON_FONTS.search(response.url):
            self.faults.append(f"{response.status} {response.url}")

    def error(self, page: Page, error: Exception) -> None:
        self.faults.append(f"{page.url}: {error}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium in the PATH; see .ci/run for how to install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Fails a test on any error of a script, dead link of a page, or request to the outside."""
    watch = Watch()
    yield watch
    assert watch.faults == []


@pytest.fixture
def context(
    browser: Browser, site: str, npm_packages: dict[str, Path], watch: Watch
) -> Iterator[Callable[..., BrowserContext]]:
    """Makes browser contexts that see the book and nothing else."""

    def answer(route: Route) -> None:
        url = route.request.url.partition("?")[0]
        if url.startswith(f"{site}/") or url.startswith("data:"):
            return route.continue_()
        for package, folder in npm_packages.items():
            file = folder / url.removeprefix(f"{CDN}{package}/")
            if url.startswith(f"{CDN}{package}/") and file.is_file():
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                headers = {"access-control-allow-origin": "*", "content-type": kind}
                return route.fulfill(path=file, headers=headers)
        if url == "https://colab.research.google.com/assets/colab-badge.svg":
            return route.fulfill(body="<svg xmlns='http://www.w3.org/2000/svg'/>", content_type="image/svg+xml")
        watch.faults.append(f"request to the outside: {url}")
        return route.abort()

    opened: list[BrowserContext] = []

    def make(width: int = 1280, height: int = 900, **options: object) -> BrowserContext:
        made = browser.new_context(viewport={"width": width, "height": height}, **options)
        made.route("**/*", answer)
        made.on("response", watch.response)
        made.on("page", lambda page: page.on("pageerror", functools.partial(watch.error, page)))
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def page(context: Callable[..., BrowserContext]) -> Page:
    """A page on a desk's screen."""
    return context().new_page()


def visit(page: Page, site: str, name: str) -> None:
    """Open a page of the book and wait until its mathematics is set."""
    page.goto(f"{site}/{name}.html", wait_until="load")
    page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise")
    page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise }")


def test_home_page(page: Page, site: str) -> None:
    page.goto(f"{site}/index.html")
    page.wait_for_url("**/book/intro.html")
    expect(page).to_have_title(re.compile(re.escape(catalogue.book().title)))
    expect(page.locator("article h1").first).to_be_visible()
    for name in CHAPTERS:
        assert page.locator(f'nav a[href*="{name}.html"], article a[href*="{name}.html"]').count()


def test_index_leads_to_the_chapters(page: Page, site: str) -> None:
    for paper in catalogue.papers():
        if paper.ready:
            visit(page, site, "book/chapters")
            page.locator(f'.pde-box[data-slug="{paper.slug}"]').click()
            page.wait_for_url(f"**/chapters/{paper.part}/{paper.slug}.html")
            assert page.title().startswith(paper.title[:20])
    visit(page, site, "book/chapters")
    planned = next(paper for paper in catalogue.papers() if not paper.ready)
    page.locator(f'.pde-box[data-slug="{planned.slug}"]').click()
    expect(page.locator(f"#chapter-{planned.slug.replace('_', '-')}")).to_be_in_viewport()
    assert page.url.endswith(f"#chapter-{planned.slug.replace('_', '-')}")


def test_search_finds_a_chapter(page: Page, site: str) -> None:
    visit(page, site, "book/intro")
    page.keyboard.press("Control+k")
    box = page.locator("#pst-search-dialog input[type=search]")
    expect(box).to_be_visible()
    box.fill("DPM-Solver")
    box.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    result = page.locator('#search-results a[href*="chapters/diffusion/dpm_solver.html"]').first
    expect(result).to_be_visible(timeout=10_000)
    result.click()
    expect(page.locator("article h1").first).to_contain_text("DPM-Solver")
    assert page.url.partition("#")[0].partition("?")[0].endswith("chapters/diffusion/dpm_solver.html")


@pytest.mark.parametrize("name", CHAPTERS)
def test_mathematics_is_set(page: Page, site: str, name: str) -> None:
    visit(page, site, name)
    assert page.locator("article mjx-container").count() >= 10
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    left = page.evaluate("""() => {
        const copy = document.querySelector("article").cloneNode(true);
        copy.querySelectorAll("pre, code, mjx-container, script").forEach((e) => e.remove());
        return copy.textContent.match(/.{0,40}(\\$|\\\\[(\\[]).{0,40}/g);
    }""")
    assert left is None


@pytest.mark.parametrize("name", CHAPTERS)
def test_slider_moves_the_figure(page: Page, site: str, name: str) -> None:
    """Every control of every widget changes the picture, without a kernel."""
    visit(page, site, name)
    widgets = page.locator(".cell_output .jupyter-widgets.widget-vbox:has(.widget-html img)")
    expect(widgets.first).to_be_visible(timeout=20_000)
    for widget in widgets.all():
        picture = widget.locator("img:visible")
        controls = widget.locator(".widget-toggle-buttons, .widget-dropdown, .noUi-handle")
        assert controls.count() >= 1
        for control in controls.all():
            before = picture.get_attribute("src")
            move(control)
            expect(picture).not_to_have_attribute("src", before or "")
            expect(picture).to_have_count(1)


def move(control: Locator) -> None:
    """Choose another option, by click, from the list, or with the keyboard."""
    if "noUi-handle" in (control.get_attribute("class") or ""):
        at_end = float(control.get_attribute("aria-valuenow") or 0) >= float(
            control.get_attribute("aria-valuemax") or 1
        )
        control.press("ArrowLeft" if at_end else "ArrowRight")
    elif control.locator("select").count():
        select = control.locator("select")
        select.select_option(index=1 - min(1, int(select.evaluate("e => e.selectedIndex"))))
    else:
        control.locator("button:not(.mod-active)").first.click()


@pytest.mark.parametrize("name", CHAPTERS)
def test_solutions_unfold_by_click_and_by_keyboard(page: Page, site: str, name: str) -> None:
    visit(page, site, name)
    folds = page.locator("article details.hide")
    assert folds.count() >= 3
    for fold in folds.all():
        code, summary = fold.locator("pre").first, fold.locator("summary")
        expect(summary).to_contain_text(re.compile("Show (a solution|the automatic checks|the code)"))
        expect(code).not_to_be_visible()
        summary.click()
        expect(code).to_be_visible()
        summary.focus()
        page.keyboard.press("Enter")
        expect(code).not_to_be_visible()
        assert summary.evaluate("e => getComputedStyle(e).outlineStyle") != "none", "the focus is seen"


@pytest.mark.parametrize("name", CHAPTERS)
def test_colab_button_opens_this_notebook(page: Page, site: str, name: str) -> None:
    visit(page, site, name)
    page.locator("button[aria-label='Launch interactive content']").click()
    link = page.locator("a[href^='https://colab.research.google.com/github/']:visible", has_text="Colab").first
    expect(link).to_be_visible()
    repository = catalogue.book().repository.removeprefix("https://github.com/")
    path = f"{repository}/blob/v{catalogue.version()}/{name}.ipynb"
    assert link.get_attribute("href") == f"https://colab.research.google.com/github/{path}"


def test_first_tab_skips_to_the_text(page: Page, site: str) -> None:
    visit(page, site, "book/intro")
    page.keyboard.press("Tab")
    expect(page.locator(".skip-link a")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main-content"


def test_citation_can_be_copied(context: Callable[..., BrowserContext], site: str) -> None:
    made = context()
    made.grant_permissions(["clipboard-read", "clipboard-write"])
    page = made.new_page()
    visit(page, site, CHAPTERS[0])
    page.locator(".pde-cite summary").click()
    block = page.locator(".pde-cite .highlight").nth(1)
    block.hover()
    block.locator("button.copybtn").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("@incollection{pdebook-")


def test_dark_mode_is_switched_and_remembered(page: Page, site: str) -> None:
    visit(page, site, "book/intro")
    theme = "document.documentElement.dataset.theme"
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    seen = {}
    for _ in range(3):
        page.locator("button.theme-switch-button:visible").first.click()
        seen[page.evaluate(theme)] = page.evaluate(lightness)
    assert seen["dark"] < 150 < 600 < seen["light"]
    while page.evaluate(theme) != "dark":
        page.locator("button.theme-switch-button:visible").first.click()
    page.reload()
    assert page.evaluate(theme) == "dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(
    context: Callable[..., BrowserContext], site: str, pages: tuple[str, ...], scheme: str
) -> None:
    page = context(color_scheme=scheme).new_page()
    text = (
        "article :is(p, li, a:not(.headerlink), td, th, dt, summary, figcaption, code, label),"
        ".pde-badge, .pde-tools :is(p, a, span, summary)"
    )
    for name in pages:
        visit(page, site, name)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.evaluate(CONTRAST, text) == [], name


def test_nothing_overflows_on_a_phone(
    context: Callable[..., BrowserContext], site: str, pages: tuple[str, ...]
) -> None:
    """With all that is folded unfolded; what is too wide scrolls in a box of its own."""
    page = context(PHONE, 844).new_page()
    for name in pages:
        visit(page, site, name)
        page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true })")
        page.wait_for_timeout(100)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE, f"{name} is {width} pixels wide"
