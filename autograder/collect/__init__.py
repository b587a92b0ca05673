"""Submissions from other systems, put into nbgrader's layout `submitted/<student>/<assignment>/`.

A source is a zip file or a folder, of one kind (`kinds`); each kind has a module that says whose a file is. Files of
students are never trusted (`archive`), and no submission can stop the others. Existing submissions are overwritten
only on request.
"""

from autograder.collect.collecting import Collected, collect
from autograder.collect.kinds import KINDS
from autograder.collect.roster import Roster, read_roster

__all__ = ["KINDS", "Collected", "Roster", "collect", "read_roster"]
