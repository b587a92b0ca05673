"""The text of Python files, and their syntax errors, before anything is imported."""

import pytest

from ebmcourse.syntax import first_error, python_text


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfx = 1\n",
        "# coding: latin-1\nx = 'ü'\n".encode("latin-1"),
        "# coding: gbk\nx = '能'\n".encode("gbk"),
    ],
)
def test_what_python_reads_is_no_error(tmp_path, content):
    (tmp_path / "program.py").write_bytes(content)
    assert first_error(tmp_path) is None


@pytest.mark.parametrize(
    "content", [b"x = '\xfc'\n", b"# coding: no-such\n", b"\xef\xbb\xbf# coding: latin-1\n", b"\xff\xfe"]
)
def test_what_python_cannot_decode_is_one(tmp_path, content):
    (tmp_path / "program.py").write_bytes(content)
    error = first_error(tmp_path)
    assert error.filename == "program.py" and "not UTF-8 text" in error.msg


@pytest.mark.parametrize(("content", "line"), [(b"x = 1\n\n# M\xfcller\n", 3), (b"# coding: no-such\nx = 1\n", 1)])
def test_the_line_that_cannot_be_decoded_is_named(tmp_path, content, line):
    (tmp_path / "program.py").write_bytes(content)
    assert first_error(tmp_path).lineno == line


@pytest.mark.parametrize(
    "text", ["", "x = 1", "x = 'β'\r\n", "\x0c# a\n", "# coding=utf-8\n", "x = 1\n\n# coding: latin-1\n"]
)
def test_utf_8_is_kept_as_it_is(text):
    assert python_text(text.encode()) == text
