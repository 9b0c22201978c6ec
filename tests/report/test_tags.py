from __future__ import annotations

from minitx.report.page import Html, join, tag


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = tag("b", "a < b & 'c'")
    assert inner == "<b>a &lt; b &amp; &#x27;c&#x27;</b>"
    assert tag("p", inner, "<i>") == f"<p>{inner}&lt;i&gt;</p>"
    assert join(["<", Html("<br>")], " ") == "&lt; <br>"


def test_attributes() -> None:
    assert tag("td", class_="x", data_label='"q"', title=None) == '<td class="x" data-label="&quot;q&quot;"></td>'
    assert tag("img", src="a&b") == '<img src="a&amp;b">'
