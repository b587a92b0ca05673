"""The self-test holds here, fails where a part of the confinement is missing, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner

from autograder.cli import main as autograder
from autograder.sandbox import outside, selftest, visible
from autograder.sandbox.selftest import failures, planted, private_places, run_all

pytestmark = pytest.mark.usefixtures("needs_sandbox")


@pytest.fixture
def outside_tmp():
    """A folder outside of /tmp, which every submission has for itself."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_every_proof_holds():
    assert failures() == []


@pytest.mark.slow
def test_without_the_filter_of_system_calls_the_proofs_about_it_fail(monkeypatch):
    monkeypatch.setattr(outside, "seccomp_filter", lambda: b"")
    broken = {title.partition(",")[0]: complaint for title, complaint in run_all() if complaint}
    for title, found in {
        "no sockets": "family 40",  # AF_VSOCK
        "no privileges": "new users",
        "no locks that others notice": "record lock",
        "no second process": "clone",
    }.items():
        assert found in broken.pop(title)
    (held,) = (title for title in broken if "the kernel holds" in title)
    assert int(held.split()[3]) > 100 * 2**20


@pytest.mark.slow
def test_folders_that_should_not_be_visible_are_named(monkeypatch, outside_tmp):
    """The exchange, the course, and the rest of /usr, as if they were on the list of what Python needs."""
    exchange, course = outside_tmp / "exchange", outside_tmp / "course"
    for folder in (exchange, course / "solutions"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("NBGRADER_EXCHANGE", str(exchange))
    more = [exchange, course / "solutions", Path("/usr/bin"), Path("/usr/share")]
    monkeypatch.setattr(outside, "needed_paths", lambda: [*visible.needed_paths(), *more])
    found = list(run_all(course))
    (places, system) = [complaint for _, complaint in found if complaint]
    assert str(exchange) in places and str(course) in places and "/usr/bin" in system
    assert not list(outside_tmp.rglob(".autograder-selftest-*"))


def test_the_configured_exchange_is_among_the_places_that_are_looked_at(monkeypatch, tmp_path):
    for name in ("default", "environment", "configured", "course"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(selftest, "EXCHANGE", tmp_path / "default" / "not yet made")
    monkeypatch.setenv("NBGRADER_EXCHANGE", str(tmp_path / "environment"))
    config = f"c = get_config()\nc.Exchange.root = {str(tmp_path / 'configured')!r}\n"
    (tmp_path / "course" / "nbgrader_config.py").write_text(config)
    assert {tmp_path / name for name in ("default", "environment", "configured", "course")} <= {
        *private_places(tmp_path / "course")
    }


def test_a_damaged_configuration_of_nbgrader_stops_nothing(tmp_path):
    (tmp_path / "nbgrader_config.py").write_text("c.Exchange.root = 1 / 0\n")
    assert tmp_path in private_places(tmp_path)


def test_plants_are_removed_also_after_an_interrupt(tmp_path):
    with pytest.raises(KeyboardInterrupt), planted([tmp_path]) as plants:
        assert [Path(plant).read_text() for plant in plants] == ["secret"]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_plant(tmp_path):
    program = "import sys; from pathlib import Path; from autograder.sandbox import selftest; "
    program += "selftest._report = lambda *_: __import__('time').sleep(60); "
    program += "list(selftest.run_all(Path(sys.argv[1])))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) != []
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert list(tmp_path.iterdir()) == []


def test_plants_of_a_self_test_that_was_killed_are_removed_and_those_of_a_running_one_are_not(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, used, another = (
        tmp_path / f"{selftest.PLANT}{host}-{number}-0a"
        for host, number in (
            (socket.gethostname(), ended.pid),
            (socket.gethostname(), os.getppid()),
            ("elsewhere", ended.pid),
        )
    )
    for path in (left, used, another):
        path.write_text("secret")
    with planted([tmp_path]):
        assert not left.exists() and used.exists() and another.exists()


def test_nothing_is_planted_in_other_people_s_folders(tmp_path):
    if os.getuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    else:
        tmp_path = Path("/")
    with planted([tmp_path]) as plants:
        assert plants == []


@pytest.mark.parametrize("complaint", [None, "a host answered"])
def test_the_last_line_of_the_command_says_whether_to_grade_here(monkeypatch, complaint):
    monkeypatch.setattr(selftest, "run_all", lambda course: [("a wall", None), ("no network", complaint)])
    done = CliRunner().invoke(autograder, ["selftest"])
    if complaint is None:
        assert done.exit_code == 0 and done.stdout.endswith(
            "All 2 tests passed: submissions can be graded on this machine.\n"
        )
    else:
        assert done.exit_code == 1 and "BROKEN  no network: a host answered" in done.stdout
        assert "1 of 2 tests failed: do not grade on this machine" in done.stderr
