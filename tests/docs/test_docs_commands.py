"""Every command in the documentation runs, page by page, in a copy of the course."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import Block, blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"sh", "python", "pycon", "toml", "text"}
MOST_NOT_RUN = 13

WITH_COMMANDS = [page for page in PAGES if any(block.language == "sh" for block in blocks(page))]


def commands(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "sh"]


@pytest.fixture(scope="session")
def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a git checkout, so the files of the course are not known")
    return [name for name in listed.stdout.decode().split("\0") if name]


@pytest.fixture
def course(tmp_path, tracked):
    """A copy of the course, with its own environment, exchange and home."""
    root = tmp_path / "course"
    for name in tracked:
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    for package in ("autograder", "ebmcourse"):  # what has been compiled, which takes half a minute
        for cache in (ROOT / package).rglob("__pycache__"):
            shutil.copytree(cache, root / cache.relative_to(ROOT), dirs_exist_ok=True)
    scripts = root / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for path in Path(sys.executable).parent.iterdir():
        if path.name.startswith("python"):  # a link would be an environment without packages
            (scripts / path.name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            (scripts / path.name).chmod(0o755)
        else:
            (scripts / path.name).symlink_to(path)
    (root / ".venv" / "ready").touch()  # for make
    for name in ("home", "exchange"):
        (tmp_path / name).mkdir(mode=0o777)
    (tmp_path / "exchange").chmod(0o777)
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_every_command_of_the_page_runs(page, course):
    """The blocks run one after another, each in the working directory of the previous one."""
    state = course.parent / "state"
    environment = os.environ | {
        "HOME": str(course.parent / "home"),
        "PATH": f"{course / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(course),  # the copy, not the checkout that is installed
        "NBGRADER_EXCHANGE": str(course.parent / "exchange"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    for block in commands(page):
        if block.not_run:
            continue
        script = f"set -eo pipefail; [ ! -f {state} ] || . {state}; {block.before}\n"
        if block.code:
            script += f"code=0\n(set -e\n{block.text}) || code=$?\n[ $code = {block.code} ]\n"
        else:
            script += block.text
        script += f'\nprintf "cd %q\\n" "$PWD" > {state}\n'
        done = subprocess.run(
            ["bash", "-c", script], cwd=course, env=environment, capture_output=True, text=True, timeout=900
        )
        said = (
            f"{page.name}, line {block.line}, ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, said


def test_blocks_have_a_language_and_comments_are_valid():
    for page in PAGES:
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{page.name}, line {block.line}: ```{block.language}"
            assert not (block.not_run and block.before), (
                f"{page.name}, line {block.line}: `before` needs a block that runs"
            )
        text = page.read_text("utf-8")
        told = len(re.findall("<!--", text))
        used = sum(bool(block.not_run) + bool(block.code) + bool(block.before) for block in blocks(page))
        assert told == used, f"{page.name}: a comment does not belong to a block, or is invalid"


def test_few_blocks_are_not_run_and_each_has_a_reason():
    left_out = [(page.name, block) for page in PAGES for block in commands(page) if block.not_run]
    assert len(left_out) <= MOST_NOT_RUN
    run = sum(not block.not_run for page in PAGES for block in commands(page))
    assert run > len(left_out)
    for name, block in left_out:
        assert len(block.not_run) > 10, f"{name}, line {block.line}"
        for file in re.findall(r"tests/[\w/]+(?:\.py)?", block.not_run):
            assert (ROOT / file).exists(), f"{name}, line {block.line}: there is no {file}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_are_valid_and_their_imports_work(page):
    """Examples with output run in tests/gtn and tests/lattice; examples of checks cannot run on their own."""
    for block in blocks(page):
        if block.language == "python":
            tree = compile(block.text, f"{page.name}:{block.line}", "exec")
            imports = [line for line in block.text.splitlines() if re.match(r"(from|import) ", line)]
            exec("\n".join(imports), {})
            assert tree.co_code


def test_options_in_the_text_exist():
    """Inline `command --option` must be an option of that command."""
    from autograder.cli import main as autograder
    from ebmcourse.cli import main as ebmcourse

    known = {"autograder": autograder, "ebmcourse": ebmcourse}
    for page in PAGES:
        for tool, name, rest in re.findall(r"`(autograder|ebmcourse) (\w+)([^`]*)`", page.read_text("utf-8")):
            command = known[tool].commands.get(name)
            assert command is not None, f"{page.name}: {tool} has no command {name}"
            options = {option for parameter in command.params for option in parameter.opts}
            for option in re.findall(r"--[a-z]+", rest):
                assert option in options | {"--help"}, f"{page.name}: {tool} {name} has no option {option}"


def test_the_tables_of_the_pages_are_up_to_date():
    sys.path.append(str(ROOT / "docs"))
    from make_tables import pages

    for page, text in pages().items():
        assert page.read_text("utf-8") == text, f"{page.name} is not up to date: run `python docs/make_tables.py`"


def test_the_pictures_of_the_readme_exist_and_are_small():
    readme = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    described = re.findall(r"^\| \*\*`(\w+)`\*\* \|", readme, re.MULTILINE)
    assert len(described) >= 4 and len(pictures) >= 2 + len(described)
    for name in pictures:
        assert (ROOT / name).stat().st_size < 150_000, name


def test_the_students_configuration_of_nbgrader_is_that_of_the_hand_out():
    (shown,) = (block.text for block in blocks(ROOT / "docs" / "nbgrader.md") if block.language == "python")
    assert shown == (ROOT / "autograder/release/template/handout/nbgrader_config.py").read_text("utf-8")
