"""`restorer listening-test`: what the page and its key hold, and the analysis."""

import json
import re

import numpy as np
import pytest
import soundfile
from scipy import stats
from toy_listening_test import SAMPLES, SECONDS, build, build_test, decode, invoke, read_test, save_models
from toy_model import save_convolution, save_identity

from restorer.errors import RestorerError
from restorer.training.evaluation import Settings, plan_work
from restorer.training.evaluation_data import find_music, read_excerpt
from restorer.training.listening_analysis import analyse, load_key, load_result, load_results
from restorer.training.listening_page import FADE_SAMPLES, WORDS, choose_places
from restorer.training.pairs import Pairs
from restorer.training.prepare_command import Task, prepare_song


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_test(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def music(built):
    return built[0].parent / "music"


def test_page_has_every_condition_once_and_names_none(built):
    _, page, key = built
    test = read_test(page)
    assert {item["id"] for item in test["items"]} == set(key["items"]) and test["id"] == key["test"]
    conditions = [(item["condition"], item["kbps"], item["excerpt"]) for item in key["items"].values()]
    kinds = [("original", None), *((kind, kbps) for kind in ("mp3", "det", "sto") for kbps in (16, 64))]
    assert sorted(conditions, key=str) == sorted(((*kind, n) for kind in kinds for n in (0, 1)), key=str)
    takes = [item["take_seed"] for item in key["items"].values() if item["condition"] == "sto"]
    assert len(set(takes)) == 4
    assert {item["take_seed"] for item in key["items"].values() if item["condition"] != "sto"} == {None}
    assert list(key["models"]) == ["det", "sto"]
    visible = re.sub(r'"data:[^"]*"', "", page).lower()
    for secret in ("original", "mp3", "kbps", "kbit", '"det"', '"sto"', "song0", "song1", "toy", *map(str, takes)):
        assert secret not in visible, secret
    assert all(set(item) == {"id", "audio"} for item in test["items"])


def test_page_is_self_contained(built):
    _, page, _ = built
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; media-src data:; script-src 'sha256-")
    visible = re.sub(r'"data:[^"]*"', "", page)
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|fetch\(|XMLHttp|WebSocket|sendBeacon|@import", visible)
    assert "@SCRIPT" not in page and "@STYLE" not in page and "@TEST" not in page
    assert tuple(re.findall(r'data-level="\d"><b>\d</b>([a-z ]+)</span>', page)) == WORDS


def test_versions_are_aligned_equally_long_and_of_untouched_loudness(built, music):
    _, page, key = built
    audio = {item["id"]: decode(item["audio"]) for item in read_test(page)["items"]}
    pieces = {piece.id: piece for piece in find_music(music, None, "test", ["16m", "64m"])}
    inside = slice(FADE_SAMPLES, -FADE_SAMPLES)
    for token, item in key["items"].items():
        place = key["excerpts"][item["excerpt"]]
        start = round(place["start_seconds"] * 44100)
        excerpt = read_excerpt(pieces[place["song"]], f"{item['kbps'] or 16}m", start, SAMPLES, False)
        assert audio[token].shape == (SAMPLES,)
        expected = {"original": excerpt.original, "mp3": excerpt.coded, "det": excerpt.coded}.get(item["condition"])
        if expected is not None:
            limited = np.clip(expected[0], -1, 1)[inside]
            assert np.abs(audio[token][inside] / 32767 - limited).max() < 1 / 32767
        else:
            assert np.corrcoef(audio[token][inside], excerpt.coded[0][inside])[0, 1] > 0.3
            assert not np.array_equal(audio[token][inside], np.rint(excerpt.coded[0][inside] * 32767))


def test_seed_decides_the_excerpts_but_not_the_tokens(built, music, tmp_path):
    _, page, key = built
    again = build(music, save_models(tmp_path), "--kbps", 16, "--kbps", 64, tmp_path / "a.html")
    assert again.exit_code == 0
    other = json.loads((tmp_path / "a.key.json").read_text())
    assert other["excerpts"] == key["excerpts"]
    assert not set(other["items"]) & set(key["items"])
    sounds = [
        sorted(item["audio"] for item in read_test(text)["items"]) for text in (page, (tmp_path / "a.html").read_text())
    ]
    assert sounds[0] == sounds[1]


def test_more_excerpts_than_songs_do_not_overlap(music):
    pieces = find_music(music, None, "test", ["16m"])
    fitting = sum(piece.excerpts(100, SECONDS) for piece in pieces)
    places = choose_places(pieces, fitting, SECONDS, 0)
    for song in {place.piece.id for place in places}:
        starts = sorted(place.start for place in places if place.piece.id == song)
        assert len(starts) >= 2 and np.diff(starts).min() >= SAMPLES
    words = rf"only {fitting} of {fitting + 1} excerpts of 1\.5 s .* ask for fewer"
    with pytest.raises(RestorerError, match=words):
        choose_places(pieces, fitting + 1, SECONDS, 0)


def test_silence_is_not_asked_about(tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(44100 * 3), 44100)
    with pytest.raises(RestorerError, match="only 0 of 1"):
        choose_places(find_music(tmp_path, None, "all", ["16m"]), 1, SECONDS, 0)


def test_pairs_folder_gives_its_own_mp3s(music, tmp_path):
    source, model = music / "song0.flac", save_convolution(tmp_path / "toy.onnx")
    row = {"bandwidth_hz": "20000"}
    song = prepare_song(Task(source, tmp_path / "pairs" / "song0", "test", ("24m", "64j"), row), quality=7)
    arguments = ("--pairs", tmp_path / "pairs", "--model", model, "--excerpts", 1, "--seconds", SECONDS)
    run = invoke("build", *arguments, "--kbps", 24, tmp_path / "a.html")
    assert run.exit_code == 0, run.output
    key = json.loads((tmp_path / "a.key.json").read_text())
    start = round(key["excerpts"][0]["start_seconds"] * 44100)
    (token,) = [token for token, item in key["items"].items() if item["condition"] == "mp3"]
    (uri,) = [item["audio"] for item in read_test((tmp_path / "a.html").read_text())["items"] if item["id"] == token]
    coded = Pairs(tmp_path / "pairs", "test").coded(song, "24m", start, SAMPLES)[0]
    inside = slice(FADE_SAMPLES, -FADE_SAMPLES)
    assert np.abs(decode(uri)[inside] / 32767 - np.clip(coded, -1, 1)[inside]).max() < 1e-3
    missing = invoke("build", *arguments, "--kbps", 32, tmp_path / "b.html")
    assert "no song of split 'test'" in str(missing.exception)


def test_excerpts_and_mp3s_are_those_of_evaluate(music, tmp_path):
    """Both code at the rate and level that they are told, in the places where evaluate measures."""
    model = save_identity(tmp_path / "toy.onnx")
    settings = ("--kbps", 16, "--normalise", "--coded-rate", 44100)
    assert build(music, [model], *settings, tmp_path / "a.html").exit_code == 0
    key = json.loads((tmp_path / "a.key.json").read_text())
    assert (key["normalise"], key["coded_rate_hz"]) == (True, 44100)
    told = Settings("music", "test", SECONDS, 1, True, 44100)
    work = plan_work(find_music(music, None, "test", ["16m"], 44100), told, (), 1, ("lsd",), "cpu", 1)
    expected = {}
    for one in work:
        start, samples = one.piece.bounds(one.excerpt, one.excerpts, told.seconds)
        expected[one.piece.id, start] = read_excerpt(one.piece, one.coding, start, samples, told.normalise)
    places = [(place["song"], round(place["start_seconds"] * 44100)) for place in key["excerpts"]]
    assert sorted(places) == sorted(expected)
    inside = slice(FADE_SAMPLES, -FADE_SAMPLES)
    for item in read_test((tmp_path / "a.html").read_text())["items"]:
        known = key["items"][item["id"]]
        excerpt = expected[places[known["excerpt"]]]
        heard = excerpt.original if known["condition"] == "original" else excerpt.coded
        limited = np.clip(heard[0], -1, 1)[inside]
        assert np.abs(decode(item["audio"])[inside] / 32767 - limited).max() < 1 / 32767


def test_build_checks_before_it_works(built, music, tmp_path):
    page = built[0]
    twice = ("--model", page.parent / "toy_sto.onnx") * 2
    for args, message in (
        (("--music", music, page), "exists already"),
        ((tmp_path / "a.html",), "either --music or --pairs"),
        (("--music", music, tmp_path / "a.txt"), "must end in .html"),
        (("--music", music, "--kbps", 17, tmp_path / "a.html"), "and not 17"),
        (("--music", music, tmp_path / "none" / "a.html"), "make it first"),
        (("--music", music, "--split", "valid", tmp_path / "a.html"), "is of split 'valid'"),
        (("--music", music, *twice, tmp_path / "a.html"), "one model with noise and not two"),
        (("--pairs", music, "--coded-rate", 44100, tmp_path / "a.html"), "--coded-rate go with --music"),
        (("--pairs", music, "--normalise", tmp_path / "a.html"), "--coded-rate go with --music"),
    ):
        run = invoke("build", *args)
        assert isinstance(run.exception, RestorerError) and message in str(run.exception)
    assert list(tmp_path.iterdir()) == []


def result_of(key, listener, rate):
    """A result file in which `rate(item)` is the rating of each item."""
    ratings = [{"id": token, "rating": rate(item), "plays": 1} for token, item in key["items"].items()]
    return {"format": "restorer listening-test result", "format_version": 2, "test": key["test"],
            "listener": listener, "started": "", "ratings": ratings}  # fmt: skip


@pytest.fixture
def answers(built, tmp_path):
    """Six listeners who like originals and what is restored from 16 kbit/s, and hear no difference at 64 kbit/s."""
    key = built[2]
    means = {
        ("original", None): 4.0,
        ("mp3", 16): 1.6,
        ("det", 16): 2.8,
        ("sto", 16): 2.9,
        ("mp3", 64): 4.0,
        ("det", 64): 4.0,
        ("sto", 64): 4.0,
    }
    # A generator each, since the order of the items is drawn anew for every page.
    opinions = {kind: np.random.default_rng([1, index]) for index, kind in enumerate(means)}
    paths, table = [], {kind: [] for kind in means}
    for number in range(6):

        def rate(item):
            kind = item["condition"], item["kbps"]
            rating = int(np.clip(round(opinions[kind].normal(means[kind], 0.7)), 1, 5))
            table[kind].append(rating)
            return rating

        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(result_of(key, f"listener{number}", rate)))
        paths.append(path)
    return paths, table


def test_analysis_is_table_3_and_the_tests_of_the_paper(built, answers):
    paths, table = answers
    key_path = built[0].with_suffix(".key.json")
    run = invoke("analyse", key_path, *paths, "--json")
    assert run.exit_code == 0, run.output
    record = json.loads(run.output)
    labels = ["original", "mp3_16k", "det_16k", "sto_16k", "mp3_64k", "det_64k", "sto_64k"]
    kinds = list(table)
    assert record["listeners"] == 6
    for row, label, kind in zip(record["conditions"], labels, kinds, strict=True):
        assert row["condition"] == label and row["n"] == 12 and row["kbps"] == kind[1]
        assert row["mean"] == pytest.approx(np.mean(table[kind]))
        assert row["std"] == pytest.approx(np.std(table[kind], ddof=1))
    rows = {(row["one"], row["other"]): row for row in record["comparisons"]}
    assert list(rows) == [
        ("det_16k", "mp3_16k"), ("sto_16k", "mp3_16k"), ("det_16k", "sto_16k"),
        ("original", "mp3_16k"), ("original", "det_16k"), ("original", "sto_16k"),
        ("det_64k", "mp3_64k"), ("sto_64k", "mp3_64k"), ("det_64k", "sto_64k"),
        ("original", "mp3_64k"), ("original", "det_64k"), ("original", "sto_64k"),
    ]  # fmt: skip
    first = rows["sto_16k", "mp3_16k"]
    x, y = np.array(table["sto", 16]), np.array(table["mp3", 16])
    # Welch 1947, from its formula; ratings were drawn in one order of excerpts for both, so they pair up.
    error = x.var(ddof=1) / 12 + y.var(ddof=1) / 12
    t = (x.mean() - y.mean()) / np.sqrt(error)
    df = error**2 / ((x.var(ddof=1) / 12) ** 2 / 11 + (y.var(ddof=1) / 12) ** 2 / 11)
    assert first["welch"]["t"] == pytest.approx(t) and first["welch"]["df"] == pytest.approx(df)
    assert first["welch"]["p"] == pytest.approx(2 * stats.t.sf(abs(t), df))
    significant = {pair for pair, row in rows.items() if row["welch"]["p"] < 0.05}
    assert {pair for pair in rows if "mp3_16k" in pair} <= significant  # as the six listeners were made
    assert not significant & {pair for pair in rows if "64k" in pair[1] or pair == ("det_16k", "sto_16k")}
    assert first["paired"]["n"] == 12 and first["paired"]["df"] == 11

    markdown = invoke("analyse", key_path, *paths).output
    scores = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| 12 \|$", markdown, re.MULTILINE)
    assert [row[0] for row in scores] == labels
    assert float(scores[0][1]) == pytest.approx(np.mean(table["original", None]), abs=0.006)
    assert "| sto_16k - mp3_16k |" in markdown and "| det_64k - sto_64k |" in markdown


def test_pairs_are_of_one_listener_and_one_excerpt(built, tmp_path):
    """Listeners and excerpts differ a lot, the gain is 1 but for one: only the paired test sees it."""
    key = built[2]
    base = {("a", 0): 1, ("a", 1): 4, ("b", 0): 3, ("b", 1): 1}
    paths = []
    for name in "ab":

        def rate(item, name=name):
            gain = item["condition"] == "det" and (name, item["excerpt"]) != ("b", 1)
            return base[name, item["excerpt"]] + gain

        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(result_of(key, name, rate)))
    loaded = load_key(built[0].with_suffix(".key.json"))
    first = analyse(loaded, load_results(paths, loaded)).comparisons[0]
    assert first.difference == 0.75
    assert first.paired.t == pytest.approx(0.75 / (0.5 / 2)) and first.welch.t < 1


def test_ratings_without_variance_give_no_test(built, tmp_path):
    path = tmp_path / "same.json"
    path.write_text(json.dumps(result_of(built[2], "x", lambda item: 3)))
    key_path = built[0].with_suffix(".key.json")
    record = json.loads(invoke("analyse", key_path, path, "--json").output)
    assert record["comparisons"][0]["welch"]["p"] is None and record["conditions"][0]["std"] == 0
    assert "n/a" in invoke("analyse", key_path, path).output


def test_bad_and_foreign_results_are_one_clear_line(built, answers, tmp_path):
    paths, _ = answers
    key_path = built[0].with_suffix(".key.json")
    key, good = load_key(key_path), json.loads(paths[0].read_text())
    entry = good["ratings"][0]
    bad = tmp_path / "bad.json"
    for content, message in (
        ("no json", "is not JSON"),
        ("[1]", "is not a 'restorer listening-test result'"),
        (key_path.read_text(), "is not a 'restorer listening-test result'"),
        ({**good, "format_version": 1}, "format version 1 and not 2"),
        ({**good, "test": "other"}, "is of listening test 'other'"),
        ({**good, "ratings": good["ratings"][1:]}, "rates 13 of 14"),
        ({**good, "ratings": [*good["ratings"], entry]}, "twice"),
        ({**good, "ratings": [{**entry, "rating": 6}]}, "with 6; a rating is an integer from 1 to 5"),
        ({**good, "ratings": [{**entry, "rating": True}]}, "with True"),
        ({**good, "ratings": [{**entry, "id": "x"}]}, "'x', which is not in this test"),
        ({**good, "ratings": [{**entry, "id": ["x"]}]}, "damaged"),
        ({**good, "ratings": None}, "damaged"),
    ):
        bad.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(RestorerError, match=r"^'.*bad\.json' ") as caught:
            load_result(bad, key)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(RestorerError, match="both of the listener listener0"):
        load_results([paths[0], paths[0]], key)
    with pytest.raises(RestorerError, match="is not a 'restorer listening-test key'"):
        load_key(paths[0])
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RestorerError, match="is not JSON"):
        load_key(bad)
