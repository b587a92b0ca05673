"""Measurements, side by side with a peer in one run. `make bench` runs them all; none is a test."""
