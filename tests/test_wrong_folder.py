"""`ebmcourse check` says what is wrong with a folder that is no assignment."""

import pytest

from ebmcourse.assignment import Unusable, describe


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "There is no folder .*nosuch: check the name"),
        ("jem/ex_model.py", "ex_model.py is a file: give the folder of the assignment"),
        (".", r"but there are assignments: go to the folder of one of them, or add its name \(jem\)"),
        ("slurm", "no folder `checks` in .*slurm: go to the folder of the assignment"),
    ],
)
def test_a_folder_that_is_no_assignment(tmp_path, name, message):
    (tmp_path / "jem" / "checks").mkdir(parents=True)
    (tmp_path / "jem" / "checks" / "assignment.toml").touch()
    (tmp_path / "jem" / "ex_model.py").touch()
    (tmp_path / "slurm").mkdir()
    with pytest.raises(Unusable, match=message):
        describe(tmp_path / name)
