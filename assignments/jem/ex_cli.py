"""The command line of `ex_main.py`: sub-commands, options, presets, and errors as one clear sentence."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ex_data import InputError
from ex_ood import SCORES

from ebmcourse.training import add_options

# The smallest run to try the code, one for a laptop without GPU, one for a GPU.
COMMON = {"ccond_sample": True, "augment": True, "lmbd": 0.2, "lr": 2e-4}
PRESETS = {
    "smoke": COMMON | {"epochs": 3, "warmup_epochs": 2, "train_batches": 60, "steps": 10, "cbuffer_size": 4},
    "cpu": COMMON | {"epochs": 6, "warmup_epochs": 4, "steps": 40, "cbuffer_size": 16},
    "full": COMMON | {"epochs": 60, "warmup_epochs": 5, "batch_size": 64, "cbuffer_size": 128},
}

COUNTS = ("epochs", "train_batches", "batch_size", "cbuffer_size", "hidden_features", "steps", "count", "mixing")


def parse_args(argv: list[str] | None, model_class: type) -> argparse.Namespace:
    """The sub-commands `train | evaluate | generate | ood` with their options.

    Every keyword of `model_class` is an option of `train`; they arrive together in `args.hyperparameters`.
    """
    # Read before everything else, so that --help shows the defaults that the preset leads to.
    preset = argparse.ArgumentParser(add_help=False)
    preset.add_argument("--preset", choices=PRESETS, default="cpu", help="changes defaults of other options")
    chosen = PRESETS[preset.parse_known_args(argv)[0].preset]

    parser = argparse.ArgumentParser(description="Joint energy-based model of printed glyphs")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", parents=[preset], help="train a model; Ctrl-C stops it, --resume goes on")
    evaluate = commands.add_parser("evaluate", help="accuracy on the test images")
    generate = commands.add_parser("generate", help="new images from Gaussian noise")
    ood = commands.add_parser("ood", help="OOD detection: metrics, histogram and ROC curves")

    for command in train, evaluate, ood:
        command.add_argument("--data_dir", type=Path, default=Path("data/glyphs"), help="default: %(default)s")
    for command in evaluate, generate, ood:
        command.add_argument("--ckpt_path", type=Path, help="default: OUT/last.ckpt")
    for command in train, evaluate, generate, ood:
        command.add_argument("--out", type=Path, default=Path("runs/jem"), help="results; default: %(default)s")
        command.add_argument("--seed", type=int, default=0, help="default: %(default)s")

    train.add_argument("--resume", type=Path, help="checkpoint to go on from, with its hyperparameters")
    train.add_argument("--epochs", type=int, help="of the whole training; default: %(default)s")
    train.add_argument("--train_batches", type=int, help="per epoch, for a quick try; default: %(default)s")
    train.add_argument("--clip", type=float, default=5.0, help="norm of the gradient; default: %(default)s")
    precision = {"choices": ("32-true", "bf16-mixed"), "default": "32-true"}
    train.add_argument("--precision", **precision, help="bf16-mixed is faster on a GPU, or a CPU with AMX")
    group = train.add_argument_group("hyperparameters of the model")
    names = add_options(group, model_class, {"num_classes"}, batch_size=32, hidden_features=32)
    train.set_defaults(**chosen)

    conditional = {"action": argparse.BooleanOptionalAction, "default": False}
    generate.add_argument("--conditional", **conditional, help="one class after the other")
    generate.add_argument("--count", type=int, default=42, help="number of images; default: %(default)s")
    generate.add_argument("--mixing", type=int, default=256, help="SGLD steps; default: %(default)s")
    ood.add_argument("--score", choices=SCORES, default="px", help="in the histogram; default: %(default)s")

    args = parser.parse_args(argv)
    for name in COUNTS:
        if (count := getattr(args, name, None)) is not None and count < 1:
            parser.error(f"--{name} is {count}, but must be at least 1")
    if args.command == "train":
        args.hyperparameters = {name: getattr(args, name) for name in names}
    elif args.ckpt_path is None:
        args.ckpt_path = args.out / "last.ckpt"
    return args


def complain(message: str) -> int:
    print(f"ex_main.py: {message}", file=sys.stderr)
    return 2


def run(main: Callable[[], None]) -> None:
    """Run a program: a user's mistake is told in one sentence (exit 2), Ctrl-C ends it quietly (exit 130)."""
    try:
        main()
    except InputError as error:
        sys.exit(complain(f"error: {error}"))
    except NotImplementedError as error:
        sys.exit(complain(f"not written yet: {error}"))
    except KeyboardInterrupt:
        sys.exit(130)
