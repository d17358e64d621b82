"""The run whose weights a run starts from is named as in commands, and stands as its folder in the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.runs.source_run import with_source_run
from tests.launch.made import FIRST, SECOND
from tests.tiny import write_config


def resolved(weights: str, folder: Path) -> str | None:
    loaded = load(write_config(folder), [f"initialize.weights={weights}"])
    return with_source_run(loaded, Path("runs")).config.initialize.weights


@pytest.fixture
def saved(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """The newest run of an experiment, with a checkpoint."""
    monkeypatch.chdir(runs.parent)
    run = RunDir(runs.absolute() / "tiny" / SECOND)
    checkpoint = run.checkpoints / "step-00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").touch()
    (run.checkpoints / "last").symlink_to(checkpoint.name)
    return run


def test_a_run_by_name_id_and_folder(saved: RunDir, tmp_path: Path) -> None:
    for text in ("tiny", SECOND, f"runs/tiny/{SECOND}", "runs/tiny/latest", f"tiny/{SECOND}"):
        assert resolved(text, tmp_path) == str(saved.path), text
    assert resolved(f"runs/tiny/{SECOND}/checkpoints/step-00000003", tmp_path) == f"{saved.checkpoints}/step-00000003"


@pytest.mark.parametrize(("text", "stays"), [
    ("w.pth", "CWD/w.pth"), ("a/w.safetensors", "CWD/a/w.safetensors"), ("/x/w.ckpt", "/x/w.ckpt"),
    ("$SCRATCH/w.pth", "$SCRATCH/w.pth"), ("$SCRATCH/run", "$SCRATCH/run"), ("null", None),
    ("ResNet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1"),
    ("hf://timm/resnet18.a1_in1k", "hf://timm/resnet18.a1_in1k"),
])
def test_files_and_names_of_libraries_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str,
                                           stays: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolved(text, tmp_path) == (stays and stays.replace("CWD", str(tmp_path)))


@pytest.mark.parametrize(("text", "what", "fix"), [
    ("tinny", "'tinny' is neither a file nor a run", "Did you mean 'tiny'?"),
    (FIRST, "the run to start from cannot be used: there are no checkpoints yet", "drumbeat why"),
])
def test_what_is_neither_is_a_fault_with_its_place(saved: RunDir, tmp_path: Path, text: str, what: str, fix: str
                                                   ) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(text, tmp_path)
    (fault,) = error.value.faults
    assert (fault.what, fault.where) == (what, "command line (initialize.weights)")
    assert fix in fault.remedy
