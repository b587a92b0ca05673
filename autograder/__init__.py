"""The instructors' tool: releases, grades and reports assignments; names none of them."""


class Failure(Exception):
    """Something was found wrong: a command ends with the message in one line and with exit code 1."""
