"""The help of options reads like that of click itself: each is a sentence."""

import pytest

from autograder.cli import main as autograder
from ebmcourse.cli import main as ebmcourse

COMMANDS = [command for main in (autograder, ebmcourse) for command in (main, *main.commands.values())]
OPTIONS = [option for command in COMMANDS for option in command.params if option.param_type_name == "option"]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_help_of_an_option_is_a_sentence(option):
    assert option.help and option.help[0].isupper() and option.help.endswith(".")
