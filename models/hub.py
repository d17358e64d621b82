"""Weights that libraries publish, as files in this machine's caches; downloaded if necessary.

    fetch("ResNet50_Weights.IMAGENET1K_V2")     one of torchvision's enumerations
    fetch("hf://timm/resnet18.a1_in1k")         a repository of the Hugging Face Hub: its model.safetensors
    fetch("hf://ORG/NAME@REVISION/FILE")        another file of it, of a branch, tag or commit
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

import torch

HUB = "hf://"
ADDRESS = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")
DEFAULT_FILE = "model.safetensors"


def fetch(name: str) -> Path:
    """The file with the weights of this name. Raises `FileNotFoundError`, which says where to put the file, if it can
    be neither found nor downloaded, and ValueError for an unknown name."""
    return _from_hub(name) if name.startswith(HUB) else _from_torchvision(name)


def _from_torchvision(name: str) -> Path:
    """A file in torch's cache. Its name holds the first characters of its digest, which is compared."""
    from torchvision import models

    kind, _, member = name.partition(".")
    enumerations = {one.__name__: one for one in map(models.get_model_weights, models.list_models())}
    known = [f"{one}.{weights}" for one, of in enumerations.items() for weights in of.__members__]
    if name not in known:
        members = enumerations.get(kind)
        close = [f"{kind}.{one}" for one in members.__members__] if members else get_close_matches(name, known, n=1)
        raise ValueError(f"torchvision has no weights '{name}': use {', '.join(close) or 'those of its documentation'}")
    url = enumerations[kind][member].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"the weights {name} are not in torch's cache, and the download failed ({error}).\n"
                f"Download {url} on a machine with internet access and put it at {path}"
            ) from None
    return path


def _from_hub(name: str) -> Path:
    """A file in the cache of the Hugging Face Hub."""
    found = ADDRESS.fullmatch(name)
    if found is None:
        raise ValueError(f"'{name}' is not the address of a repository: write hf://ORG/NAME or hf://ORG/NAME@REV/FILE")
    repository, file = found["repository"], found["file"] or DEFAULT_FILE
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ValueError(f"{name} needs the package huggingface_hub: pip install huggingface_hub") from None
    try:
        return Path(hf_hub_download(repository, file, revision=found["revision"]))
    except Exception as error:  # its own errors, and those of the library that it downloads with
        raise FileNotFoundError(
            f"{file} of {repository} is not in the cache of the Hugging Face Hub, and the download failed "
            f"({type(error).__name__}).\nOn a machine with internet access: hf download {repository} {file}; then give "
            "that file") from None
