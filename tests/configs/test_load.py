"""From files, KEY=VALUE and flags to a `Config`: which value wins, its source, and errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.configs.layers import leaves
from drumbeat.configs.load import ROOT, Loaded, build_config, find, load, load_site, plain, read, reload
from drumbeat.configs.schema import Config, Site
from drumbeat.configs.yaml_text import parse

BASE = """\
name: small
batch_size: 12
model: {_target_: nets.Net, width: 8}
data:
  train: {_target_: sets.Folder, root: pictures/train}
  test: {_target_: sets.Folder, root: pictures/test}
  transforms:
    train:
      - {_target_: torchvision.transforms.v2.RandomCrop, size: 8}
phases:
  head:
    epochs: 2
    freeze: [backbone]
    optimizer: {_target_: torch.optim.Adam, lr: 1e-2}
  finetune:
    epochs: 2.5
    batch_size: 10
    optimizer: {_target_: torch.optim.SGD, lr: 0.05}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes base.yaml, and config.yaml on top of it; the current folder is theirs."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = "", base: str = BASE) -> Path:
        (tmp_path / "base.yaml").write_text(base)
        (tmp_path / "config.yaml").write_text(f"base: base.yaml\n{text}")
        return tmp_path / "config.yaml"

    return write


def faults(error: pytest.ExceptionInfo[ConfigError]) -> list[Fault]:
    return list(error.value.faults)


def test_defaults_base_file_assignments_flags(write: Write) -> None:
    file = write("batch_size: 24\ndata: {workers: 3}\n")
    loaded = load(file, ["data.workers=4", "phases.head.epochs=1"], {"launch.procs": 2, "name": "other"})
    config = loaded.config
    assert (config.batch_size, config.data.workers, config.launch.procs, config.name) == (24, 4, 2, "other")
    assert (config.phases["head"].epochs, config.phases["finetune"].epochs) == (1.0, 2.5)  # type: ignore[union-attr]
    assert config.evaluation.batch_size == 64
    sources = loaded.sources
    assert sources["batch_size"] == "config.yaml:2"
    assert sources["data.workers"] == "command line"
    assert sources["launch.procs"] == "--procs"
    assert sources["name"] == "--name"
    assert sources["phases.head.optimizer.lr"] == "base.yaml:14"
    assert "evaluation.batch_size" not in sources


def test_where_a_key_comes_from(write: Write) -> None:
    loaded = load(write("data:\n  train: {root: elsewhere}\n"), ["phases.head.epochs=1"])
    assert loaded.where("data.train") == "config.yaml:3"  # the topmost layer that says something in the section
    assert loaded.where("data.train._target_") == "base.yaml:5"
    assert loaded.where("data.transforms.train[0].size") == "base.yaml:9"
    assert loaded.where("phases.head") == "command line"
    assert loaded.where("evaluation.batch_size") == ""
    assert loaded.where("nonsense") == ""


def test_a_fault_is_located(write: Write) -> None:
    loaded = load(write(), [], {"launch.gpus": 3})
    assert loaded.located(Fault(what="x", where="data.train")).where == "base.yaml:5 (data.train)"
    assert loaded.located(Fault(what="x", where="launch.gpus")).where == "--gpus"
    assert loaded.located(Fault(what="x", where="launch.nodes")).where == "launch.nodes"
    assert loaded.located(Fault(what="x")).where == ""


def test_paths_of_targets_are_taken_from_the_current_folder(write: Write, tmp_path: Path) -> None:
    arguments = "weights: w.pth, index_file: i.txt, root: ~/x, url_path: 's3://b/c', size: 3, deep: {folder: d}"
    config = load(write(f"model: {{_target_: a.B, {arguments}}}\n")).config
    assert config.data.train["root"] == str(tmp_path / "pictures" / "train")
    assert config.model == {"_target_": "a.B", "weights": str(tmp_path / "w.pth"),
                            "index_file": str(tmp_path / "i.txt"), "root": str(Path.home() / "x"),
                            "url_path": "s3://b/c", "size": 3, "deep": {"folder": str(tmp_path / "d")}}
    assert load(write(), ["model.weights=IMAGENET1K_V1"]).config.model["weights"] == "IMAGENET1K_V1"


def test_references(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURES", "/pictures")
    config = load(write(), ["seed=${batch_size}", "data.train.root=${oc.env:PICTURES}/train"]).config
    assert (config.seed, config.data.train["root"]) == (12, "/pictures/train")


def test_a_reference_stays_one_in_what_a_run_keeps(write: Write, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURES", "/pictures")
    changes = ["data.root=sets", "data.train.root=${data.root}/train", "data.test={_target_: a.B, root: '${name}'}",
               "model.first=${oc.env:PICTURES}/${name}", "seed=${batch_size}"]
    (tmp_path / "run.yaml").write_text(load(write(), changes).as_yaml())
    text = (tmp_path / "run.yaml").read_text()
    assert 'root: "${data.root}/train"' in text
    assert f"root: {tmp_path}/small" in text  # a relative path counts from this folder, whoever reads it
    assert "first: /pictures/small" in text
    again = load(tmp_path / "run.yaml", ["data.root=/elsewhere", "batch_size=8"]).config
    assert (again.data.train["root"], again.seed) == ("/elsewhere/train", 8)
    assert load(write(), ["model={_target_: a.B, rates: {layer.1: '${seed}'}}"]).as_yaml(), "a name with a dot in it"
    resumed = reload(tmp_path / "run.yaml", ["data.workers=1"])
    assert 'root: "${data.root}/train"' in resumed.as_yaml()


def test_a_root_that_no_set_refers_to(write: Write) -> None:
    assert load(write("data: {root: /sets}\n")).config.data.root == "/sets"  # a file may say what another one uses
    with pytest.raises(ConfigError, match=r"data\.root has no effect: no dataset in this config refers to it"):
        load(write(), ["data.root=/sets"])
    for empty in ("''", "null"):
        with pytest.raises(ConfigError, match=r"the datasets refer to data\.root, which is not set"):
            load(write(), [f"data.root={empty}", "data.train.root='${data.root}/train'"])


def test_all_sets_of_a_shipped_config_move_with_one_key() -> None:
    for file in sorted((ROOT / "configs").glob("*.yaml")):
        if load(file).config.data.root:
            data = dataclasses.asdict(load(file, ["data.root=/elsewhere"]).config.data)
            paths = [value for key, value in leaves(data) if key.endswith((".root", ".file"))]
            assert len(paths) >= 2
            assert all(path.startswith("/elsewhere") for path in paths), file


def test_a_phase_set_to_null_is_left_out(write: Write) -> None:
    assert list(load(write("phases: {head: null}\n")).config.phases) == ["finetune"]


def test_a_set_given_as_an_empty_section_is_left_out(write: Write) -> None:
    assert load(write("data: {test: {}}\n")).config.data.test == {}


def test_the_resolved_config_is_read_back_the_same(write: Write, tmp_path: Path) -> None:
    loaded = load(write(), ["model.note='yes: \"really\"'", "model.tiny=1e-9", "phases.head.clip_norm=0.5"])
    (tmp_path / "resolved.yaml").write_text(loaded.as_yaml())
    assert read(tmp_path / "resolved.yaml") == loaded.config
    assert parse(loaded.as_yaml())[0] == plain(loaded.config)
    assert Loaded(config=loaded.config).as_yaml().count("#") == 0


def test_the_resolved_config_does_not_depend_on_the_folder_it_is_read_in(write: Write, tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(write()).config
    (tmp_path / "resolved.yaml").write_text(Loaded(config=config).as_yaml())
    monkeypatch.chdir("/")
    assert read(tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(("given", "what", "remedy"), [
    ("batchsize=3", "unknown key 'batchsize' at the top level", "Did you mean 'batch_size'?"),
    ("data.trian.root=x", "unknown key 'trian' in 'data'", "Did you mean 'train'?"),
    ("phases.head.epoch=3", "unknown key 'epoch' in 'phases.head'", "Did you mean 'epochs'?"),
    ("batch_size=many", "batch_size must be a whole number", ""),
    ("batch_size=2.5", "batch_size must be a whole number", ""),
    ("batch_size=true", "batch_size must be a whole number", ""),
    ("batch_size=", "batch_size must be a whole number", ""),
    ("batch_size=0", "batch_size must be at least 1", ""),
    ("data.workers=many", "data.workers must be a whole number or null", ""),
    ("data.shuffle=3.5", "data.shuffle must be true or false", ""),
    ("phases.head.epochs=-1", "phases.head.epochs must be above 0", ""),
    ("phases.head.epochs=.inf", "phases.head.epochs must be a finite number", ""),
    ("phases.head.epochs=.nan", "phases.head.epochs must be a finite number", ""),
    ("precision=fp16", "precision must be one of auto, bf16, tf32, fp32", ""),
    ("phases.head.freeze=backbone", "phases.head.freeze must be a list",
     "Put it in brackets: phases.head.freeze: [backbone]"),
    ("data.test=null", "data.test must be a section: `_target_: package.module.Name` and its arguments",
     "Write {} for none: data.test: {}"),
    ("model=3", "model must be a section: `_target_: package.module.Name` and its arguments", ""),
    ("phases.head=3", "phases.head must be a section with some of: epochs, batch_size, start_from, freeze, optimizer, "
     "scheduler, scheduler_every, clip_norm or null", ""),
    ("phases=null", "phases must be a section", "Write {} for none: phases: {}"),
    ("phases.extra.epochs=1", "'phases.extra.optimizer' is missing",
     "It must be a section: `_target_: package.module.Name` and its arguments. "
     "The phases of this config: head, finetune, extra."),
    ("phases={}", "the config has no phases, so there is nothing to train",
     "Add one: phases: {train: {epochs: 10, optimizer: {_target_: ...}}}"),
    ("data.transforms.train.0.size=4", "data.transforms.train is a list, and single items of it cannot be set",
     "Give the whole list: 'data.transforms.train=[...]'"),
    ("data.transforms.train[0].size=4", "unknown key 'train[0]' in 'data.transforms'",
     "Single items of a list cannot be set. Give the whole list: 'data.transforms.train=[...]'"),
    ("name=a/b", "name must be a plain name: letters, digits, '_', '-' and '.', starting with a letter or digit", ""),
    ("model.x=${nope}", "model.x refers to something that does not exist: Interpolation key 'nope' not found", ""),
    ("model.x=${oc.env:NOPE_X}",
     "model.x refers to something that does not exist: Environment variable 'NOPE_X' not found", ""),
    ("model.x=${", "model.x has a reference that cannot be parsed",
     "Write ${some.key} or ${oc.env:VARIABLE}, in single quotes for the shell."),
    ("model.x=???", "'model.x' is missing", "It must be a value."),
    ("data.validation.target=sets.Folder", "data.validation has no _target_", "Did you mean '_target_'?"),
    ("data.transforms.evaluate=[{target: my.Crop}]", "data.transforms.evaluate[0] has no _target_",
     "Did you mean '_target_'?"),
])
def test_what_is_wrong_with_an_assignment(write: Write, given: str, what: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(), [given])
    assert [(fault.what, fault.remedy, fault.where) for fault in faults(error)] == [(what, remedy, "command line")]


def test_target_for_target_names_its_line(write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        load(write("phases:\n  head:\n    optimizer: {target: torch.optim.SGD, lr: 1}\n",
                   BASE.replace("{_target_: torch.optim.Adam, lr: 1e-2}", "{}")))
    (fault,) = faults(error)
    assert (fault.what, fault.where, fault.given, fault.remedy) == (
        "phases.head.optimizer has no _target_", "config.yaml:4", "target: torch.optim.SGD", "Did you mean '_target_'?")


def test_a_new_target_says_what_it_leaves_out(write: Write) -> None:
    loaded = load(write("phases: {finetune: {optimizer: {_target_: torch.optim.Adam}}}\n"),
                  ["phases.head.optimizer._target_=torch.optim.SGD", "model._target_=nets.Other", "model.width=9"])
    assert loaded.notes == [
        "phases.finetune.optimizer is now torch.optim.Adam: lr=0.05 from base.yaml was left out; "
        "set it again if it is meant",
        "phases.head.optimizer is now torch.optim.SGD: lr=0.01 from base.yaml was left out; "
        "set it again if it is meant"]
    assert loaded.config.phases["head"].optimizer == {"_target_": "torch.optim.SGD"}  # type: ignore[union-attr]
    assert load(write()).notes == []


def test_all_faults_at_once_in_the_order_of_the_sources(write: Write) -> None:
    base = BASE.replace("batch_size: 12", "batchsize: 12")
    file = write("data: {workers: -1}\nphases:\n  head:\n    epoch: 3\n", base)
    with pytest.raises(ConfigError) as error:
        load(file, ["seed=x"])
    assert [(fault.what, fault.where) for fault in faults(error)] == [
        ("unknown key 'batchsize' at the top level", "base.yaml:2"),
        ("'batch_size' is missing", "config.yaml"),
        ("data.workers must be at least 0", "config.yaml:2"),
        ("unknown key 'epoch' in 'phases.head'", "config.yaml:5"),
        ("seed must be a whole number", "command line"),
    ]


def test_malformed_assignments_are_reported_together(write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(), ["=3", "batch_size=["])
    assert [fault.what for fault in faults(error)] == ["expected KEY=VALUE",
                                                       "the value of batch_size is not valid YAML"]


def test_odd_keys_of_sections(write: Write) -> None:
    with pytest.raises(ConfigError, match="phases must be named with letters, digits"):
        load(write("phases: {'a b': {epochs: 1, optimizer: {_target_: x}}}\n"))
    with pytest.raises(ConfigError, match="incompatible"):
        load(write("phases: {1: {epochs: 1, optimizer: {_target_: x}}}\n"))


@pytest.mark.parametrize(("content", "what", "where"), [
    (b"", "the config is empty", "bad.yaml"),
    (b"# only a remark\n", "the config is empty", "bad.yaml"),
    (b"- a\n- b\n", "a config must be a section of named values", "bad.yaml"),
    (b"hello", "a config must be a section of named values", "bad.yaml"),
    (b"1: 2\n", "a config must be a section of named values", "bad.yaml"),
    (b"name: x\nmodel: {a: b\nbatch_size: 3\n", "not valid YAML: did not find expected ',' or '}'", "bad.yaml:3"),
    (b"name: x\n\tbatch_size: 3\n", "not valid YAML: found a tab character that violates indentation", "bad.yaml:2"),
    (b"name: x\nname: y\n", "not valid YAML: duplicate key 'name'", "bad.yaml:2"),
    (b"name: &a [*a]\nx: *b\n", "not valid YAML: found undefined alias", "bad.yaml:2"),
    (b"a: &a\n  b: *a\n", "not valid YAML: RecursionError", "bad.yaml"),
    (b"\xff\xfe\x00\x01", "the config is not a text file", "bad.yaml"),
    (b"name: a\x00b\n", "the config is not a text file", "bad.yaml"),
    (b"base: bad.yaml\n", "the base files form a cycle", "bad.yaml"),
    (b"base: nowhere.yaml\n", "the base file does not exist", "bad.yaml:1"),
    (b"base: [a]\n", "the base file does not exist", "bad.yaml:1"),
])
def test_files_that_are_not_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, what: str,
                                  where: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load("bad.yaml")
    assert [(fault.what, fault.where) for fault in faults(error)] == [(what, where)]


def test_finding_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    assert find("mine.yaml") == Path("mine.yaml")
    shipped = ROOT / "configs" / "resnet50_xray.yaml"
    assert find("resnet50_xray") == find("configs/resnet50_xray.yaml") == shipped
    with pytest.raises(ConfigError, match=r"there is no config 'mine.yml'(.|\n)*Did you mean 'mine.yaml'"):
        find("mine.yml")
    with pytest.raises(ConfigError, match=r"Did you mean 'resnet50_xray.yaml'"):
        find("resnet50_xrya")
    with pytest.raises(ConfigError, match=r"Valid names: bilstm_news.yaml, "):
        find("nope.yaml")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="a config must be a file, and this is a folder"):
        find("folder")


def test_a_layer_without_a_file_as_the_preflight_check_uses_it(write: Write) -> None:
    loaded = load(write())
    assert build_config(loaded.layers) == loaded.config


def test_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_site(None) == Site()
    assert load_site("example").gpu_type == "a100"
    (tmp_path / "mine.yaml").write_text("partition: big\ntime_minutes: 0\n")
    with pytest.raises(ConfigError, match=r"time_minutes must be at least 1\n  where  mine.yaml:2"):
        load_site("mine.yaml")
    (tmp_path / "mine.yaml").write_text("time_minutes: 2\n")
    with pytest.raises(ConfigError, match="the signal to save would be sent before the job starts"):
        load_site("mine.yaml")
    (tmp_path / "mine.yaml").write_text("mem_gb_per_gpu: 60\nmem_gb_per_node: 240\n")
    with pytest.raises(ConfigError, match=r"memory is requested in more than one way\n  where  mine.yaml:1"):
        load_site("mine.yaml")
    with pytest.raises(ConfigError, match=r"no cluster profile 'exampel'(.|\n)*Did you mean 'example'"):
        load_site("exampel")


def test_a_shipped_config_is_a_base_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: resnet50_xray.yaml\nname: mine\nbatch_size: 64\n")
    config = load("mine.yaml").config
    assert (config.name, config.batch_size, list(config.phases)) == ("mine", 64, ["head", "finetune"])


def test_a_config_is_frozen(write: Write) -> None:
    config: Config = load(write()).config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]
