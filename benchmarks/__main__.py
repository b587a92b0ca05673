"""`python -m benchmarks [NAME …]`: run the benchmarks, print one table, write build/bench.json.

Every module of this package with a function ``run(quick=False)`` is a benchmark. It returns rows with the keys
``case``, ``ours_ms``, ``peer``, ``peer_ms`` and ``ratio`` (ours / peer; None where there is no peer). What is no time,
an accuracy for example, stands as text under ``value``.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks


def main() -> None:
    """Run the named benchmarks, or all."""
    names = [name for _, name, _ in pkgutil.iter_modules(benchmarks.__path__) if name != "__main__"]
    rows = []
    for name in sys.argv[1:] or names:
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "run"):
            rows += [{"benchmark": name, **row} for row in module.run()]
    table = Table(
        "benchmark", "case", "ours [ms], or the value", "peer", "peer [ms]", "ratio", title=f"{os.cpu_count()} cores"
    )
    for row in rows:
        numbers = [f"{row[key]:.3g}" if row.get(key) is not None else "–" for key in ("ours_ms", "peer_ms", "ratio")]
        ours = row.get("value") or numbers[0]
        table.add_row(row["benchmark"], row["case"], ours, row.get("peer") or "–", numbers[1], numbers[2])
    Console().print(table)
    file = Path("build") / "bench.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
