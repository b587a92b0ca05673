"""The students' library of the course: data sets, checks, a weighted-automata engine and dense lattices."""
