"""A student's markdown, rendered in the same way as on nbgrader's pages, where the instructor is logged in."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath

from autograder.export.markdown import harmless

# The elements and attributes that the renderer itself creates from markdown.
TAGS = {f"h{n}" for n in range(1, 7)} | {"p", "em", "strong", "code", "pre", "a", "ul", "ol", "li", "blockquote", "hr"}
TAGS |= {"br", "del", "img", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd"}
TAGS |= {"div", "span"}  # around formulas and highlighted code
ATTRIBUTES = {"href", "src", "alt", "title", "class", "id", "align", "style", "start"}


PICTURES = {"a.png": {"image/png": "aGFsbG8="}}


def markdown2html(text: str) -> str:
    """Convert to HTML as for formgrader and feedback (`HTMLExporter.markdown2html`)."""
    return MarkdownWithMath(renderer=IPythonRenderer(escape=False, attachments=PICTURES)).render(text)


def shown(text: str) -> str:
    return markdown2html(harmless(text, PICTURES))


class Found(HTMLParser):
    """Collects everything that could run code or load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.complaints: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.complaints.append(f"<{tag}>")
        for name, value in attrs:
            target = (value or "").strip().lower()
            if name not in ATTRIBUTES:
                self.complaints.append(name)
            if name == "href" and not target.startswith(("http://", "https://", "mailto:", "#")):
                self.complaints.append(f"{name}={value}")
            if name == "src" and not target.startswith("data:image/png;base64,"):
                self.complaints.append(f"{name}={value}")
            if name == "style" and not target.startswith("text-align:"):
                self.complaints.append(f"{name}={value}")

    def handle_comment(self, data: str) -> None:
        self.complaints.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.complaints.append("declaration")


COMMANDS = r"""
\href{javascript:alert(1)}{x} \href1 \href_1 \style{position:fixed}{x} \class{c}{x} \cssId{c}{x} \data{a=b}{x}
\mmlToken{mi}[href="javascript:alert(1)"]{x} \bbox[background:url(//x)]{x} \enclose{box}[style="x"]{x}
\unicode[serif]{65} \char65 \U{65} \toggle{x}{y}\endtoggle \mathtip{x}{y} \texttip{x}{y}
\require{html} \setOptions{a=b} \mathtoolsset{a=b} \includegraphics{//x} \url{//x}
\def\a{\a\a} \gdef\a{x} \global\let\a=\b \let\a=\b \newcommand{\a}{\a\a} \renewcommand{\a}{x} \providecommand{\a}{x}
\newenvironment{a}{b}{c} \renewenvironment{a}{b}{c} \definecolor{red}{rgb}{1,1,1} \Newextarrow{\a}{1,1}{65}
\DeclareMathOperator{\a}{\a\a} \DeclareMathOperator*{\a}{\a\a}
\DeclarePairedDelimiter{\a}{(}{)} \DeclarePairedDelimiters{\a}{(}{)} \DeclarePairedDelimitersX{\a}[1]{(}{)}{x}
\DeclarePairedDelimitersXPP{\a}[1]{a}{(}{)}{b}{x}
\rule{99em}{99em} \Rule{99em}{99em}{9em} \Space{99em}{99em}{9em} \raise99em{x} \lower99em{x} \moveleft99em{x}
\moveright99em{x}
"""
OF_MATHS = (
    r"\frac{\partial E}{\partial w} \text{x} \lambda \left( \hat y \right) \mathcal L \color{red}{x} \hspace{1em}"
    r" \operatorname{a} \styled \defn \classes \letter \uparrow \mu \chi \rulex"
)


@pytest.mark.parametrize("command", re.findall(r"\\[A-Za-z]+[^\s\\]*", re.sub(r"(?<=\S)\\\w+", "", COMMANDS)))
def test_a_command_that_does_more_than_show_a_formula_is_no_command(command):
    name = re.match(r"\\[A-Za-z]+", command)[0]
    assert re.search(rf"{re.escape(name)}(?![A-Za-z])", harmless(f"${command}$")) is None


def test_other_commands_stay():
    assert harmless(f"${OF_MATHS}$") == f"${OF_MATHS}$"


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</p><svg/onload=alert(1)>",
    "<!-- --><iframe srcdoc='x'>",
    "<?php ?>",
    "a\n\n<div\nonclick=alert(1)>b</div>",
    "[a](javascript:alert(1))",
    "[a]( javascript:alert(1))",
    "[a](<javascript:alert(1)>)",
    "[a](\njavascript:alert(1))",
    "[a](java&#115;cript:alert(1))",
    "[a](&#x6A;avascript:alert(1))",
    "[a](https://x 'b' onclick=alert(1))",
    '[a](https://x" onclick="alert(1))',
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a][b]\n\n[b]: javascript:alert(1)",
    "[b]\n\n[b]:\njavascript:alert(1)",
    "<javascript:alert(1)>",
    "![a](https://elsewhere/pixel.png)",
    "![a][b]\n\n[b]: https://elsewhere/pixel.png",
    "[![a](https://elsewhere/pixel.png)](https://x)",
    "![[a]](https://elsewhere/pixel.png)",
    "![a](attachment:a.png)![b](https://elsewhere/pixel.png)",
    "`<b>`` <script>alert(1)</script>",
    "```\n<b>\n``` <script>\n```\n<script>alert(1)</script>",
    "$<script>alert(1)</script>$",
    "\\<script>alert(1)</script>",
    "|a|b|\n|-|-|\n|<script>|[x](javascript:alert(1))|",
    "<\0script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_neither_run_nor_load_anything(text: str) -> None:
    assert Found(shown(text)).complaints == []


def test_most_attacks_work_without_harmless() -> None:
    """The renderer does not stop them, and the test notices."""
    assert sum(bool(Found(markdown2html(text)).complaints) for text in ATTACKS) > len(ATTACKS) / 2


def test_a_missing_picture_does_not_stop_nbgrader() -> None:
    with pytest.raises(InvalidNotebook, match="missing attachment"):
        markdown2html("![](attachment:other.png)")
    assert "attachment:other.png" in shown("![](attachment:other.png)")


PIECES = st.sampled_from(
    [
        *"<>/!?[]()`$*_\\&;: \n\"'#|-",
        "script",
        "img",
        "onerror=x",
        "javascript:",
        "https://x",
        "attachment:a.png",
        "![",
        "](",
    ]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=25).map("".join))
@example("![](attachment:b.png)")
@example("<![a](attachment:a.png)")
@example("[![a](attachment:a.png)](javascript:x)")
@example("[<](https://x)")
@example("<\n: ")
def test_any_combination_of_pieces_is_harmless(text: str) -> None:
    assert Found(shown(text)).complaints == []


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Because **low** energy is *likely*.", "<strong>low</strong> energy is <em>likely</em>"),
        ("See [here](https://example.org/a_b?c=1) (p. 3).", '<a href="https://example.org/a_b?c=1">here</a>'),
        ("![a](attachment:a.png)", 'src="data:image/png;base64,aGFsbG8="'),
        ("if x < 3 and y > 4:", "x &lt; 3 and y &gt; 4"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "<td>1</td>"),
        ("> quoted\n\n1. one\n2. two", "<blockquote>"),
        ("`torch.zeros(3)[1](x)`", "torch.zeros"),
    ],
)
def test_ordinary_markdown_is_kept(text: str, html: str) -> None:
    assert html in shown(text)


def test_formulas_are_kept_without_their_links() -> None:
    assert harmless(r"$E_\theta(x) < -f$ and $a<0$") == r"$E_\theta(x) < -f$ and $a<0$"
    assert "href" not in harmless(r"$\href{javascript:alert(1)}{x}$").replace(r"\,href", "")
    assert r"\href" not in harmless(r"\\href{}") and r"\style" not in harmless(r"$\style{x}{y}$")
