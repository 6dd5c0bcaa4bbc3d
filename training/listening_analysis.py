"""What listeners said: mean opinion scores as in paper Table 3, and the t-tests of paper 4.2.2.

Ratings are 1 to 5. The paper's table cannot be on that scale (it prints a mean of 0.74): it seems to count
the same five levels from 0, so add 1 to its means before comparing.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from restorer.errors import RestorerError
from restorer.training.listening_page import FORMAT_VERSION, KEY_FORMAT, WORDS

RESULT_FORMAT = "restorer listening-test result"
CONDITIONS = ("original", "mp3", "det", "sto")
COMPARED = (("det", "mp3"), ("sto", "mp3"), ("det", "sto"), ("original", "mp3"))  # at every bitrate (4.2.2)
COMPARED += (("original", "det"), ("original", "sto"))  # not in the paper
NOTE = (
    f"Scale: 1 {WORDS[0]} ... 5 {WORDS[-1]}. t-tests, two-sided, not corrected for their number: Welch's "
    "over all ratings, and paired over what one listener gave to two versions of one excerpt. One listener's "
    "ratings are not independent, so p-values are a guide, as they are in the paper."
)


@dataclass(frozen=True, order=True)
class Condition:
    """What a listener heard, by bitrate and then by kind; the original has no bitrate (0)."""

    kbps: int
    kind: int

    @property
    def label(self) -> str:
        """As in Table 3: original, mp3_16k, det_16k, sto_16k."""
        return f"{CONDITIONS[self.kind]}_{self.kbps}k" if self.kbps else CONDITIONS[self.kind]


@dataclass(frozen=True)
class Key:
    """What the tokens of one test stand for: token -> (condition, number of the excerpt)."""

    test: str
    items: dict[str, tuple[Condition, int]]


@dataclass(frozen=True)
class Result:
    """The ratings of one listener: token -> 1 to 5."""

    listener: str
    ratings: dict[str, int]


@dataclass(frozen=True)
class Score:
    """Mean opinion score of one condition; `std` divides by n - 1 and is NaN of one rating."""

    condition: Condition
    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class TTest:
    """t statistic, degrees of freedom and two-sided p-value; NaN where ratings are too few or do not vary."""

    t: float
    df: float
    p: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """Condition `one` against `other`: the difference of their means (one - other) and both t-tests."""

    one: Condition
    other: Condition
    difference: float
    welch: TTest
    paired: TTest


@dataclass(frozen=True)
class Analysis:
    """A whole listening test."""

    listeners: int
    scores: list[Score]
    comparisons: list[Comparison]


def load_key(path: Path) -> Key:
    """Read the file `restorer listening-test build` wrote beside the page.

    Raises
    ------
    RestorerError : it is no such file.
    """
    fields = _load(path, KEY_FORMAT, "the .key.json that restorer listening-test build wrote")
    try:
        items = {
            str(token): (
                Condition(item["kbps"] or 0, CONDITIONS.index(item["condition"])),
                int(item["excerpt"]),
            )
            for token, item in fields["items"].items()
        }
        return Key(str(fields["test"]), items)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RestorerError(f"'{path}' is damaged: {error!r} in its items; use the file as it was built") from error


def load_result(path: Path, key: Key) -> Result:
    """Read the file a listener sent back, which must hold one rating of every version of this test.

    Raises
    ------
    RestorerError : it is no such file, of another test, incomplete, or has ratings other than 1 to 5.
    """
    fields = _load(path, RESULT_FORMAT, "a file that the page of the listening test saved")
    test = fields.get("test")
    if test != key.test:
        raise RestorerError(
            f"'{path}' is of listening test {test!r} and the key of {key.test!r}; take the key of its page"
        )
    ratings: dict[str, int] = {}
    try:
        listener = str(fields["listener"])
        for entry in fields["ratings"]:
            token, rating = entry["id"], entry["rating"]
            if token not in key.items:
                raise RestorerError(f"'{path}' rates {token!r}, which is not in this test; ask for the file again")
            if token in ratings:
                raise RestorerError(f"'{path}' rates {token!r} twice; ask for the file again")
            if isinstance(rating, bool) or not isinstance(rating, int) or not 1 <= rating <= 5:
                raise RestorerError(f"'{path}' rates {token!r} with {rating!r}; a rating is an integer from 1 to 5")
            ratings[token] = rating
    except (KeyError, TypeError) as error:
        raise RestorerError(f"'{path}' is damaged: {error!r} in its ratings; ask for the file again") from error
    if len(ratings) < len(key.items):
        raise RestorerError(
            f"'{path}' rates {len(ratings)} of {len(key.items)} excerpts; ask the listener to finish and to save again"
        )
    return Result(listener, ratings)


def load_results(paths: Iterable[Path], key: Key) -> list[Result]:
    """Read the files of all listeners; two files of one listener are an error."""
    results: dict[str, tuple[Path, Result]] = {}
    for path in paths:
        result = load_result(path, key)
        if result.listener in results:
            raise RestorerError(
                f"'{results[result.listener][0]}' and '{path}' are both of the listener {result.listener}; "
                "leave one of them out"
            )
        results[result.listener] = path, result
    return [result for _, result in results.values()]


def _load(path: Path, format_name: str, expected: str) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RestorerError(f"cannot read '{path}': {error.strerror}") from error
    except ValueError as error:  # no UTF-8, no JSON
        raise RestorerError(f"'{path}' is not JSON ({error}); expected {expected}") from error
    if not isinstance(fields, dict) or fields.get("format") != format_name:
        raise RestorerError(f"'{path}' is not a '{format_name}'; expected {expected}")
    if fields.get("format_version") != FORMAT_VERSION:
        raise RestorerError(
            f"'{path}' has format version {fields.get('format_version')!r} and not {FORMAT_VERSION}; "
            "use the restorer that made it"
        )
    return fields


def analyse(key: Key, results: list[Result]) -> Analysis:
    """Score every condition (Table 3) and compare those of `COMPARED` that were heard."""
    heard: dict[Condition, dict[tuple[int, int], list[float]]] = {}
    for number, result in enumerate(results):
        for token, rating in result.ratings.items():
            condition, excerpt = key.items[token]
            heard.setdefault(condition, {}).setdefault((number, excerpt), []).append(rating)
    scores = []
    for condition in sorted(heard):
        ratings = _all(heard[condition])
        std = float(np.std(ratings, ddof=1)) if len(ratings) > 1 else math.nan
        scores.append(Score(condition, float(np.mean(ratings)), std, len(ratings)))
    comparisons = []
    for kbps in sorted({condition.kbps for condition in heard} - {0}):
        named = {name: Condition(kbps if kind else 0, kind) for kind, name in enumerate(CONDITIONS)}
        for one, other in ((named[first], named[second]) for first, second in COMPARED):
            if one in heard and other in heard:
                comparisons.append(_compare(one, other, heard[one], heard[other]))
    return Analysis(len(results), scores, comparisons)


def _all(ratings: dict[tuple[int, int], list[float]]) -> list[float]:
    return [rating for group in ratings.values() for rating in group]


def _compare(
    one: Condition,
    other: Condition,
    first: dict[tuple[int, int], list[float]],
    second: dict[tuple[int, int], list[float]],
) -> Comparison:
    x, y = np.array(_all(first)), np.array(_all(second))
    welch = paired = TTest(math.nan, math.nan, math.nan, 0)
    if min(len(x), len(y)) > 1 and x.std() + y.std() > 0:
        test = stats.ttest_ind(x, y, equal_var=False)
        welch = TTest(float(test.statistic), float(test.df), float(test.pvalue), len(x) + len(y))
    both = sorted(first.keys() & second.keys())
    u, v = (np.array([np.mean(ratings[pair]) for pair in both]) for ratings in (first, second))
    if len(both) > 1 and (u - v).std() > 0:
        test = stats.ttest_rel(u, v)
        paired = TTest(float(test.statistic), float(test.df), float(test.pvalue), len(both))
    return Comparison(one, other, float(x.mean() - y.mean()), welch, paired)


def to_markdown(analysis: Analysis) -> str:
    """Table 3 and the t-tests as Markdown."""
    plural = "" if analysis.listeners == 1 else "s"
    lines = [
        f"Mean opinion scores of {analysis.listeners} listener{plural}",
        "",
        "| condition | mean | std | n |",
        "|---|---:|---:|---:|",
    ]
    for score in analysis.scores:
        lines.append(f"| {score.condition.label} | {score.mean:.2f} | {_number(score.std)} | {score.n} |")
    lines += [
        "",
        "| comparison | difference | Welch t | df | p | paired t | df | p |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in analysis.comparisons:
        cells = [f"{row.one.label} - {row.other.label}", f"{row.difference:+.2f}"]
        for test in (row.welch, row.paired):
            cells += [_number(test.t), _number(test.df, 1), _p_value(test.p)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", NOTE])


def _number(value: float, digits: int = 2) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _p_value(p: float) -> str:
    if math.isnan(p):
        return "n/a"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def to_record(analysis: Analysis) -> dict[str, Any]:
    """The same for json.dump; what is not defined is None."""

    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    def test(value: TTest) -> dict[str, float | None]:
        return {"t": known(value.t), "df": known(value.df), "p": known(value.p), "n": value.n}

    return {
        "listeners": analysis.listeners,
        "conditions": [
            {
                "condition": score.condition.label,
                "kbps": score.condition.kbps or None,
                "mean": score.mean,
                "std": known(score.std),
                "n": score.n,
            }
            for score in analysis.scores
        ],
        "comparisons": [
            {
                "one": row.one.label,
                "other": row.other.label,
                "difference": row.difference,
                "welch": test(row.welch),
                "paired": test(row.paired),
            }
            for row in analysis.comparisons
        ],
    }
