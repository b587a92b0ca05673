"""What the sandbox shows: links are followed, folders that hold others come once, and nothing above them is shown."""

import os
from pathlib import Path

import pytest

from autograder.sandbox import visible
from autograder.sandbox.visible import bind_arguments, needed_below, needed_paths, resolve


@pytest.fixture
def tree(tmp_path):
    tmp_path = Path(os.path.realpath(tmp_path))
    for name in ("python/3.11/bin", "python/3.11/lib/stdlib", "env/bin", "env/lib/packages", "secrets"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "python/3.11/bin/python3.11").touch()
    (tmp_path / "python/3.11/bin/python3").symlink_to("python3.11")
    (tmp_path / "python/3").symlink_to(tmp_path / "python/3.11")
    (tmp_path / "env/bin/python").symlink_to("../../python/3/bin/python3")
    (tmp_path / "env/lib/packages/link").symlink_to("../../../secrets")
    return tmp_path


def test_links_are_shown_with_all_that_they_lead_through(tree):
    links, targets = resolve([tree / "env/bin/python"])
    assert links == {
        tree / "env/bin/python": "../../python/3/bin/python3",
        tree / "python/3": str(tree / "python/3.11"),
        tree / "python/3.11/bin/python3": "python3.11",
    }
    assert targets == [tree / "python/3.11/bin/python3.11"]


def test_what_is_in_a_shown_folder_is_not_shown_again(tree):
    paths = [tree / "env/lib", tree / "env/lib/packages", tree / "env/bin/python", tree / "python/3.11"]
    links, targets = resolve(paths)
    assert targets == [tree / "env/lib", tree / "python/3.11"]
    assert set(links) == {tree / "env/bin/python", tree / "python/3"}


def test_a_link_in_a_shown_folder_does_not_show_what_it_leads_to(tree):
    assert not any("secrets" in argument for argument in bind_arguments([tree / "env/lib"]))


def test_every_folder_on_the_way_can_be_passed_by_any_user(tree):
    arguments = bind_arguments([tree / "env/lib/packages"])
    dirs = [arguments[place + 1] for place, word in enumerate(arguments) if word == "--dir"]
    assert dirs == sorted(map(str, (tree / "env/lib/packages").parents))[1:]
    assert arguments.count("0755") == len(dirs)
    assert arguments[-3:] == ["--ro-bind", *[str(tree / "env/lib/packages")] * 2]


def test_neither_usr_nor_a_home_nor_the_course_is_shown_whole():
    _, targets = resolve(needed_paths())
    course = visible.LIBRARY.parent
    whole = {Path("/"), Path("/usr"), Path("/usr/local"), Path("/usr/share"), Path.home(), *Path.home().parents, course}
    assert not whole & set(targets)
    assert not [target for target in targets if "share" in target.parts]


def test_what_is_needed_below_a_folder_comes_with_its_links(monkeypatch, tree):
    monkeypatch.setattr(visible, "needed_paths", lambda: [tree / "env/bin/python", tree / "env/lib/packages"])
    assert needed_below(tree / "env") == {
        str(tree / "env/lib/packages"): "",
        str(tree / "env/bin/python"): "../../python/3/bin/python3",
    }
