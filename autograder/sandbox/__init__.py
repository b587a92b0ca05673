"""Confinement of submissions: a sandbox with a warm process, from which every submission gets a child of its own."""

from autograder.sandbox.sandbox import Sandbox, Unavailable

__all__ = ["Sandbox", "Unavailable"]
