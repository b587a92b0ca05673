"""Finds bubblewrap, without importing torch. Runs outside."""

import shutil

from autograder import Failure


class Unavailable(Failure):
    """This machine cannot confine submissions; the message says what to do."""


def bubblewrap() -> str:
    """The path of the program; raises `Unavailable` where it is not installed."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise Unavailable(
            "Submissions cannot be confined: bubblewrap is not installed. Install it (Debian, Ubuntu: "
            "`sudo apt-get install bubblewrap`; Fedora: `sudo dnf install bubblewrap`), or grade with --unconfined "
            "if you trust every submission."
        )
    return bwrap
