"""Late penalties: deadlines and policies, times of submission, and the points that are deducted.

`course` reads the rules, `submitted` determines the time of a submission, and `policy` computes the deduction.
"""

from autograder.late.course import Policy, Rules, read_rules
from autograder.late.policy import Lateness, lateness, of_results, with_penalty, without_result
from autograder.late.submitted import Submitted, submission_time
from autograder.late.times import TIMESTAMP, parse_time

__all__ = [
    "TIMESTAMP",
    "Lateness",
    "Policy",
    "Rules",
    "Submitted",
    "lateness",
    "of_results",
    "parse_time",
    "read_rules",
    "submission_time",
    "with_penalty",
    "without_result",
]
