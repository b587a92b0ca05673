"""Data sets of the course: printed glyphs, handwritten digits, and the fonts from which letters are drawn."""
