"""Text never becomes markup."""

import html
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.simulation.report.markup import Markup, coordinate, join, shortened, tag, text


def test_text_is_escaped_and_markup_is_not() -> None:
    assert text("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert text(Markup("<b>")) == "<b>"
    assert join("<", Markup("<b/>")) == "&lt;<b/>"


def test_children_and_attributes_are_escaped() -> None:
    assert tag("p", "</p>", title='"><script>') == (
        '<p title="&quot;&gt;&lt;script&gt;">&lt;/p&gt;</p>'
    )


def test_attributes_are_named_and_written_for_html() -> None:
    made = tag("rect", class_="bar", aria_hidden="true", x=1.26, y=2.0, height=None)
    assert made == '<rect class="bar" aria-hidden="true" x="1.3" y="2"/>'


def test_elements_that_may_have_children_have_an_end() -> None:
    assert tag("p") == "<p></p>"
    assert tag("rect", tag("title", "one")) == "<rect><title>one</title></rect>"


@given(st.text(st.characters()))
def test_any_text_is_well_formed_and_comes_out_as_it_was(value: str) -> None:
    made = tag("p", value, title=value)
    made.encode()
    found = ElementTree.fromstring(made)
    assert (found.text or "").replace("\n", "") == html.unescape(text(value)).replace(
        "\r\n", "\n"
    ).replace("\r", "\n").replace("\n", "")


@pytest.mark.parametrize("illegal", ["\x00", "\x0b", "\x1f", "\ud800", "\uffff"])
def test_what_no_document_may_hold_is_replaced(illegal: str) -> None:
    assert text(f"a{illegal}b") == "a\ufffdb"


@pytest.mark.parametrize(
    ("value", "written"), [(0.0, "0"), (-0.04, "0"), (3.0, "3"), (3.14, "3.1"), (-2.55, "-2.5")]
)
def test_coordinates_are_to_a_tenth(value: float, written: str) -> None:
    assert coordinate(value) == written


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert shortened("interactive", 11) == "interactive"
    assert shortened("interactive", 8) == "interac…"
