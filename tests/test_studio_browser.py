"""The studio in a real headless browser: a stranger opens a song, switches A and B, and downloads what he heard."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("lameenc")
pytest.register_assert_rewrite("toy_studio")
from click.testing import CliRunner
from toy_browser import chromium, contrast, drag, photograph, set_scheme
from toy_studio import make_song, running

from restorer import Restorer
from restorer.audio_in import read_audio
from restorer.cli import main
from restorer.plugins.studio.limits import Limits
from restorer.plugins.studio.song import Song

SCRIPT = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
LEFT, RIGHT, ESCAPE = "\ue012", "\ue014", "\ue00c"
# What sounds now: the last samples of the left channel, and the place that the page believes in.
LISTEN = """
const done = arguments[arguments.length - 1];
import("/static/deck.js").then(async ({deck}) => {
  if (!window.ear) {
    const splitter = deck.context.createChannelSplitter(2);
    window.ear = new AnalyserNode(deck.context, {fftSize: 8192});
    deck.output.connect(splitter).connect(window.ear, 0);
  }
  deck.seek(1);  // and the song is never over before it has been heard
  await deck.play();  // if it ended on a slow machine
  const heard = new Float32Array(8192), until = performance.now() + 3000;
  const listen = () => {
    window.ear.getFloatTimeDomainData(heard);
    const parts = [0, 2048, 4096, 6144].map(at => heard.subarray(at, at + 2048));
    const full = parts.every(part => part.some(sample => sample));  // a slow machine fetches for a while
    if (full || performance.now() > until) done([Array.from(heard), deck.now()]);
    else setTimeout(listen, 50);
  };
  setTimeout(listen, 300);
});
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    with chromium(downloads) as browser:
        browser.downloads = downloads
        yield browser


@pytest.fixture(scope="module")
def studio():
    limits = Limits(upload_bytes=2_000_000, audio_seconds=30.0, free_disk_bytes=0)
    with running(Restorer(device="cpu", threads=1), limits) as (server, port):
        yield server, f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    return make_song(tmp_path_factory.mktemp("song") / "<b>song<b>.mp3", seconds=6.0, TIT2=SCRIPT, TPE1="Nobody")


class Visitor:
    """Does what somebody in front of the page does."""

    def __init__(self, browser, url):
        from selenium.webdriver.support.wait import WebDriverWait

        self.browser = browser
        self.wait = WebDriverWait(browser, 120, poll_frequency=0.05).until
        browser.get(url)
        self.wait(lambda _: self["limits"].text or self["song"].is_displayed())

    def __getitem__(self, name):
        return self.browser.find_element("id", name)

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def open(self, path):
        self["file"].send_keys(str(path))
        self.arrive()

    def arrive(self):
        """Wait until the song is there with its pictures."""
        self.wait(lambda _: self["song"].is_displayed() and self["lanes"].get_attribute("aria-busy") == "false")

    def listen(self):
        heard, position = self.browser.execute_async_script(LISTEN)
        return np.array(heard), position

    def levels(self, **levels):
        """Play the tracks at these levels, whatever the page has chosen."""
        self.browser.execute_async_script(
            "const [levels, done] = arguments;"
            "import('/static/deck.js').then(({deck}) => { deck.setLevels(levels); done(); });",
            levels,
        )

    def download(self):
        before = set(self.browser.downloads.iterdir())
        self["download"].click()

        def arrived(_):
            new = [path for path in set(self.browser.downloads.iterdir()) - before if path.suffix in (".flac", ".mp3")]
            return new and not list(self.browser.downloads.glob("*.crdownload")) and new[0]

        return self.wait(arrived)


@pytest.fixture
def visitor(browser, studio, song):
    """In front of the opened song."""
    visitor = Visitor(browser, studio[1])
    if not visitor["song"].is_displayed():
        visitor.open(song)
    browser.execute_script("window.scrollTo(0, 0)")
    return visitor


def find(piece, whole):
    """Where `piece` is in `whole`, and how far they differ there, as a share of the piece's root mean square."""
    from scipy.signal import correlate

    products = correlate(whole, piece, "valid")
    energy = np.convolve(whole**2, np.ones(len(piece)), "valid")
    at = int(np.argmax(products / np.sqrt(energy + 1e-9)))
    matching = whole[at : at + len(piece)]
    gain = (matching @ piece) / (matching @ matching)
    return at, gain, float(np.sqrt(np.mean((piece - gain * matching) ** 2) / np.mean(piece**2)))


def command_line(song, target, *options):
    arguments = ["restore", str(song), str(target), "--device", "cpu", "--threads", "1", *options]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    return target.read_bytes()


def test_opening_shows_what_the_file_is_and_never_runs_it(browser, studio, song):
    browser.get_log("performance"), browser.get_log("browser")
    visitor = Visitor(browser, studio[1])
    assert visitor["limits"].text.endswith("up to 2 MB and 0.5 minutes")
    assert visitor["file"].accessible_name == "Choose a file"
    visitor["file"].send_keys(str(song))
    visitor.wait(lambda _: visitor["work"].is_displayed() or visitor["song"].is_displayed())
    visitor.arrive()
    assert visitor["title"].text == f"Nobody – {SCRIPT}"  # noqa: RUF001
    assert visitor["facts"].text.startswith("<b>song<b>.mp3 · MP3 64 kbit/s · stereo · 24 kHz · ends at 1")
    assert "owned" not in browser.title.split("–")[-1] and browser.find_elements("css selector", "h2 img") == []  # noqa: RUF001
    painted = browser.execute_script(
        "return [...document.querySelectorAll('canvas')].map(c => new Set(c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data).size)"
    )
    assert len(painted) >= 2 and min(painted) > 50
    visitor.press(" ")
    visitor.wait(lambda _: visitor["play"].text == "Pause")
    visitor.press(" ")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert len(asked) > 8 and all(url.startswith(studio[1]) for url in asked)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_and_b_are_heard_at_the_same_place_and_equally_loud(visitor, song, tmp_path):
    """The browser's own output is compared with the files, sample by sample."""
    original = np.rint(read_audio(song, 44100)[0][0] * 32768) / 32768
    command_line(song, tmp_path / "restored.flac")
    restored = read_audio(tmp_path / "restored.flac", 44100)[0][0]
    visitor.press(" ")
    visitor.wait(lambda _: visitor["play"].text == "Pause")
    places, gains = {}, {}
    for key, whole in (("a", original), ("b", restored)):
        visitor.press(key)
        piece, position = visitor.listen()
        places[key], gains[key], error = find(piece, whole)
        places[key] -= position
        assert error < 1e-3, (key, error)
        assert visitor[f"side-{key}"].get_attribute("aria-checked") == "true"
    assert abs(places["a"] - places["b"]) < 0.05 * 44100  # the clock is read a block of audio late or early
    found = visitor.browser.execute_async_script(
        "const done = arguments[0]; fetch('/api/state').then(answer => answer.json()).then(done)"
    )
    gain_db = found["song"]["takes"][0]["gain_db"]
    assert 20 * np.log10(gains["a"] / gains["b"]) == pytest.approx(gain_db, abs=0.01)
    assert max(gains.values()) == pytest.approx(1.0, abs=1e-3)

    visitor.levels(original=1, take1=-1)  # only what runs in step cancels as the files do
    piece, _ = visitor.listen()
    visitor.press(" ")
    assert visitor["play"].text == "Play"
    at, gain, error = find(piece, original - restored)
    assert error < 5e-3 and gain == pytest.approx(1.0, abs=1e-3) and at > 0


def test_downloads_are_the_command_lines(visitor, song, tmp_path):
    path = visitor.download()
    assert path.name.endswith("song_b_.restored.flac")
    assert path.read_bytes() == command_line(song, tmp_path / "a.flac")
    visitor["mix"].click()
    visitor.press(*[LEFT] * 20)
    while visitor["mix"].get_property("valueAsNumber") > 40:
        visitor.press(LEFT)
    while visitor["mix"].get_property("valueAsNumber") < 40:
        visitor.press(RIGHT)
    assert visitor["mix"].get_attribute("aria-valuetext") == "40 % restored"
    visitor["format"].send_keys("MP3")
    path = visitor.download()
    assert path.suffix == ".mp3"
    assert path.read_bytes() == command_line(song, tmp_path / "a.mp3", "--mix", "0.4")


def test_everything_has_a_key_and_a_name(visitor):
    assert (visitor["lanes"].aria_role, visitor["lanes"].accessible_name) == ("slider", "Position in the song")
    for name, label in (("mix", "Mix"), ("match", "Match A and B"), ("format", "Format"), ("play", "Play")):
        assert visitor[name].accessible_name == label
    visitor["more"].click()
    visitor.wait(lambda _: len(visitor.browser.find_elements("css selector", "#takes button")) == 2)
    visitor.wait(lambda _: "take 2" in visitor["lane-name"].text)
    visitor.browser.execute_script("document.activeElement.blur()")
    visitor.press("1")
    assert visitor["lane-name"].text == "Restored, take 1"
    visitor.press("2")
    chosen = visitor.browser.find_element("css selector", "#takes [aria-checked=true]")
    assert (chosen.aria_role, chosen.accessible_name) == ("radio", "Take 2")
    for key, side in (("a", "a"), ("x", "b"), ("x", "a"), ("b", "b")):
        visitor.press(key)
        assert visitor[f"side-{side}"].get_attribute("aria-checked") == "true"
    visitor.press(RIGHT)
    assert visitor["lanes"].get_attribute("aria-valuetext") == "0:05 of 0:06"
    visitor.press(LEFT)
    assert visitor["lanes"].get_attribute("aria-valuenow") == "0"
    visitor["lanes"].click()  # in its middle
    assert visitor["lanes"].get_attribute("aria-valuetext") == "0:03 of 0:06"
    visitor.browser.refresh()
    visitor.wait(lambda _: visitor["song"].is_displayed())  # a reload loses nothing
    assert len(visitor.browser.find_elements("css selector", "#takes button")) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_readable(visitor, scheme):
    """Contrast as WCAG 2.2 AA asks of text, 4.5 : 1, and of what must be seen, 3 : 1."""
    set_scheme(visitor.browser, scheme)
    for one in ("text", "quiet", "accent"):
        for other in ("page", "card"):
            assert contrast(visitor.browser, one, other) >= 4.5, (one, other)
    for one, other in (("on-accent", "accent"), ("problem", "problem-back"), ("quiet", "picture")):
        assert contrast(visitor.browser, one, other) >= 4.5, (one, other)
    assert contrast(visitor.browser, "playhead", "card") >= 3
    photograph(visitor.browser, f"song-{scheme}")
    set_scheme(visitor.browser, None)


@pytest.mark.parametrize("width", [320, 768])
def test_page_fits_the_width(visitor, width):
    metrics = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": width < 500}
    visitor.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        time.sleep(0.2)
        ask = visitor.browser.execute_script
        assert ask("return document.documentElement.scrollWidth") <= width
        small = ask(
            "return [...document.querySelectorAll('#song button, #song select, #song input[type=range], header button')"
            "]"
            ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 44).map(e => e.id)"
        )
        assert small in ([], ["as-drawn"])
        cut = ask(
            "return [...document.querySelectorAll('button')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.id)"
        )
        assert cut == []
        edges = ask("return [...document.querySelectorAll('header > *')].map(e => e.getBoundingClientRect().right)")
        assert max(edges) <= width - 16  # as far from the edge as everything else
        for part, place in (("top", 0), ("end", 9999)):
            ask(f"scrollTo(0, {place})")
            photograph(visitor.browser, f"song-{width}-{part}")
    finally:
        visitor.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def empty_page(browser, studio):
    """In front of a page without a song."""
    visitor = Visitor(browser, studio[1])
    if visitor["another"].is_displayed():
        visitor["another"].click()
    visitor.wait(lambda _: visitor["open"].is_displayed())
    return visitor


def test_a_song_can_be_dropped(browser, studio, song):
    visitor = empty_page(browser, studio)
    place = visitor["drop"]
    for scheme in ("light", "dark"):
        set_scheme(browser, scheme)
        photograph(browser, f"open-{scheme}")
    set_scheme(browser, None)
    for kind in ("dragEnter", "dragOver"):
        drag(browser, kind, place, song)
    assert "over" in place.get_attribute("class").split()
    photograph(browser, "open-over")
    for kind in ("dragEnter", "dragOver", "drop"):
        drag(browser, kind, place, song, song)
    visitor.wait(lambda _: visitor["problem"].text == "One song at a time, please.")
    photograph(browser, "open-problem")
    assert place.is_displayed() and "over" not in place.get_attribute("class").split()
    for kind in ("dragEnter", "dragOver", "drop"):
        drag(browser, kind, place, song)
    visitor.arrive()
    assert visitor["facts"].text.startswith("<b>song<b>.mp3 · MP3") and not visitor["problem"].is_displayed()
    assert browser.current_url == studio[1]  # and the browser did not leave for the file


def stall(song, job, *_):
    """Work that ends when it is cancelled."""
    job.begin("Restoring")
    while True:
        job.report(1, 4)
        time.sleep(0.01)


def test_cancel_while_a_song_is_opened(browser, studio, song, monkeypatch):
    visitor = empty_page(browser, studio)
    monkeypatch.setattr(Song, "open", stall)
    visitor["file"].send_keys(str(song))
    visitor.wait(lambda _: visitor["phase"].text == "Restoring 25 %")
    assert visitor["work-title"].text == "<b>song<b>.mp3" and visitor["stop"].accessible_name == "Cancel"
    assert float(visitor["share"].get_attribute("value")) == 0.25
    photograph(browser, "work")
    visitor["stop"].click()
    visitor.wait(lambda _: visitor["open"].is_displayed())
    assert not visitor["work"].is_displayed() and not visitor["problem"].is_displayed()
    assert list(studio[0].config.app.state.sessions.folder.iterdir()) == []
    monkeypatch.undo()
    visitor.open(song)


def test_cancel_a_take(visitor, monkeypatch):
    takes = len(visitor.browser.find_elements("css selector", "#takes button"))
    monkeypatch.setattr(Song, "make_take", stall)
    visitor["more"].click()
    visitor.wait(lambda _: visitor["task-phase"].text == "A new take: Restoring 25 %")
    assert not visitor["more"].is_enabled() and not visitor["download"].is_enabled()
    visitor.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", visitor["task"])
    photograph(visitor.browser, "task")
    visitor["task-stop"].click()
    visitor.wait(lambda _: not visitor["task"].is_displayed())
    assert visitor["live"].get_property("textContent") == "Cancelled"
    assert visitor["more"].is_enabled() and visitor["download"].is_enabled()
    assert len(visitor.browser.find_elements("css selector", "#takes button")) == takes


def test_what_cannot_be_opened_is_explained_and_another_song_removes_the_first(visitor, studio, tmp_path):
    folder = studio[0].config.app.state.sessions.folder
    assert len(list(folder.iterdir())) == 1
    visitor["another"].click()
    visitor.wait(lambda _: visitor["open"].is_displayed())
    assert list(folder.iterdir()) == []
    for name, content, words in (
        ("text.mp3", b"no audio", "Cannot read text.mp3: "),
        ("large.mp3", b"x" * 2_100_000, "large.mp3 has 2.1 MB, and this studio takes up to 2 MB"),
        ("empty.mp3", b"", "empty.mp3 is empty"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        visitor["file"].send_keys(str(path))
        visitor.wait(lambda _, words=words: words in visitor["problem"].text)
        assert visitor["problem"].aria_role == "alert"
        visitor.wait(lambda _: visitor["open"].is_displayed())
    assert list(folder.iterdir()) == []
