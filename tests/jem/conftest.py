"""The programs of `solutions/jem`, importable by their names, and a fixed seed."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "solutions" / "jem"))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
