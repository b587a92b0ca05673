"""The options of the commands."""

import click


class Choice(click.Choice[str]):
    """One of a few words; the message about another word lists them."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        return f"{value!r} is unknown. Choose one of: {', '.join(self.choices)}."
