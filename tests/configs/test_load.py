"""From files, KEY=VALUE and flags to a `Config`: which value wins, its source, and errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.configs.layers import leaves
from drumbeat.configs.load import ROOT, Loaded, build_config, find, load, load_site, plain, read
from drumbeat.configs.site import Site
from drumbeat.configs.yaml_text import parse
from tests.configs.small import Write, faults


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


def test_a_fault_is_located(write: Write) -> None:
    loaded = load(write(), [], {"launch.gpus": 3})
    assert loaded.located(Fault(what="x", where="data.train")).where == "base.yaml:5 (data.train)"
    assert loaded.located(Fault(what="x", where="launch.gpus")).where == "--gpus"
    assert loaded.located(Fault(what="x", where="launch.nodes")).where == "launch.nodes"
    assert loaded.located(Fault(what="x")).where == ""


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
            assert len(paths) >= sum(bool(data[name]) for name in ("train", "validation", "test"))
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


def test_malformed_assignments_are_reported_together(write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(), ["=3", "batch_size=["])
    assert [fault.what for fault in faults(error)] == ["expected KEY=VALUE",
                                                       "the value of batch_size is not valid YAML"]


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
    (b"a: &a\n  b: *a\n", "not valid YAML: an alias contains itself", "bad.yaml:1"),
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


@pytest.mark.parametrize(("line", "key"), [
    ("environment: {WANDB_API_KEY: abc}", "environment.WANDB_API_KEY"),
    ("setup: [module load cuda, export HF_TOKEN=abc]", "setup[1]"),
    ("prefix: apptainer exec --env DB_PASSWORD='abc' image.sif", "prefix"),
    ("sbatch: {export: 'ALL,GITHUB_PAT=abc'}", "sbatch.export"),
    ("environment: {OPENAI_KEY: abc}", "environment.OPENAI_KEY"),
    ("environment: {DB_PASS: abc}", "environment.DB_PASS"),
    ("environment: {PGURL: 'postgres://u:abc@h'}", "environment.PGURL"), ("setup: [wandb login abc]", "setup[0]"),
    ("setup: ['curl -H \"Authorization: Bearer abc\" x']", "setup[0]"),
])
def test_a_profile_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, key: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"partition: big\n{line}\n")
    with pytest.raises(ConfigError) as error:
        load_site("mine.yaml")
    (fault,) = error.value.faults
    assert (fault.what.split()[0], fault.where) == (key, "mine.yaml:2")
    assert "abc" not in str(error.value)


def test_a_profile_may_refer_to_what_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUP", "vision")
    monkeypatch.setenv("HF_TOKEN", "abc")
    (tmp_path / "mine.yaml").write_text("account: '${oc.env:GROUP}'\nsbatch: {reservation: '${oc.env:GROUP}'}\n"
                                        "setup: ['export HF_TOKEN=$(cat ~/.token)']\n")
    site = load_site("mine.yaml")
    assert (site.account, site.sbatch) == ("vision", {"reservation": "vision"})
    (tmp_path / "mine.yaml").write_text("environment: {KEY: '${oc.env:HF_TOKEN}'}\n")
    with pytest.raises(ConfigError, match=r"environment.KEY would be recorded with a value that is probably secret"):
        load_site("mine.yaml")


def test_a_secret_that_is_written_out_is_mentioned(write: Write) -> None:
    (note,) = load(write("model: {api_key: abc, pad_token: x}\n")).notes
    assert note.startswith("model.api_key is probably a secret") and "abc" not in note


def test_a_shipped_config_is_a_base_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: resnet50_xray.yaml\nname: mine\nbatch_size: 64\n")
    config = load("mine.yaml").config
    assert (config.name, config.batch_size, list(config.phases)) == ("mine", 64, ["head", "finetune"])


@pytest.mark.parametrize("line", ["{--mem: 0}", "{mail-type: [A, B]}"])
def test_what_is_no_option_of_sbatch(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"sbatch: {line}\n")
    with pytest.raises(ConfigError, match="not an option of sbatch"):
        load_site(str(tmp_path / "mine.yaml"))
