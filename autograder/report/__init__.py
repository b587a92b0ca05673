"""HTML pages for students and instructors and a table for the terminal, made from the result files."""

from autograder.report.pages import write_report
from autograder.report.table import class_table

__all__ = ["class_table", "write_report"]
