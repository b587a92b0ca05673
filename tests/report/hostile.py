"""A class in which every text that a student may choose attacks the browser of the reader."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

from report_sample import sample_class

from autograder.results import Result

RUNS = "top.ran=1,top.document.title=`ran`"
REQUESTS = "http://127.0.0.1:9/"
HOSTILE = (
    f"</p></style></title></code>\"'><script>{RUNS}</script><img src=x onerror='{RUNS}'>"
    f"<svg onload='{RUNS}'><style>*{{display:none}}</style><iframe srcdoc='<script>{RUNS}</script>'></iframe>"
    f"<img src={REQUESTS}i><link rel=stylesheet href={REQUESTS}c><script src={REQUESTS}s></script>"
    f"<meta http-equiv=refresh content='0;url={REQUESTS}m'><object data={REQUESTS}o></object>"
    f"<a href='javascript:{RUNS}'>{{{{ 7 * 7 }}}} {{% if %}} `<b>{RUNS}</b>` \u202egnp.\u202c \x1b[2J \x00 "
    f"<!-- ]]> --> {'W' * 300} {'e' + chr(0x301) * 40}"
)


def hostile_results() -> list[Result]:
    """Two attackers and a victim."""
    results = sample_class(3)[0]
    attacked = []
    for result in results[:2]:
        checks = [
            replace(
                check,
                status=status,
                points=0.0,
                diagnosis=HOSTILE + str(n),
                **({"title": HOSTILE, "hint": HOSTILE, "part": HOSTILE, "id": HOSTILE} if n == 3 else {}),
            )
            for n, (check, status) in enumerate(
                zip(result.checks, ["failed", "error", "timeout", "memory", "skipped"] * 5, strict=True)
            )
        ]
        attacked.append(replace(result, flags=[HOSTILE], checks=checks, submission_sha256=HOSTILE))
    name = f'"><script>{RUNS}<\\script> \u202egnp&lt;'
    return [attacked[0], replace(attacked[1], student=name), results[2]]


def hostile_submission(folder: Path) -> None:
    """Files with hostile names, a file that is not a picture, and a notebook with hostile outputs."""
    folder.mkdir(parents=True)
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x04\0\0\0\x04\x08\0\0\0\0"
    (folder / f'"><script>{RUNS}<\\script>.png').write_bytes(header + HOSTILE.encode())
    (folder / "page.png").write_text(HOSTILE)
    data = {
        "text/html": HOSTILE,
        "image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg' onload='{RUNS}'/>",
        "application/javascript": RUNS,
        "image/png": b64encode(header + HOSTILE.encode()).decode(),
    }
    outputs = [{"data": data}, {"data": {"image/png": f'"><script>{RUNS}</script>'}}]
    (folder / f"{'x' * 20}<svg onload='{RUNS}'>.ipynb").write_text(json.dumps({"cells": [{"outputs": outputs}]}))
