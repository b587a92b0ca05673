"""A realistic sample class: 20 students, 25 checks, known mistakes, and a few flags."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from autograder.results import Result, Timings, write_result, write_timings
from ebmcourse.checking.outcome import Outcome

# (id, title, points, public, hint, diagnoses, id of the check that it waits for)
CHECKS: list[tuple[str, str, float, bool, str, list[str], str | None]] = [
    (
        "3.1/splits",
        "`get_datasets` gives the five sets with their sizes",
        0.5,
        True,
        "The first tensor in each file is X, the second y.",
        [],
        None,
    ),
    (
        "3.2a/logits-shape",
        "`get_logits` returns the K class scores of every image",
        1,
        True,
        "One raw score per class: shape (B, K), no softmax.",
        ["Your scores are normalized by a softmax: return the output of the linear layer."],
        None,
    ),
    (
        "3.2a/logits-gradient",
        "The scores are connected to the graph",
        0.5,
        False,
        "Is there a `detach()` or `no_grad()` in your code?",
        [],
        "3.2a/logits-shape",
    ),
    (
        "3.2b/unconditional",
        "`forward(x)` is log-sum-exp over the class scores",
        1.5,
        True,
        "f(x) = log Σ exp f(x)[y], computed stably.",
        [
            "Your energies have the opposite sign: the network models `f = -E`.",
            "You take the largest score instead of the log of the sum of exponentials.",
        ],
        None,
    ),
    (
        "3.2b/conditional",
        "`forward(x, y)` is the score of class y",
        1.5,
        True,
        "Use `gather` along the class axis, then remove this axis.",
        [
            "Your result has shape (B, 1), which broadcasts to (B, B) in a later sum. Remove the class axis.",
            "You return the exponential of the score; the score itself is the log-density.",
        ],
        None,
    ),
    (
        "3.2b/stable",
        "`forward` stays finite for large scores",
        1,
        False,
        "`torch.logsumexp` subtracts the largest score before it takes the exponential.",
        ["Your value is infinite for scores near 200: subtract the largest score before the exponential."],
        "3.2b/unconditional",
    ),
    (
        "3.3a/fresh-chains",
        "New chains are Gaussian with σ = 0.01",
        0.5,
        True,
        "Draw around 0, so that chains start inside [-1, 1].",
        ["Your chains start with σ = 1, far outside [-1, 1]."],
        None,
    ),
    (
        "3.3a/share",
        "About 5 % of the chains are new",
        0.5,
        False,
        "The other chains come from the buffer.",
        [],
        None,
    ),
    (
        "3.3a/buffer-written",
        "The buffer contains the results of the last chains",
        1,
        False,
        "Write the chains to the buffer after the last step.",
        ["The buffer is never written.", "The buffer is created again in each call."],
        None,
    ),
    (
        "3.3a/buffer-bounded",
        "The buffer has at most `cbuffer_size` entries",
        0.5,
        False,
        "Remove the oldest chains.",
        [],
        "3.3a/buffer-written",
    ),
    (
        "3.3b/gradient",
        "The step follows the gradient of f with respect to the image",
        1.5,
        True,
        "Only the image needs a gradient here; clamp it to ±0.03.",
        ["You descend along the gradient instead of ascending.", "The gradient is not clamped."],
        None,
    ),
    (
        "3.3b/parameters-frozen",
        "The state of the parameters is restored",
        1,
        False,
        "Restore `requires_grad` and the training mode afterwards.",
        ["The parameters stay frozen after sampling.", "The model is left in evaluation mode."],
        None,
    ),
    (
        "3.3c/noise",
        "Each step adds noise of σ = 0.005",
        1,
        True,
        "Does the operation change the tensor in place?",
        ["The noise has no effect: `add` without its underscore returns a new tensor."],
        None,
    ),
    (
        "3.3c/range",
        "Samples stay in [-1, 1]",
        0.5,
        True,
        "Clamp after each step.",
        ["The clamp has no effect: `clamp` without its underscore returns a new tensor."],
        None,
    ),
    (
        "3.3c/no-graph",
        "Samples have no graph",
        0.5,
        False,
        "Detach what you return.",
        ["The samples have the graph of all steps."],
        None,
    ),
    (
        "3.3c/steps-shape",
        "`return_img_per_step` returns all steps",
        0.5,
        True,
        "Stack along a new first axis.",
        [],
        None,
    ),
    (
        "3.4a/divergence",
        "`px_step` is the contrastive divergence of f",
        1.5,
        True,
        "The loss increases f for data and decreases it for samples: check the sign.",
        ["The loss has the opposite sign.", "You compare pixels instead of values of f."],
        None,
    ),
    (
        "3.4a/regulariser",
        "The L2 term has weight α",
        1,
        False,
        "α is the weight of the squared terms only.",
        ["α multiplies the contrastive term.", "The L2 term is missing."],
        "3.4a/divergence",
    ),
    (
        "3.4b/cross-entropy",
        "`pyx_step` is the cross-entropy of the labels",
        0.5,
        True,
        "Pass unnormalized scores to `cross_entropy`.",
        ["The softmax is applied twice."],
        "3.2a/logits-shape",
    ),
    (
        "3.4c/weights",
        "`training_step` adds the losses with the weight λ",
        1,
        False,
        "`self.hparams.lmbd`.",
        ["`lmbd` is ignored."],
        "3.4a/divergence",
    ),
    (
        "3.4c/logs",
        "The validation logs the two required names",
        0.5,
        True,
        "`val_contrastive_divergence` and `val_MulticlassAveragePrecision`.",
        ["`val_MulticlassAveragePrecision` is missing."],
        None,
    ),
    (
        "3.5a/generate",
        "`run_generation` draws one sample for each class",
        1,
        True,
        "Pass `clabel` to the sampler.",
        [],
        "3.3c/noise",
    ),
    (
        "3.6a/scores",
        "Scores are larger for outliers",
        1.5,
        True,
        "E = -f is large where x is unlikely.",
        ["Your scores are larger for inliers, so AUROC becomes 1 - AUROC."],
        None,
    ),
    (
        "3.6a/mass",
        "`score='mass'` uses the norm of the gradient",
        1,
        False,
        "Pass the model to `grad_norm`.",
        [],
        "3.6a/scores",
    ),
    (
        "3.6c/auroc",
        "AUROC, AUPR and FPR95 with outliers as the positive class",
        1.5,
        False,
        "Use the scores without a threshold.",
        ["You give hard labels instead of scores.", "In- and out-of-distribution are swapped."],
        "3.6a/scores",
    ),
]


def sample_class(students: int = 20, seed: int = 1) -> tuple[list[Result], dict[str, Timings]]:
    """Results and timings; the same for the same arguments."""
    draw = random.Random(seed)
    difficulty = {check[0]: draw.uniform(-2.2, 0.6) for check in CHECKS}
    results, timings = [], {}
    for n in range(1, students + 1):
        student = f"s{n:03}"
        ability = draw.gauss(0.4, 1.3)
        lost: set[str] = set()
        checks = []
        for id_, title, points, public, hint, diagnoses, needs in CHECKS:
            diagnosis = None
            status = "passed"
            if needs in lost:
                status, diagnosis = "skipped", f"Skipped until `{needs}` passes."
            elif draw.random() > 1 / (1 + 2.718 ** (1.6 * (difficulty[id_] - ability))):
                status = draw.choices(["failed", "error", "timeout", "memory"], [85, 10, 4, 1])[0]
                if status == "failed" and diagnoses and draw.random() < 0.85:
                    diagnosis = draw.choice(diagnoses)
                elif status == "error":
                    diagnosis = "Your program stopped with AttributeError in ex_model.py, line 31: `x.shpae`."
                elif status == "timeout":
                    diagnosis = "No answer within 20 seconds: is there an endless loop?"
            if status != "passed":
                lost.add(id_)
            got = float(points) if status == "passed" else 0.0
            checks.append(Outcome(id_, id_.split("/")[0], title, status, got, float(points), public, hint, diagnosis))
        flags = {
            7: ["The test cell `test-3-2a` of the notebook was deleted and has been restored."],
            16: [
                "`torch.allclose` was replaced while the code ran.",
                "The process tried to write `results.json`.",
            ],
        }.get(n, [])
        results.append(
            Result(
                assignment="jem",
                student=student,
                score=sum(check.points for check in checks),
                max_score=float(sum(check[2] for check in CHECKS)),
                submission_sha256=hashlib.sha256(student.encode()).hexdigest(),
                checks_sha256=hashlib.sha256(b"checks").hexdigest(),
                seed=0,
                flags=flags,
                checks=checks,
                confined=True,
            )
        )
        times = {check.id: round(draw.lognormvariate(-3, 1), 3) for check in checks}
        timings[student] = Timings(round(sum(times.values()) + 0.04, 3), times)
    return results, timings


def write_class(folder: Path, results: list[Result], timings: dict[str, Timings]) -> Path:
    for result in results:
        write_result(folder, result)
        if result.student in timings:
            write_timings(folder, result.assignment, result.student, timings[result.student])
    return folder
