"""The page, in a real browser without a screen."""

import asyncio
import json
import shutil
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from every_task import recipe
from PIL import Image
from served import http, serving
from tiny_run import COLOURS, save_run

import skillweave as sw
from skillweave.serving.collections import Collections
from skillweave.serving.models import Models
from skillweave.serving.page import fragments
from skillweave.serving.page.page import Page, effects_of, names_addresses
from skillweave.serving.page.texts import LANGUAGES, WORDS, language_of, translated
from skillweave.serving.settings import ServiceConfig

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
SLOW = 120_000
"""Milliseconds that a busy machine may need."""


@pytest.fixture(scope="module")
def url(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("page")
    for colour in COLOURS:
        Image.new("RGB", (20, 20), colour).save(data / f"{colour}.png")
    (data / "red.txt").write_text('<img src=x onerror="document.title=1">')
    (data / "tool.py").write_text("def double(x):\n    return 2 * x  # </script>\n")
    with serving([f"run={run}"], data=str(data), page=True) as (found, _):
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as play:
        yield play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def opened(browser: Any, url: str, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A page, the addresses that it asked elsewhere, and the errors of its scripts."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(SLOW)
    outside, errors = [], []
    own = (url, "data:", "blob:")
    page.on("request", lambda one: one.url.startswith(own) or outside.append(one.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector(".sw-head h1")
    return page, outside, errors


@needs_browser
def test_people_search_and_classify(browser: Any, url: str, tmp_path: Path) -> None:
    page, outside, errors = opened(browser, url, viewport={"width": 1200, "height": 900})
    query = page.get_by_label("What are you looking for?")
    query.fill("red square")
    query.press("Enter")  # the keyboard is enough
    page.wait_for_selector("ol.sw-of-image li:nth-child(6) img")
    loaded = "() => [...document.querySelectorAll('ol.sw-of-image img')].every(i => i.naturalWidth)"
    page.wait_for_function(loaded)
    assert page.title() == "skillweave"  # a caption is a text, not HTML
    assert "<img src=x onerror" in page.inner_text("ol.sw-of-image")
    assert page.locator(".sw-ran li.on").all_inner_texts() == ["texts"]
    page.get_by_role("radio", name="functions").check()
    page.wait_for_selector("ol.sw-of-code .sw-code .k")
    assert "return 2 * x  # </script>" in page.inner_text("ol.sw-of-code")
    page.get_by_role("radio", name="pictures").check()
    page.wait_for_selector("ol.sw-of-image")
    page.get_by_text("or what resembles this").click()
    example = tmp_path / "blue.png"
    Image.new("RGB", (20, 20), "blue").save(example)
    page.locator("input[type=file]:visible, input[type=file]").first.set_input_files(example)
    page.wait_for_function(
        "() => document.querySelector('.sw-ran li.on')?.innerText.trim() === 'pictures'"
    )
    assert "blue.png" in page.locator("ol.sw-of-image li").first.inner_text()
    page.get_by_role("tab", name="Classify").click()
    page.get_by_label("A text").fill("a red one")
    labels = page.get_by_label("Labels of your own, separated by commas")
    labels.fill("red, <b>blue</b>")
    labels.press("Enter")
    page.wait_for_selector(".sw-classes li:nth-child(2)")
    assert "<b>blue</b>" in page.inner_text(".sw-classes")
    page.get_by_role("tab", name="The model").click()
    page.wait_for_selector(".sw-table:visible")
    assert "text_to_image" in page.inner_text(".sw-table:visible")
    assert not outside and not errors


@needs_browser
def test_a_phone_in_the_dark_in_chinese(browser: Any, url: str) -> None:
    page, outside, errors = opened(
        browser,
        url,
        viewport={"width": 390, "height": 844},
        locale="zh-CN",
        color_scheme="dark",
    )
    query = page.get_by_label("想找什么？")
    query.fill("红色")
    page.get_by_role("button", name="查找").click()
    page.wait_for_selector("ol.sw-of-image li")
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= window  # nothing to scroll sideways
    assert page.evaluate("document.body.classList.contains('dark')")
    assert "本次运行的部分" in page.inner_text(".sw-ran")
    assert not outside and not errors


def test_the_page_fetches_no_addresses(url: str) -> None:
    html = http.get(url)
    assert "default-src 'self'" in html.headers["content-security-policy"]
    body = {"fn_index": 0, "data": [{"path": "http://169.254.169.254/", "meta": {}}]}
    answer = http.post(f"{url}/gradio_api/queue/join", json=body)
    assert answer.status_code == 400 and "not web addresses" in answer.text
    assert names_addresses(b'[{"\\u0070ath": "HTTPS://a"}]')
    assert not names_addresses(b'{"data": ["http://a text", {"path": "/tmp/a"}]}')
    assert not names_addresses(b"\xff") and not names_addresses(b"")
    for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd"):
        assert http.get(f"{url}{path}").status_code in (403, 404)


def answered(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result, from a thread of its own: a browser has a loop in this one."""
    with ThreadPoolExecutor() as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_questions_about_a_picture(tmp_path: Path) -> None:
    described = recipe("visual_question_answering").model_dump(mode="json")
    run = save_run({**described, "output": str(tmp_path / "run")})
    picture = tmp_path / "a.png"
    Image.new("RGB", (20, 20), "red").save(picture)
    models = Models([f"run={run}"], ServiceConfig(isolate=False), device="cpu")
    functions = Page(models, Collections()).build().fns.values()
    (ask,) = (one.fn for one in functions if one.name == "ask")
    request = SimpleNamespace(headers={"accept-language": "en"})
    shown, ran = answered(ask(request, str(picture), "what is it?"))
    row = {"image": str(picture), "question": "what is it?"}
    (answer,) = sw.predict(run, "visual_question_answering", [row])
    assert f'role="status">{answer["answer"]}</p>' in shown and "visual_question" in ran
    told, _ = answered(ask(request, None, "what is it?"))
    assert "Give a file and a question first" in told
    models.stop(5)


def test_effects_are_a_table_that_can_be_read_aloud(tmp_path: Path) -> None:
    words = translated("en")
    cells = {"pooled": [[1.0, -0.5], [0.2, None]]}
    cells["pooled_intervals"] = [[[None, None], [-0.8, -0.2]], [[-0.1, 0.5], [None, None]]]
    found = {"tasks": ["<i>a", "b"], "blocks": [{"block": "feed_forward", **cells}]}
    html = fragments.interference("model", found, words)
    labels = [part.partition('"')[0] for part in html.split('<td class="sw-')[2:]]
    assert labels == ["harms", "helps"]  # the corner is a cell, too
    assert 'aria-label="b on &lt;i&gt;a: harms, -0.50 (-0.80 … -0.20)"' in html
    assert 'aria-label="&lt;i&gt;a on b: uncertain, 0.20 (-0.10 … 0.50)"' in html
    assert 'aria-label="b on b: no shared parameter"' in html and "<i>a" not in html
    assert "skillweave interference RUN" in fragments.interference("model", None, words)
    model: Any = SimpleNamespace(path=tmp_path)
    assert effects_of(model) is None
    (tmp_path / "interference.json").write_text(json.dumps(found))
    assert effects_of(model) == found
    (tmp_path / "interference.json").write_text("{")
    assert effects_of(model) is None


def test_every_word_is_in_every_language() -> None:
    assert all(len(words) == len(LANGUAGES) and all(words) for words in WORDS.values())
    assert [language_of(x) for x in ("zh-CN,zh;q=0.9", "en", "", "de,zh")] == [
        "zh",
        "en",
        "en",
        "en",
    ]
