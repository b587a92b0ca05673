"""The command line that students use."""

import argparse
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ex_cli
import ex_main
import ex_ood
import pytest
import pytorch_lightning as pl
import torch
from ex_main import JEM
from jem_samples import small_jem, write_data


def test_the_options_are_the_hyperparameters_of_jem_with_its_defaults():
    parser = argparse.ArgumentParser()
    names = ex_cli.add_hyperparameters(parser)
    parameters = inspect.signature(JEM).parameters
    assert set(parameters) ^ set(names) == {"img_shape", "num_classes", "MODEL_args", "hidden_features"}
    for name in set(parameters) & set(names) - {"batch_size"}:  # which has no default in JEM
        assert parser.get_default(name) == parameters[name].default


def test_options_have_the_types_of_the_hyperparameters():
    args = ex_main.parse_args(["train", "--preset", "smoke", "--alpha", "0.25", "--no-ccond_sample", "--m_out", "-3.5"])
    options = args.hyperparameters
    assert options["alpha"] == 0.25 and options["ccond_sample"] is False and options["m_out"] == -3.5
    assert options["steps"] == ex_cli.PRESETS["smoke"]["steps"] and "num_classes" not in options
    assert ex_main.parse_args(["train", "--preset", "smoke", "--steps", "7"]).hyperparameters["steps"] == 7
    assert ex_main.parse_args(["ood", "--out", "there"]).ckpt_path == Path("there/best.ckpt")
    for preset in ex_cli.PRESETS:
        JEM((1, 8, 8), num_classes=2, **ex_main.parse_args(["train", "--preset", preset]).hyperparameters)


def run_in_process(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["ex_main.py", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        ex_cli.run(ex_main.main)
    return stop.value.code, capsys.readouterr().err


def test_a_mistake_of_the_user_is_reported_in_one_sentence(tmp_path, monkeypatch, capsys):
    data = write_data(tmp_path / "data", count=8)
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    settings = {"pytorch-lightning_version": pl.__version__, "hyper_parameters": dict(small_jem().hparams)}
    trained = settings | {"state_dict": small_jem().state_dict(), "sampler_buffer": None}
    torch.save(trained, tmp_path / "three.ckpt")
    torch.save(trained | {"state_dict": small_jem(hidden_features=3).state_dict()}, tmp_path / "wide.ckpt")
    cases = [
        (["evaluate", "--data_dir", data, "--ckpt_path", tmp_path / "three.ckpt"], "has 3 classes"),
        (["train", "--data_dir", data, "--resume", tmp_path / "three.ckpt"], "has 3 classes"),
        (["train", "--data_dir", tmp_path / "nowhere"], "no data directory"),
        (["evaluate", "--data_dir", data, "--ckpt_path", tmp_path / "none.ckpt"], "no checkpoint"),
        (
            ["evaluate", "--data_dir", data, "--ckpt_path", tmp_path / "text.ckpt"],
            "is not a checkpoint of this model",
        ),
        (
            ["ood", "--data_dir", data, "--ckpt_path", tmp_path / "other.ckpt"],
            "is not a checkpoint of this model",
        ),
        (["generate", "--ckpt_path", tmp_path / "wide.ckpt"], "is not a checkpoint of this model"),
        (["train", "--data_dir", data, "--resume", tmp_path / "none.ckpt"], "no checkpoint"),
    ]
    for argv, message in cases:
        code, err = run_in_process(monkeypatch, capsys, *argv)
        assert code == 2 and message in err and err.count("\n") == 1, (argv, err)
    for argv, message in (
        (["train", "--alpha", "much"], "train: error: argument --alpha: invalid float value: 'much'"),
        (["generate", "--count", 0], "generate: error: argument --count: 0 is too small: it must be at least 1"),
        (["train", "--preset", "huge"], "train: error: argument --preset: invalid choice: 'huge' (choose from 'smoke'"),
        (["train", "--preset"], "train: error: argument --preset: expected one argument"),
        (["evaluate", "--preset", "smoke"], "error: unrecognized arguments: --preset smoke"),
        (["fly"], "ex_main.py: error: argument command: invalid choice: 'fly' (choose from 'train'"),
        ([], "ex_main.py: error: the following arguments are required: command"),
    ):
        code, err = run_in_process(monkeypatch, capsys, *argv)
        assert code == 2 and message in err and err.count("\n") == 1 and "see python ex_main.py" in err, (argv, err)


def command(*argv, cwd):
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, ex_main.__file__, *map(str, argv)],
        cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell lets programs that it starts in the background ignore Ctrl-C, and this is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(*argv, cwd):
    process = command(*argv, cwd=cwd)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_the_smoke_preset_trains_evaluates_and_draws_figures(tmp_path):
    data = ["--data_dir", write_data(tmp_path / "data", classes=4, count=320)]
    assert "last.ckpt" in finish("train", "--preset", "smoke", *data, cwd=tmp_path)
    accuracy = float(finish("evaluate", *data, cwd=tmp_path).split("accuracy ")[1].split("%")[0])
    assert accuracy > 90  # four classes of strokes that do not overlap
    table = finish("ood", *data, cwd=tmp_path)
    assert all(score in table for score in ex_ood.SCORES)
    finish("generate", "--conditional", "--count", 8, "--mixing", 12, cwd=tmp_path)
    finish("generate", "--count", 3, "--mixing", 5, "--out", "runs/jem", cwd=tmp_path)
    written = {str(path.relative_to(tmp_path / "runs/jem")) for path in (tmp_path / "runs/jem").rglob("*.png")}
    pictures = {f"samples/epoch_{epoch:03d}.png" for epoch in range(ex_cli.PRESETS["smoke"]["epochs"])}
    assert written == {"generation.png", "samples.png", "ood_histogram.png", "ood_roc.png"} | pictures
    assert list((tmp_path / "runs/jem/tensorboard").glob("events.*"))


@pytest.mark.slow
def test_training_can_be_resumed_after_ctrl_c(tmp_path):
    data = write_data(tmp_path / "data", classes=2, count=64)
    argv = ["train", "--preset", "smoke", "--data_dir", data, "--hidden_features", 2]
    process = command(*argv, "--epochs", 10_000, cwd=tmp_path)
    checkpoint = tmp_path / "runs/jem/last.ckpt"
    for _ in range(1200):
        if checkpoint.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume runs/jem/last.ckpt" in err and "Traceback" not in err
    before = torch.load(checkpoint, weights_only=True)
    epochs = before["epoch"] + 3
    out = finish(*argv, "--epochs", epochs, "--resume", checkpoint, cwd=tmp_path)
    after = torch.load(checkpoint, weights_only=True)
    assert f"epoch {epochs}/{epochs}" in out and after["global_step"] > before["global_step"]
    assert after["sampler_buffer"]["chains"].shape == before["sampler_buffer"]["chains"].shape
    assert after["sampler_buffer"]["filled"].sum() >= before["sampler_buffer"]["filled"].sum() > 0
