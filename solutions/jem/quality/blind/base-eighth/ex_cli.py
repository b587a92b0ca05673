"""The command line of `ex_main.py`: sub-commands, options, presets and error messages."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ex_data import InputError
from ex_ood import SCORES

# Defaults for a quick test of the code, for a computer without GPU, and for a GPU.
COMMON = {"ccond_sample": True, "augment": True, "lmbd": 0.2, "lr": 2e-4, "clip": 0.1}
PRESETS = {
    "smoke": COMMON
    | {"epochs": 3, "warmup_epochs": 2, "train_batches": 20, "steps": 5, "cbuffer_size": 4}
    | {"hidden_features": 16, "lr": 1e-3},
    "cpu": COMMON
    | {"epochs": 9, "warmup_epochs": 3, "steps": 40, "cbuffer_size": 16}
    | {"lr": 3e-4, "lr_stepsize": 3, "lr_gamma": 0.35, "fast_sampler": True},
    "full": COMMON | {"epochs": 60, "warmup_epochs": 5, "batch_size": 64, "cbuffer_size": 128} | {"fast_sampler": True},
}


def positive_int(text: str) -> int:
    """The type of an option that is a whole number of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is too small: it must be at least 1")
    return number


def add_hyperparameters(parser: argparse.ArgumentParser) -> list[str]:
    """Add the hyperparameters of JEM as options, with the defaults of JEM; returns their names."""
    group = parser.add_argument_group("hyperparameters of the model")
    switch = argparse.BooleanOptionalAction
    options = [
        group.add_argument("--batch_size", type=positive_int, default=32, help="images per training step"),
        group.add_argument(
            "--hidden_features", type=positive_int, default=32, help="channels of the first convolution"
        ),
        group.add_argument("--cbuffer_size", type=positive_int, default=256, help="chains per class in the buffer"),
        group.add_argument("--ccond_sample", action=switch, default=False, help="sample chains of given classes"),
        group.add_argument("--alpha", type=float, default=0.1, help="weight of the L2 term on the energies"),
        group.add_argument("--lmbd", type=float, default=0.1, help="weight of the loss of log q(x)"),
        group.add_argument("--lr", type=float, default=1e-4, help="learning rate"),
        group.add_argument("--lr_stepsize", type=positive_int, default=1, help="epochs between changes of the rate"),
        group.add_argument("--lr_gamma", type=float, default=0.97, help="factor of each change of the rate"),
        group.add_argument("--m_in", type=float, default=0, help="with --hinge: lower bound of f for data"),
        group.add_argument("--m_out", type=float, default=-10, help="with --hinge: upper bound of f for chains"),
        group.add_argument("--steps", type=positive_int, default=60, help="SGLD steps per training step"),
        group.add_argument("--step_size", type=float, default=10.0, help="step size of SGLD"),
        group.add_argument("--step_size_decay", type=float, default=1.0, help="factor of the SGLD step size per epoch"),
        group.add_argument("--hinge", type=float, default=0.0, help="weight of the penalty with --m_in and --m_out"),
        group.add_argument("--warmup_epochs", type=int, default=0, help="epochs that train only the classifier"),
        group.add_argument("--augment", action=switch, default=False, help="augment the images of the classifier"),
    ]
    return [option.dest for option in options]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the sub-commands `train`, `evaluate`, `generate` and `ood` with their options.

    After `train`, `args.hyperparameters` is a dict of all hyperparameters of JEM except the number of classes, which
    comes from the data.
    """
    # The preset is parsed first, so that --help shows the defaults that it sets.
    preset = argparse.ArgumentParser(add_help=False)
    preset.add_argument("--preset", choices=PRESETS, default="cpu", help="set of defaults for the other options")
    defaults = PRESETS[preset.parse_known_args(argv)[0].preset]

    show_defaults = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    parser = argparse.ArgumentParser(description="Joint energy-based model of printed glyphs")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", parents=[preset], help="train a model", **show_defaults)
    evaluate = commands.add_parser("evaluate", help="measure the accuracy on the test images", **show_defaults)
    generate = commands.add_parser("generate", help="generate images from noise", **show_defaults)
    ood = commands.add_parser("ood", help="measure the detection of OOD images", **show_defaults)

    for command in train, evaluate, generate, ood:
        command.add_argument("--data_dir", type=Path, default="data/glyphs", help="data directory, see ex_data.py")
    for command in evaluate, generate, ood:
        help_text = "checkpoint of the model (default: OUT/best.ckpt)"
        command.add_argument("--ckpt_path", type=Path, default=argparse.SUPPRESS, help=help_text)
    for command in train, evaluate, generate, ood:
        command.add_argument("--out", type=Path, default="runs/jem", help="directory of the results")
        command.add_argument("--seed", type=int, default=0, help="seed of the random numbers")

    train.add_argument("--resume", type=Path, help="continue from this checkpoint, with its hyperparameters")
    train.add_argument("--epochs", type=positive_int, help="total number of epochs")
    train.add_argument("--train_batches", type=positive_int, help="training steps per epoch; None means all batches")
    train.add_argument("--clip", type=float, default=5.0, help="largest norm of the gradient")
    train.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="number format")
    fast = "draw chains with the library's faster sampler instead of MCMCSampler"
    train.add_argument("--fast_sampler", action=argparse.BooleanOptionalAction, default=False, help=fast)
    names = add_hyperparameters(train)
    train.set_defaults(**defaults)

    switch = argparse.BooleanOptionalAction
    generate.add_argument("--conditional", action=switch, default=False, help="generate images of each class in turn")
    generate.add_argument("--count", type=positive_int, default=42, help="number of images")
    generate.add_argument("--mixing", type=positive_int, default=256, help="number of SGLD steps")
    ood.add_argument("--score", choices=SCORES, default="px", help="score in the histogram")

    args = parser.parse_args(argv)
    if args.command == "train":
        args.hyperparameters = {name: getattr(args, name) for name in names}
    elif "ckpt_path" not in args:
        args.ckpt_path = args.out / "best.ckpt"
    return args


def run(main: Callable[[], None]) -> None:
    """Run a program, and report a user's mistake in one sentence without a traceback (exit code 2)."""
    try:
        main()
    except InputError as error:
        message = f"error: {error}"
    except NotImplementedError as error:
        message = f"not written yet: {error}"
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        return
    print(f"ex_main.py: {message}", file=sys.stderr)
    sys.exit(2)
