"""Make the pictures of the report for the documentation: `python docs/make_report_pictures.py` (needs Chromium).

They show the sample class of the tests of the report, which is generated and always the same.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from autograder.drawings import Drawn, write_drawings
from autograder.grade.draw import draw
from autograder.report import write_report
from ebmcourse.checking.drawings import Drawing, Panel
from ebmcourse.checking.reference import PUBLIC_SEED, LiveReference

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests" / "report"))

from browser import Browser  # noqa: E402
from report_sample import sample_class, write_class  # noqa: E402

FOLDER = DOCS / "images" / "report"
STUDENT = "s012"
PHONE = {"width": 390, "height": 844, "zoom": 1.5, "phone": True}
# The rectangle around the section with a heading, and a margin.
BOX = """selector => {
  const {x, y, width, height} = document.querySelector(selector).parentElement.getBoundingClientRect();
  return {x: x - 16, y: y - 16, width: width + 32, height: height + 32, scale: 1};
}"""


def path_through_a_table() -> Drawn:
    """A table of energies with a valley, the best path through it, and one that ends too early."""
    row, column = np.mgrid[:12, :6]
    table = np.abs(column - row * 5 / 11) + 0.6 * np.random.default_rng(1).random((12, 6))
    right = [(i, j) for i, j in enumerate([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])]
    early = [(i, j) for i, j in enumerate([0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4])]

    def make(run: object) -> list[Panel]:
        return [Panel("Yours", table, early), Panel("Correct", table, right)]

    caption = "The path that your `find_path` takes through a table of energies (dark is low)."
    drawn = draw(Drawing("4b", caption, make), None, LiveReference(PUBLIC_SEED, DOCS))
    assert drawn
    return drawn


def with_a_palette(png: bytes) -> bytes:
    """The picture with 256 colours, which takes a third of the bytes."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main(target: Path = FOLDER) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, Browser(Path(folder) / "profile") as browser:
        results = write_class(Path(folder) / "results", *sample_class())
        write_drawings(results, "jem", STUDENT, [path_through_a_table()])
        # The gradebook has a second assignment, which some students have not handed in.
        later = (replace(result, assignment="structured_prediction") for result in sample_class(seed=2)[0])
        write_class(results, [result for n, result in enumerate(later) if n % 7 != 4], {})
        write_report(results)
        gradebook = (results / "index.html").as_uri()
        overview = (results / "jem" / "index.html").as_uri()
        feedback = (results / "jem" / "feedback" / f"{STUDENT}.html").as_uri()
        for name, page, look in (
            ("gradebook", gradebook, {"width": 1200, "height": 900}),
            ("class", overview, {"width": 1200, "height": 1300}),
            ("feedback", feedback, {"width": 900, "height": 1250}),
            ("gradebook_phone", gradebook, PHONE),
            ("class_phone", overview, PHONE),
            ("feedback_phone", feedback, PHONE),
            ("gradebook_dark", gradebook, {"width": 1200, "height": 700, "dark": True}),
            ("class_dark", overview, {"width": 1200, "height": 1000, "dark": True}),
            ("feedback_dark", feedback, {"width": 900, "height": 1000, "dark": True}),
        ):
            browser.look(**look)
            browser.open(page)
            (target / f"{name}.png").write_bytes(with_a_palette(browser.picture()))
        browser.look(width=900)
        browser.open(feedback)
        box = browser.value(f"({BOX})('#drawings')")
        (target / "drawing.png").write_bytes(with_a_palette(browser.picture(clip=box)))


if __name__ == "__main__":
    main()
