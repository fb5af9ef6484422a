"""HTML: every text is escaped, numbers read as numbers, links are real links."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from influence_core.service import RankedRow
from pages.components import cards, errors, html, jobs, tables
from tests.screens.fake_data import HOSTILE
from tests.screens.fake_service import FakeService, material

FAKE = FakeService()
IMAGE = FAKE.datum(material("digits"), "test", 3)
EVIL = replace(FAKE.datum(material("words"), "test", 3), row_id='"><script>x</script>', alt=HOSTILE, planted=True)
EVIL = replace(EVIL, truth=HOSTILE, given=HOSTILE, predicted="</b>" + HOSTILE)


class Tags(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def link(datum: object) -> str:
    return 'row?row="><script>'


@pytest.mark.parametrize(
    "page",
    [
        cards.pick_list([EVIL], link),
        cards.prediction_grid([EVIL], link),
        cards.ranked_column("pro", [RankedRow(1, 0.5, EVIL)], 0.5, (HOSTILE, HOSTILE, HOSTILE), link),
        cards.plain_column(HOSTILE, HOSTILE, [RankedRow(1, 0.5, EVIL)], "near", link, HOSTILE),
        cards.plain_column(HOSTILE, HOSTILE, [], "near", link, HOSTILE),
        cards.cells_table(replace(EVIL, text=None, cells=((HOSTILE, HOSTILE),)), 3),
        html.probability_bars([(HOSTILE, 0.5)], HOSTILE),
        html.signed_bars([(HOSTILE, -0.5)]),
        html.tip(HOSTILE),
        html.empty(HOSTILE, HOSTILE),
        errors.problem_panel(HOSTILE, HOSTILE, HOSTILE),
        tables.confusion(np.array([[1, 2], [0, 3]]), [HOSTILE, HOSTILE], lambda given, predicted: link(None)),
        tables.method_table([replace(FAKE.methods("digits")[0], title=HOSTILE, summary=HOSTILE)], "", lambda name: "x"),
        tables.figures(replace(FAKE.overview("words"), model=HOSTILE)),
    ],
)
def test_hostile_text_stays_text(page: str) -> None:
    found = Tags(page)
    assert HOSTILE in found.text + " ".join(str(v) for _, a in found.tags for v in a.values())
    assert all(tag not in {"script", "img"} for tag, _ in found.tags)
    assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)


def test_pictures_must_be_png_data() -> None:
    assert IMAGE.image is not None and IMAGE.image in html.thumbnail(IMAGE)
    assert html.thumbnail(replace(IMAGE, image="https://elsewhere/x.png")) == ""
    assert html.thumbnail(replace(IMAGE, image="data:image/svg+xml,<svg onload=x>")) == ""


def test_pictures_have_words() -> None:
    (tag, attributes), *_ = Tags(html.thumbnail(IMAGE)).tags
    assert tag == "img" and attributes["alt"] == IMAGE.alt


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (4.0, "4.00"),
        (-0.635, "−0.635"),
        (1234.0, "1,234"),
        (99.96, "100"),
        (1.5e-7, "1.50e-07"),
        (2.5e9, "2.50e+09"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    assert html.number(value) == shown
    assert html.signed(value) == ("+" if value > 0 else "") + shown


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_a_dash(value: float) -> None:
    assert html.number(value) == "–"


@pytest.mark.parametrize(
    ("share", "shown"), [(1.0, "100%"), (0.9999, ">99%"), (0.5, "50%"), (0.0001, "<1%"), (0.0, "0%")]
)
def test_shares_never_round_to_certainty(share: float, shown: str) -> None:
    assert html.percent(share) == shown


def test_the_given_label_is_always_among_the_bars() -> None:
    names = [f"class {i}" for i in range(10)]
    shown = html.probability_bars([(name, 0.1) for name in names], "class 9", limit=4)
    assert shown.count("<li>") == 5 and "class 9" in shown


def test_the_bar_of_a_card_compares_with_the_strongest() -> None:
    assert "width:50.0%" in cards.ranked_card(RankedRow(2, -1.0, IMAGE), "opp", 2.0, link)
    assert "width:0.0%" in cards.ranked_card(RankedRow(2, 0.0, IMAGE), "opp", 0.0, link)


def test_sides_have_a_sign_besides_their_colour() -> None:
    rows = [RankedRow(1, 0.5, IMAGE)]
    assert "▲ Proponents" in cards.ranked_column("pro", rows, 1.0, ("", "", ""), link)
    assert "▼ Opponents" in cards.ranked_column("opp", rows, 1.0, ("", "", ""), link)


def test_no_proponents_says_so() -> None:
    page = cards.ranked_column("pro", [], 0.0, ("", "", ""), link)
    assert "No proponents" in page and "above zero" in page


def test_noise_is_told_only_where_it_is_known() -> None:
    assert html.noise_badge(replace(IMAGE, planted=None)) == ""
    assert html.noise_badge(replace(IMAGE, planted=False)) == ""
    assert "truth 8" in html.noise_badge(replace(IMAGE, planted=True, truth="8"))


def test_the_confusion_matrix_links_every_cell_with_rows() -> None:
    counts = np.array([[5, 2, 0], [0, 4, 1], [0, 0, 6]])
    seen: list[tuple[str, str]] = []

    def cell(given: str, predicted: str) -> str:
        seen.append((given, predicted))
        return f"explain?given={given}&predicted={predicted}"

    found = Tags(tables.confusion(counts, ["a", "b", "c"], cell))
    assert seen == [("a", "a"), ("a", "b"), ("b", "b"), ("b", "c"), ("c", "c")]
    assert sum(tag == "a" for tag, _ in found.tags) == 5
    assert sum(tag == "th" for tag, _ in found.tags) == 6


def test_a_large_confusion_matrix_shows_the_classes_with_mistakes() -> None:
    counts = np.eye(40, dtype=int)
    counts[3, 7] = 9
    page = tables.confusion(counts, [f"c{i}" for i in range(40)], lambda given, predicted: "x")
    assert "10 classes with fewer mistakes" in page and ">c3<" in page and ">c7<" in page


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "not known yet"), (0.2, "under 1 s"), (42.0, "42 s"), (300.0, "5 min"), (9000.0, "2.5 h")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert jobs.duration(seconds) == words
