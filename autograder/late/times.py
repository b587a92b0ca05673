"""Times as nbgrader writes them."""

import re
from datetime import UTC, datetime, tzinfo

TIMESTAMP = "timestamp.txt"
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?) ?(Z|UTC|GMT|[+-]\d\d:?\d\d)?")


def parse_time(text: str, zone: tzinfo | None = UTC) -> datetime:
    """Parse a time as nbgrader writes it (2026-11-30 12:00:00.000000 UTC) or in ISO format.

    A time without a zone gets `zone`.
    Raises ValueError for anything else, including names of zones such as CEST, which are not unique.
    """
    match = _STAMP.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text[:40]!r} is not a time such as 2026-11-30 12:00:00 UTC")
    if match[3] is None:
        return datetime.fromisoformat(f"{match[1]} {match[2]}").replace(tzinfo=zone)
    return datetime.fromisoformat(f"{match[1]} {match[2]}{match[3] if match[3][0] in '+-' else '+00:00'}")


def stamp(time: datetime) -> str:
    """Format a time as nbgrader writes it to `timestamp.txt`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
