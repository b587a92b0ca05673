"""The grader graded: known mistakes must lose points, other right solutions must not, cheats must gain nothing."""
