# %% [markdown]
# # The free energy
#
# Write the function in `__PROGRAM__.py`; this notebook reloads the file when it changes.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext autoreload
# %autoreload 2
import __PROGRAM__
import torch

from ebmcourse.checking.notebook import check_part, once_written

# %% [markdown]
# **1a** Write `free_energy`. The cell below shows its values, from the mean of the energies (β → 0, up to a constant)
# to their minimum (β → ∞).

# %%
with once_written():
    energies = torch.tensor([[0.0, 1.0, 3.0]])
    for beta in (0.1, 1.0, 10.0, 100.0):
        print(f"β = {beta:5}  F = {__PROGRAM__.free_energy(energies, beta).item():.3f}")

# %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
check_part("1a")

# %% [markdown]
# **1b** (1 point) What is F for β → ∞, and why?

# %% [markdown] nbgrader={"grade_id": "answer-1b", "grade": true, "solution": true, "points": 1}
# The minimum energy: the sum is dominated by the state with this energy.
