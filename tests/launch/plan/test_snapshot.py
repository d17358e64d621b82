"""The code of a run as it was when it was submitted: what is copied, what is not, and that it is what runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load
from drumbeat.configs.run.code_records import CodeTree
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.view import View
from drumbeat.configs.site import Site
from drumbeat.launch.backends.processes import RANKS, processes_of
from drumbeat.launch.plan import snapshot
from drumbeat.launch.plan.job import Machine, plan_job
from drumbeat.launch.plan.snapshot import Snapshot, copy_code, newest_code, next_code, plan_snapshot
from tests.launch.plan.git import git
from tests.launch.tiny_plan import CONFIG
from tests.processes import kill_all, wait_for_file
from tests.tiny import drumbeat, latest, write_config


def taken(folder: Path, exclude: Path = Path("/nowhere")) -> Path:
    """The copy of one tree."""
    code = folder.parent / "code"
    tree = CodeTree(name=folder.name, folder=str(folder))
    copy_code(Snapshot(trees=(tree,), home="/src", folder=folder.name), code, exclude)
    return code / folder.name


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def planned(folder: Path, **machine: tuple[str, ...]) -> tuple[JobPlan, Path]:
    """A plan typed in `folder`, and its config's file."""
    file = folder / "small.yaml"
    file.write_text(CONFIG)
    return plan_job(load(file).config, run_dir=folder / "runs" / "small" / "RUN", backend="local", folder=folder,
                    machine=Machine(cpus=2, **machine), site=Site()), file


def folders(snapshot: Snapshot) -> dict[str, str]:
    """What each tree of a snapshot is a copy of."""
    return {tree.name: tree.folder for tree in snapshot.trees}


def test_the_working_tree_is_taken_as_it_is(tree: Path) -> None:
    """Edited, new and oddly named files, modes and times; nothing that is deleted, ignored or no file."""
    (tree / "nets.py").write_text("WIDTH = 2\n")
    (tree / "gone.py").unlink()
    (tree / "new\nline \udcff.py").write_text("")
    (tree / "weights.bin").write_text("")
    (tree / "tool.sh").write_text("")
    (tree / "tool.sh").chmod(0o755)
    os.utime(tree / "tool.sh", (1, 1))
    os.mkfifo(tree / "pipe")
    (tree / "runs" / "x").mkdir(parents=True)
    (tree / "runs" / "x" / "log").write_text("")
    copy = taken(tree, exclude=tree / "runs")
    assert files(copy) == {"nets.py", "new\nline \udcff.py", "tool.sh", ".gitignore"}
    assert (copy / "nets.py").read_text() == "WIDTH = 2\n"
    assert ((copy / "tool.sh").stat().st_mode & 0o777, (copy / "tool.sh").stat().st_mtime) == (0o755, 1)
    (tree / "nets.py").write_text("WIDTH = 3\n")
    assert (copy / "nets.py").read_text() == "WIDTH = 2\n"


def test_commit_and_differences_are_kept_beside_it(tree: Path) -> None:
    (tree / "nets.py").write_text("WIDTH = 2\n")
    (tree / "new.py").write_text("")
    code = taken(tree).parent
    assert "-WIDTH = 1\n+WIDTH = 2\n" in (code / "lab.diff").read_text()
    found = Snapshot.require(code / "snapshot.json")
    (told,) = found.trees
    assert (told.commit, told.changed_files, told.folder) == (git(tree, "rev-parse", "HEAD").strip(), 2, str(tree))
    assert found.text() == f"lab at {told.commit[:7]} with 2 changed files, 4 files"


def test_links_lead_to_the_copy_or_where_they_led(tree: Path, tmp_path: Path) -> None:
    """A link into the tree must not lead back to files that are edited meanwhile."""
    (tmp_path / "shared.py").write_text("SHARED = 1\n")
    (tree / "private").mkdir()
    links = {"same.py": tree / "nets.py", "beside.py": Path("nets.py"), "out.py": Path("../shared.py"),
             "datasets": Path("/scratch/images"), "hidden": Path("private")}
    for name, leads in links.items():
        (tree / name).symlink_to(leads)
    copy = taken(tree)
    assert [str((copy / name).readlink()) for name in ("same.py", "beside.py", "datasets", "hidden")] == [
        "nets.py", "nets.py", "/scratch/images", str(tree / "private")]
    assert not (copy / "out.py").is_symlink()
    assert (copy / "out.py").read_text() == "SHARED = 1\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_another_users_git_configuration_is_not_executed(tree: Path, tmp_path: Path) -> None:
    """A filter in the configuration of somebody else's tree would run as this user (CVE-2022-24765)."""
    git(tree, "config", "filter.bad.clean", f"sh -c 'touch {tmp_path}/executed; cat'")
    (tree / ".gitattributes").write_text("*.py filter=bad\n")
    (tree / "nets.py").write_text("WIDTH = 2\n")
    os.utime(tree / "nets.py", (1, 1))
    for path in (tree, tree / ".git"):
        os.chown(path, 12345, 12345)
    copy = taken(tree)
    assert {"nets.py", "gone.py"} == files(copy)
    assert not (tmp_path / "executed").exists()
    assert Snapshot.require(copy.parent / "snapshot.json").text() == "lab (another user's, read without git), 2 files"


SECRETS = (".env", "deploy/prod.env", ".netrc", ".ssh/id_ed25519", ".ssh/config", ".aws/credentials", "server.pem",
           "kaggle.json", "my-service-account.json")


@pytest.mark.parametrize("tracked", [False, True])
def test_passwords_and_keys_are_not_copied(tree: Path, tracked: bool) -> None:
    for name in (*SECRETS, ".env.example", "secrets.py", "tokenizer.json", "table.parquet"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("hunter2" if name in SECRETS else "open")
    if tracked:
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "--message", "two")
        (tree / ".env").write_text("hunter3")
    copy = taken(tree)
    assert files(copy) == {"nets.py", "gone.py", ".gitignore", "secrets.py", "tokenizer.json"} | (
        {".env.example", "table.parquet"} if tracked else set())
    everything = b"".join(path.read_bytes() for path in copy.parent.rglob("*") if path.is_file())
    assert b"hunter" not in everything
    (found,) = Snapshot.require(copy.parent / "snapshot.json").trees
    assert set(found.secret) == set(SECRETS)
    assert set(found.other) == (set() if tracked else {".env.example", "table.parquet"})


def test_excluded_files_are_named_in_the_line_about_the_code(tree: Path) -> None:
    for name in (".env", *(f"{letter}.parquet" for letter in "abcde")):
        (tree / name).write_text("")
    commit = git(tree, "rev-parse", "HEAD")[:7]
    found = Snapshot.require(taken(tree).parent / "snapshot.json")
    assert found.text() == (f"lab at {commit}, 3 files; left out: secret (.env), not code (a.parquet, b.parquet, "
                            "c.parquet and 2 more)")


def test_many_small_files_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_FILES", 2)
    with pytest.raises(LaunchError, match="the code is 0 MB in 3 files; the limit"):
        taken(tree)


def test_the_copy_of_a_private_folder_is_private(tree: Path) -> None:
    """pytest's temporary folders are private."""
    assert snapshot.min_mode([Path("/usr/lib")]) == 0o755
    assert taken(tree).parent.stat().st_mode & 0o777 == 0o700


def test_the_copy_of_a_folder_that_all_users_may_write_to_is_protected(tree: Path, tmp_path: Path) -> None:
    """What they wrote to it would be executed. The modes of another run's copy are not trusted either."""
    (tree / "nets.py").chmod(0o777)
    first = taken(tree).parent
    assert (first / tree.name / "nets.py").stat().st_mode & 0o777 == 0o775
    for path in (first, first / tree.name, first / tree.name / "nets.py"):
        path.chmod(0o777)
    snapshot.copy_snapshot(first, tmp_path / "second")
    copied = [path for path in (tmp_path / "second").rglob("*") if not path.is_symlink()]
    assert [path for path in copied if path.stat().st_mode & 0o002] == []


def test_unignored_data_is_rejected_by_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "images.npy").write_bytes(bytes(2_000_000))
    git(tree, "add", "images.npy")
    monkeypatch.setattr(snapshot, "MAX_BYTES", 1_000_000)
    with pytest.raises(LaunchError) as error:
        taken(tree)
    said = str(error.value)
    assert said.startswith("error: the code is 2 MB in 4 files; the limit of a run's copy is 1 MB and")
    assert "\n  given  lab/images.npy, 2.0 MB\n" in said
    assert "--no-snapshot" in said
    assert not (tree.parent / "code").exists()


def test_whose_code_is_taken(tree: Path, tmp_path: Path) -> None:
    """Drumbeat's tree, the config's, and whatever a target is found in; folders that are importable stay so."""
    nets, elsewhere, bare = tree / "src", tmp_path / "elsewhere", tmp_path / "bare"
    for folder in (nets, elsewhere, bare):
        folder.mkdir()
    (tree / "nets.py").rename(nets / "nets.py")
    (bare / "sets.py").write_text("")
    plan, file = planned(elsewhere, python_path=(str(nets), str(bare)))
    found = plan_snapshot(load(file).config, file, plan)
    assert folders(found) == {ROOT.name: str(ROOT), "lab": str(tree), "bare": str(bare)}
    assert (found.home, found.folder, found.python_path) == (f"{ROOT.name}/src", str(elsewhere), ("lab/src", "bare"))
    relocated = found.relocate(plan, Path("/RUN/code")).environment
    assert relocated["PYTHONPATH"] == f"/RUN/code/{ROOT.name}/src:/RUN/code/lab/src:/RUN/code/bare"
    assert relocated["DRUMBEAT_USER_PATH"] == f"{elsewhere}:/RUN/code/lab/src:/RUN/code/bare"
    assert found.with_original_paths("File /RUN/code/lab/src/nets.py", Path("/RUN/code")) == f"File {nets}/nets.py"

    git(elsewhere, "init", "--quiet")
    assert folders(plan_snapshot(load(file).config, file, plan))["elsewhere"] == str(elsewhere)


def test_an_editable_install_stays_behind_pythons_own_modules(tree: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is copied like others, but PYTHONPATH, which comes first, does not name it."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tree)])
    monkeypatch.delenv("PYTHONPATH")
    (tmp_path / "elsewhere").mkdir()
    plan, file = planned(tmp_path / "elsewhere")
    found = plan_snapshot(load(file).config, file, plan)
    assert (found.python_path, found.targets) == ((), ("lab",))
    relocated = found.relocate(plan, Path("/RUN/code")).environment
    assert relocated["PYTHONPATH"] == f"/RUN/code/{ROOT.name}/src"
    assert relocated["DRUMBEAT_USER_PATH"] == f"{tmp_path}/elsewhere:/RUN/code/lab"


def test_a_folder_that_git_ignores_is_taken_as_one_without_git(tree: Path) -> None:
    (tree / "private").mkdir()
    (tree / "private" / "sets.py").write_text("")
    plan, file = planned(tree / "private")
    found = plan_snapshot(load(file).config, file, plan)
    assert folders(found) == {ROOT.name: str(ROOT), "private": str(tree / "private")}


def test_newer_code_has_a_folder_of_its_own(tree: Path) -> None:
    run = tree.parent
    assert (newest_code(run), next_code(run)) == (None, run / "code")
    taken(tree)
    assert (newest_code(run), next_code(run)) == (run / "code", run / "code-2")
    (run / "code").rename(run / "code-10")
    assert (newest_code(run), next_code(run)) == (run / "code-10", run / "code-11")


@pytest.mark.slow
def test_a_run_computes_what_was_submitted_whatever_is_edited_meanwhile(tmp_path: Path) -> None:
    """A model that is edited after the submission, before its ranks are killed and restarted in place; and again before
    all of the run is killed and resumed."""
    nets = "from tests.tiny import Net\n\nclass Mine(Net):\n    pass\n"
    results = []
    for name in ("straight", "edited"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "nets.py").write_text(nets)
        words = [str(write_config(folder)), "--procs", "1", "model._target_=nets.Mine"]
        if name == "straight":
            drumbeat(folder, *words)
        else:
            fuse = ["task._target_=tests.tiny.Fuse", f"task.folder={folder}", "task.at=[8,40]", "task.how=hold"]
            process = subprocess.Popen([sys.executable, str(ROOT / "launch" / "run.py"), *words, *fuse], cwd=folder,
                                       stdout=subprocess.DEVNULL)
            wait_for_file(folder / "blown-0", process)
            (folder / "nets.py").write_text(nets.replace("pass", "raise RuntimeError('edited')"))
            while not latest(folder).attempt(1).path.exists():
                for process_id in processes_of(View.read(latest(folder)), RANKS):
                    with suppress(ProcessLookupError):
                        os.kill(process_id, signal.SIGKILL)
                time.sleep(1)
                assert process.poll() is None
            wait_for_file(folder / "blown-1", process)
            kill_all(latest(folder))
            process.wait()
            drumbeat(folder, "--resume", "tiny")
        results.append(Result.require(latest(folder).result))
    assert len(list(latest(tmp_path / "edited").attempts.iterdir())) >= 3
    assert results[0] == results[1]


def test_the_code_of_a_trial_is_beside_it(tmp_path: Path) -> None:
    """Until it gets newer code of its own."""
    for folder in ("code", "run/code-2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "code" / "snapshot.json").touch()
    run = tmp_path / "run"
    assert (newest_code(run), next_code(run)) == (tmp_path / "code", run / "code")
    (run / "code-2" / "snapshot.json").touch()
    assert (newest_code(run), next_code(run)) == (run / "code-2", run / "code-3")
