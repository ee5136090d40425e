"""The page in a browser, over a service that runs in a process of its own and two small trained models."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from page_help import CONTRAST, UNNAMED
from serve_help import running

import hashlgn
from conftest import clusters
from hashlgn.inference.recommender import Recommender
from hashlgn.serve.keys import create_key

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
if CHROMIUM is None:
    pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)
if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # nobody else can be reached
GENRES = ("Comedy", "Drama", "War", "Western")
ORIGINS: set[str] = set()  # the services of these tests
WAIT = 20_000  # milliseconds that a busy machine may take


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models lie."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Recommender]:
    """Two models of the same data, by the names that the service gives them."""
    data = clusters(n_users=120)
    titles = [f"{GENRES[number % 4]} of the year {1950 + number}" for number in range(40)]
    data = replace(data, titles=titles, genres=[(GENRES[number % 4],) for number in range(40)])
    few = {f"student.{stage}": 1 for stage in ("distillation_epochs", "code_epochs", "settle_epochs")}
    few |= {"student.epochs": 4}
    found = {}
    for name, bits in (("first", 16), ("second", 32)):
        model = hashlgn.HashLGN(bits, history_bits=16, dim=8, config=few, threads=1)
        model.fit(data, progress=False).save(folder / f"{name}.safetensors")
        found[name] = hashlgn.load(folder / f"{name}.safetensors", threads=1)
    return found


@contextmanager
def served(*arguments: Any) -> Iterator[str]:
    """The address of a service, which pages may ask."""
    with running(*arguments) as service:
        ORIGINS.add(f"http://127.0.0.1:{service.port}/")
        yield f"http://127.0.0.1:{service.port}/"


@pytest.fixture(scope="module")
def url(models: dict[str, Recommender], folder: Path) -> Iterator[str]:
    """A service with both models, to which nobody needs a key."""
    with served(folder / "first.safetensors", folder / "second.safetensors") as url:
        yield url


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    """A browser that reaches nobody but the services, and in which no page may ask anybody else."""
    asked: list[str] = []
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": 1100, "height": 700}, color_scheme="light")
        context.set_default_timeout(WAIT)
        context.on("request", lambda request: asked.append(request.url))
        yield context
        browser.close()
    assert asked and [url for url in asked if not url.startswith(tuple(ORIGINS))] == []


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page in which no error may happen that nobody handles."""
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors


def opened(page: Page, url: str, view: str = "") -> Page:
    """The page once the service has answered."""
    page.goto(f"{url}{view}")
    api.expect(page.locator("#status")).to_have_attribute("data-state", "good", timeout=WAIT)
    return page


def titles(page: Page, column: int = 0) -> list[str]:
    """The titles of a column of answers, once it is there and not being asked anew."""
    page.wait_for_selector("#columns:not([aria-busy]) .column:not(.waiting)")
    return page.locator(".column").nth(column).locator(".answers-list .title").all_inner_texts()


def guest(*items: Any, **more: Any) -> str:
    """The address of a guest who has these items."""
    return "#recommend?" + "&".join([*(f"guest={item}" for item in items), *(f"{k}={v}" for k, v in more.items())])


def expected(model: Recommender, **asked: Any) -> list[str]:
    return list(model.recommend(**{"k": 10, **asked})["title"])


def test_a_guest_searches_titles_and_is_answered(page: Page, url: str, models: dict[str, Recommender]) -> None:
    field = opened(page, url).get_by_label("Add a title to the history")
    for words, title in (("war 1952", "War of the year 1952"), ("western", "Western of the year 1953")):
        field.fill(words)
        page.get_by_role("option", name=title).click()
    api.expect(page.locator("#history .title")).to_have_text(["War of the year 1952", "Western of the year 1953"])
    api.expect(page.locator("#columns")).not_to_have_attribute("aria-busy", "true")
    api.expect(page.locator(".answers-list .title")).to_have_text(expected(models["first"], history=[3, 4]))
    page.get_by_role("button", name="Remove War of the year 1952").click()
    api.expect(page.locator(".answers-list .title")).to_have_text(expected(models["first"], history=[4]))
    page.get_by_role("button", name="Clear").click()
    api.expect(page.locator(".column .badge")).to_have_text("popular")


def test_every_answer_says_why(page: Page, url: str) -> None:
    opened(page, url, guest(3))
    assert len(titles(page)) == 10
    reasons = page.locator(".why li")
    assert reasons.count() == 10
    for text in reasons.all_inner_texts():  # a history of one item is all of the score
        assert text.split("\n") == ["War of the year 1952", "100%"]
    page.goto(f"{url}{guest(3, 7, 4)}")
    api.expect(page.locator("#history li")).to_have_count(3)
    api.expect(page.locator(".why").first.locator("li")).to_have_count(3)
    first = page.locator(".why").first.locator("li").all_inner_texts()
    shares = [float(text.split("\n")[1].rstrip("%").replace("−", "-")) for text in first]
    assert (
        len(first) == 3
        and shares == sorted(shares, key=abs, reverse=True)
        and sum(shares) == pytest.approx(100, abs=1.6)
    )


def test_a_user_of_the_training(page: Page, url: str, models: dict[str, Recommender]) -> None:
    opened(page, url)
    page.get_by_text("A user", exact=True).click()
    page.get_by_label("User", exact=True).fill("1007")
    page.get_by_role("button", name="Show", exact=True).click()
    api.expect(page.locator(".answers-list .title")).to_have_text(expected(models["first"], users=[1007]))
    model = models["first"].model
    seen = model.seen[1][model.seen[0][7] : model.seen[0][8]]
    assert page.locator("#history li").count() == min(12, len(seen))
    assert all(title.startswith("Western") for title in page.locator("#history .title").all_inner_texts())
    page.get_by_label("User", exact=True).fill("4711")
    page.get_by_role("button", name="Show", exact=True).click()
    api.expect(page.locator("#history-hint")).to_have_text("Nothing is known of this user.")
    api.expect(page.locator(".column .badge")).to_have_text("popular")


def test_the_slider_of_the_probability(page: Page, url: str, models: dict[str, Recommender]) -> None:
    opened(page, url, guest(3, 7))
    page.get_by_text("All above", exact=True).click()
    sizes = []
    for percent in (1, 20, 90):
        page.get_by_label("Probability above").fill(str(percent))
        want = expected(models["first"], history=[3, 7], k=None, threshold=percent / 100, calibrated=True)
        api.expect(page.locator(".answers-list .title")).to_have_text(want)
        sizes.append(len(want))
    assert sizes[0] > sizes[1] > sizes[2] == 0
    api.expect(page.locator(".column .none")).to_contain_text("above 90%")


def test_two_models_side_by_side(page: Page, url: str, models: dict[str, Recommender]) -> None:
    opened(page, url, guest(3, 4))
    page.get_by_label("Compare with").select_option("second")
    api.expect(page.locator(".column h2")).to_have_text(["first", "second"])
    for column, model in enumerate(models.values()):
        assert titles(page, column) == expected(model, history=[3, 4])
    left, right = (page.locator(".column").nth(number).bounding_box() for number in (0, 1))
    assert left and right and left["y"] == right["y"] and left["x"] + left["width"] < right["x"]


def test_what_filters_leave_out(page: Page, url: str, models: dict[str, Recommender]) -> None:
    opened(page, url, guest(3, 7))
    hidden = titles(page)[0]
    page.get_by_role("button", name=f"Hide {hidden}").click()
    api.expect(page.locator("#hidden-items")).to_contain_text(hidden)
    api.expect(page.locator(".answers-list .title").first).not_to_have_text(hidden)
    page.locator(".left summary").click()
    left = dict(text.split("\n")[:2] for text in page.locator(".left li").all_inner_texts())
    assert left[hidden].endswith("hidden by you")
    everything = expected(models["first"], history=[3, 7], filter_seen=False)
    for title in ("War of the year 1952", "War of the year 1956"):
        assert (title in left) == (title in everything)
        assert title not in left or left[title].endswith("in the history")
    page.get_by_text("Leave out what is in the history").click()
    api.expect(page.locator(".answers-list")).to_contain_text("War of the year 1952")
    page.get_by_label("Only items with").fill("genre=Western,Drama")
    api.expect(page.locator(".answers-list small").first).to_have_text(re.compile("Western|Drama"))
    api.expect(page.locator("#columns")).not_to_have_attribute("aria-busy", "true")
    model = models["first"].model
    of_genre = [title.split()[0] in ("Western", "Drama") for title in model.titles or ()]
    wanted = model.item_ids.decode(np.flatnonzero(of_genre))
    found = expected(models["first"], history=[3, 7], filter_seen=False, allow=wanted, k=11)
    assert titles(page) == [title for title in found if title != hidden][:10]
    page.locator(".left summary").click()
    api.expect(page.locator(".left li small").first).to_contain_text("not genre=Western,Drama")
    page.get_by_label("Only items with").fill("shape=round")  # no attribute has this name
    api.expect(page.locator(".column .refused")).to_contain_text("genre")


def test_an_item_with_its_bits_and_neighbours(page: Page, url: str, models: dict[str, Recommender]) -> None:
    opened(page, url, guest(3))
    title = page.locator(".answers-list .title").first
    title.click()
    dialog = page.get_by_role("dialog")
    near = dialog.locator(".rows .title")
    item = int(models["first"].recommend(history=[3], k=1)["item"][0])
    api.expect(near).to_have_text(list(models["first"].similar_items([item], k=12)["title"]))
    code = models["first"].model.items.packed[models["first"].model.item_ids.encode([item])[0]]
    drawn = dialog.locator(".bits").first.locator("i").evaluate_all("all => all.map(one => +(one.className === 'on'))")
    assert drawn == [byte >> place & 1 for byte in code.tolist() for place in range(8)]
    near.first.hover()
    api.expect(dialog.locator(".code .hint").first).to_contain_text("of 4 sub-codes")
    page.keyboard.press("Escape")
    api.expect(dialog).to_be_hidden()
    api.expect(title).to_be_focused()


def test_everything_by_keyboard(page: Page, url: str, models: dict[str, Recommender]) -> None:
    opened(page, url)
    titles(page)

    def tab_to(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "() => { const one = document.activeElement; return one.id || one.ariaLabel || one.innerText; }"
            )
            if focused == name:
                return
        raise AssertionError(f"no key leads to {name}")

    page.keyboard.press("Tab")
    api.expect(page.locator(".skip")).to_be_focused()
    assert page.locator(".skip").evaluate("one => getComputedStyle(one).outlineStyle") != "none"
    page.keyboard.press("Enter")
    tab_to("search")
    page.keyboard.type("war", delay=5)
    api.expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    chosen = page.locator("[role=option][aria-selected=true] span").inner_text()
    page.keyboard.press("Enter")
    api.expect(page.locator("#history .title")).to_have_text([chosen])
    tab_to("k")
    page.keyboard.press("Home")
    api.expect(page.locator(".answers-list .title")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    api.expect(page.locator(".answers-list .title")).to_have_count(2)
    hidden, follows = titles(page)
    tab_to(f"Hide {hidden}")
    page.keyboard.press("Enter")
    api.expect(page.get_by_role("button", name=f"Hide {follows}")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    api.expect(page.get_by_role("button", name=follows, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    api.expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    api.expect(page.locator("#said")).to_have_text("2 recommendations from first")


def test_the_map_is_drawn_moved_and_asked(page: Page, url: str) -> None:
    opened(page, url, "#map")
    api.expect(page.locator("#middle li")).to_have_count(8)
    picture = "() => document.getElementById('canvas').toDataURL()"
    pixels = """() => { const {width, height} = document.getElementById('canvas');
      const all = document.getElementById('canvas').getContext('2d').getImageData(0, 0, width, height).data;
      return new Set(new Uint32Array(all.buffer)).size; }"""
    page.wait_for_function(pixels)
    assert page.evaluate(pixels) > len(GENRES)
    for key in ("+", "ArrowLeft"):
        before = page.evaluate(picture)
        page.locator("#canvas").press(key)
        page.wait_for_function(f"before => ({picture})() !== before", arg=before)
    page.locator("#legend").get_by_role("button", name="War").click()
    api.expect(page.locator("#middle small")).to_have_text(["War"] * 8)
    page.locator("#canvas").press("Enter")
    api.expect(page.get_by_role("dialog").locator("h2")).to_contain_text("War of the year")


def test_live_figures(page: Page, url: str) -> None:
    opened(page, url, "#live")
    card = page.locator(".figure", has_text="Requests since the start").locator(".value")
    before = int(card.inner_text().replace(",", ""))
    page.wait_for_function(
        "before => [...document.querySelectorAll('.figure')].some(one => one.innerText.includes('since the start') && "
        "+one.querySelector('.value').innerText.replace(/,/g, '') > before)",
        arg=before,
    )
    api.expect(page.locator("#live-models tbody tr")).to_have_count(2)
    api.expect(page.locator(".figure", has_text="Median latency")).to_contain_text("ms")


def test_no_width_scrolls_sideways(page: Page, url: str) -> None:
    opened(page, url, guest(3, 4, b="second"))
    titles(page, 1)
    wide = """() => [document.documentElement, document.getElementById('item')]
      .filter(one => one.scrollWidth > one.clientWidth).map(one => [one.scrollWidth, innerWidth])"""
    widths = (360, 768, 1600)

    def fits(width: int) -> None:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(wide) == []

    for width in widths:
        fits(width)
    page.locator(".answers-list .title").first.click()
    api.expect(page.locator(".bits").first).to_be_visible()
    for width in widths:
        fits(width)
    page.keyboard.press("Escape")
    for view in ("Map", "Live"):
        page.get_by_role("link", name=view).click()
        api.expect(page.get_by_role("link", name=view)).to_have_attribute("aria-current", "page")
        for width in widths:
            fits(width)


def test_both_themes_can_be_read_and_controls_have_names(page: Page, url: str) -> None:
    opened(page, url, guest(3, b="second"))
    titles(page, 1)
    ground = "() => getComputedStyle(document.body).backgroundColor"
    levels = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme="light" if theme == "dark" else "dark")
        page.get_by_role("button", name="Theme").click()
        api.expect(page.locator("#theme")).to_have_attribute("aria-label", f"Theme: {theme}")
        levels.append(sum(map(int, re.findall(r"\d+", page.evaluate(ground)))))
        assert page.evaluate(CONTRAST) == []
    assert levels[0] > 600 > 150 > levels[1]
    assert page.evaluate(UNNAMED) == []
    page.reload()  # the choice is kept
    api.expect(page.locator("#theme")).to_have_attribute("aria-label", "Theme: dark")
    page.get_by_role("button", name="Theme").click()  # for the tests that follow: the system's
    api.expect(page.locator("#theme")).to_have_attribute("aria-label", "Theme: system")
    assert sum(map(int, re.findall(r"\d+", page.evaluate(ground)))) > 600


def test_a_service_that_is_away_and_comes_back(page: Page, url: str) -> None:
    opened(page, url, guest(3))
    titles(page)
    page.context.set_offline(True)
    page.get_by_role("button", name="Clear").click()
    api.expect(page.get_by_role("alert")).to_contain_text("The service is away")
    api.expect(page.locator("#columns .column")).to_have_count(0)  # nothing that is no answer
    page.context.set_offline(False)
    api.expect(page.get_by_role("alert")).to_be_hidden()
    api.expect(page.locator(".answers-list .title")).to_have_count(10)


def test_a_service_that_asks_for_a_key(page: Page, models: dict[str, Recommender], folder: Path) -> None:
    key, _ = create_key(folder / "keys.json", "read")
    with served(folder / "first.safetensors", "--keys", folder / "keys.json") as locked:
        page.goto(f"{locked}{guest(3)}")
        alert = page.get_by_role("alert")
        api.expect(alert).to_contain_text("This service asks for a key")
        for text, said in (("wrong", "This key does not open it"), (key, None)):
            page.get_by_label("Key", exact=True).fill(text)
            page.get_by_role("button", name="Use this key").click()
            if said is None:
                api.expect(alert).to_be_hidden()
            else:
                api.expect(alert).to_contain_text(said)
        api.expect(page.locator("#history .title")).to_have_text(["War of the year 1952"])
        assert titles(page) == expected(models["first"], history=[3])
        stored = page.evaluate("() => [Object.values(sessionStorage), Object.values(localStorage), location.href]")
        assert stored[0] == [key] and key not in str(stored[1:])
