"""The listening test in a real headless browser: played, rated, saved, analysed, on a phone and in the dark."""

import json

import numpy as np
import pytest
from toy_browser import chromium, contrast, luminance, photograph, set_scheme
from toy_listening_test import SECONDS, build_test, decode, invoke, read_test

from restorer.training.listening_analysis import load_key, load_result
from restorer.training.listening_page import WORDS


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_test(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    with chromium(downloads, "900,900") as chrome:
        chrome.downloads = downloads
        yield chrome


class Listener:
    """Does what a listener does."""

    def __init__(self, browser, page):
        from selenium.webdriver.support.wait import WebDriverWait

        self.browser = browser
        self.wait = WebDriverWait(browser, 10, poll_frequency=0.05).until
        browser.get(page.as_uri())

    def __getitem__(self, name):
        return self.browser.find_element("id", name)

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def ask(self, expression):
        return self.browser.execute_script(f"return {expression}")

    def play(self):
        self.press(" ")
        self.wait(lambda _: self["play"].text == "Stop")

    def saved(self):
        self["save"].click()
        self.wait(lambda _: list(self.browser.downloads.glob("*.json")))
        (path,) = self.browser.downloads.glob("*.json")
        return path


def test_a_listener_plays_rates_saves_and_is_analysed(browser, built):
    """With keys alone; half-way through the page is reloaded. Excerpts are rated by what they are."""
    page, _, key = built
    answers = {"original": 5, "mp3": 2, "det": 4, "sto": 3}
    listener = Listener(browser, page)
    listener.press("\ue007")
    order = listener.ask("state.order")
    assert sorted(order) == sorted(key["items"])
    for number, token in enumerate(order):
        assert listener["place"].text == f"Excerpt {number + 1} of 14"
        rating = answers[key["items"][token]["condition"]]
        listener.press("3", "\ue007")  # nothing can be rated unheard, and nothing left out
        assert listener["place"].text == f"Excerpt {number + 1} of 14"
        assert not listener["rating"].is_enabled() and not listener["next"].is_enabled()
        listener.play()
        if number == 0:  # heard to its end, in its own time, at full volume
            listener.wait(lambda _: listener["play"].text == "Play")
            assert listener.ask("[audio.ended, audio.volume, audio.playbackRate]") == [True, 1, 1]
            assert listener.ask("audio.duration") == pytest.approx(SECONDS, abs=0.01)
        listener.press(str(rating))
        assert listener["rating"].get_attribute("aria-valuetext") == WORDS[rating - 1]
        assert listener["status"].text == f"Rated {rating}, {WORDS[rating - 1]}."
        if number == 4:
            browser.refresh()
            assert listener["place"].text == "Excerpt 5 of 14" and listener["done"].text == "5 rated"
            assert listener.ask("state.order") == order
        listener.press("\ue007")
    assert listener["end"].is_displayed() and not listener["trial"].is_displayed()
    path = listener.saved()
    assert path.name in listener["saved"].text
    assert json.loads(path.read_text()) == json.loads(listener.ask("document.getElementById('text').value"))
    loaded = load_key(page.with_suffix(".key.json"))
    result = load_result(path, loaded)
    assert {token: answers[key["items"][token]["condition"]] for token in key["items"]} == result.ratings
    run = invoke("analyse", page.with_suffix(".key.json"), path, "--json")
    means = {row["condition"]: row["mean"] for row in json.loads(run.output)["conditions"]}
    scores = {f"{kind}_{kbps}k": answers[kind] for kbps in (16, 64) for kind in ("mp3", "det", "sto")}
    assert means == {"original": 5, **scores}

    listener["restart"].click()
    assert listener["intro"].is_displayed() and listener.ask("state.listener") != result.listener


def test_a_listener_with_a_pointer_goes_back_and_changes_a_score(browser, built):
    listener = Listener(browser, built[0])
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    listener["start"].click()
    assert not listener["back"].is_enabled()
    assert (listener["rating"].aria_role, listener["rating"].accessible_name) == ("slider", "Overall sound quality")
    assert listener["rating"].get_attribute("aria-valuetext") == "not rated yet"
    assert listener["progress"].accessible_name == "Excerpts rated"
    listener["play"].click()
    listener.wait(lambda _: listener["rating"].is_enabled())
    listener["rating"].click()  # in its middle, where its thumb stands already
    assert listener["rating"].get_attribute("aria-valuetext") == "fair"
    listener["next"].click()
    assert listener["place"].text == "Excerpt 2 of 14"
    listener["back"].click()
    assert listener["place"].text == "Excerpt 1 of 14" and listener["done"].text == "1 rated"
    browser.find_element("css selector", "#words span[data-level='5']").click()
    assert listener["rating"].get_property("value") == "5"
    listener.press(" ")  # the pointer left the focus where Space plays
    listener.wait(lambda _: listener["play"].text == "Stop")
    listener.press(" ")
    assert listener["play"].text == "Play" and listener.ask("audio.paused")
    assert listener.ask("state.ratings[state.order[0]]") == 5 and listener.ask("state.plays[state.order[0]]") == 2


def test_browser_hears_the_samples_of_the_file_and_contacts_nobody(browser, built):
    listener = Listener(browser, built[0])
    item = read_test(built[1])["items"][0]
    heard = browser.execute_async_script(
        """
        const [id, done] = arguments, bytes = atob(audioOf.get(id).split(",")[1]);
        new OfflineAudioContext(1, 1, 44100)
          .decodeAudioData(Uint8Array.from(bytes, byte => byte.charCodeAt(0)).buffer)
          .then(sound => done([...sound.getChannelData(0).subarray(0, 4000)].map(x => Math.round(x * 32768))));
        """,
        item["id"],
    )
    assert np.abs(np.array(heard) - decode(item["audio"])[:4000]).max() <= 1
    browser.get_log("performance"), browser.get_log("browser")  # what earlier pages did
    browser.refresh()
    assert listener["start"].is_displayed() or listener["trial"].is_displayed()
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert requests and all(url.startswith(("file:", "data:")) for url in requests)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    blocked = browser.execute_async_script(
        "const done = arguments[0]; const picture = new Image(); picture.onerror = () => done('blocked');"
        "picture.onload = () => done('loaded'); picture.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw=';"
    )
    assert blocked == "blocked"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_readable(browser, built, scheme):
    """Contrast as WCAG 2.2 AA asks of text, 4.5 : 1."""
    browser.get(built[0].as_uri())
    set_scheme(browser, scheme)
    assert (luminance(browser, "page") > 0.5) == (scheme == "light")
    pairs = [("text", "page"), ("text", "card"), ("quiet", "card"), ("accent", "card"), ("problem", "page")]
    for one, other in [*pairs, ("on-accent", "accent")]:
        assert contrast(browser, one, other) >= 4.5, (one, other)
    photograph(browser, f"listening-{scheme}")
    set_scheme(browser, None)


@pytest.mark.parametrize("width", [320, 900])
def test_page_fits_the_width(browser, built, width):
    listener = Listener(browser, built[0])
    metrics = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.execute_script("localStorage.clear()")
        browser.refresh()
        listener["start"].click()
        assert listener.ask("document.documentElement.scrollWidth") <= width
        boxes = listener.ask("[...document.querySelectorAll('#words span')].map(s => s.scrollWidth - s.clientWidth)")
        assert max(boxes) <= 0
        sizes = listener.ask("['play', 'back', 'next', 'rating'].map(id => $(id).getBoundingClientRect().height)")
        assert min(sizes) >= 44
        photograph(browser, f"listening-{width}")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_script("localStorage.clear()")
