"""Weights that libraries publish: found in their caches, and otherwise it is said where to put them."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch

from drumbeat.models.hub import fetch


def offline(*_: object, **__: object) -> None:
    raise OSError("no route to host")


def test_torchvisions_weights_in_the_cache_and_others_say_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match="put it at") as caught:
        fetch("ResNet50_Weights.IMAGENET1K_V1")
    assert str(cached) in str(caught.value)
    cached.write_bytes(b"")
    assert fetch("ResNet50_Weights.IMAGENET1K_V1") == cached


@pytest.mark.parametrize(("name", "known"), [
    ("ResNet50_Weights.IMAGENET", "use ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2"),
    ("Resnet50_Weights.IMAGENET1K_V1", "use ResNet50_Weights.IMAGENET1K_V1"),
])
def test_an_unknown_name_names_the_known_ones(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=known):
        fetch(name)


@pytest.mark.parametrize(("name", "asked"), [
    ("hf://timm/resnet18.a1_in1k", ("timm/resnet18.a1_in1k", "model.safetensors", None)),
    ("hf://timm/resnet18.a1_in1k/pytorch_model.bin", ("timm/resnet18.a1_in1k", "pytorch_model.bin", None)),
    ("hf://google/vit@main/a/b.bin", ("google/vit", "a/b.bin", "main")),
])
def test_a_repository_of_the_hub(monkeypatch: pytest.MonkeyPatch, name: str, asked: tuple[str, str, str]) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download",
                        lambda repository, file, revision: f"/cache/{repository}/{file}/{revision}")
    assert fetch(name) == Path("/cache/{}/{}/{}".format(*asked))


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(FileNotFoundError, match=r"hf download timm/x model\.safetensors; then give that file"):
        fetch("hf://timm/x")
    with pytest.raises(ValueError, match="write hf://ORG/NAME"):
        fetch("hf://timm")
