"""The report of a run: one file, correct in any state of the run, and displayed correctly by a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import torch
from PIL import Image

from drumbeat.configs.layers import ROOT
from drumbeat.configs.load import load
from drumbeat.configs.run.checkpoint_records import Progress, Span
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.profile_records import Profile
from drumbeat.configs.run.rank_records import RankTimes, SlowRank, StartingWeights
from drumbeat.configs.run.records import RankError, Result, Verdict
from drumbeat.configs.run.versions import AttemptVersions, Versions
from drumbeat.launch.commands.main import main
from drumbeat.trainers.checkpoints.manager import Checkpoints
from drumbeat.trainers.report import report as program
from drumbeat.trainers.report.history import moment
from drumbeat.trainers.report.report import report
from drumbeat.trainers.tracking import Tracker, contact_sheet
from tests.runs import write_heartbeat, write_job, write_plan, write_state
from tests.tiny import drumbeat, latest, write_config
from tests.trainers import browser

NASTY = "a<b & \"c\" </pre><script>alert('x')</script>"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that is about to start: all that `drumbeat run` writes before the first attempt."""
    run = RunDir.new(tmp_path / "runs", "tiny")
    write_plan(run)
    run.config.write_text(load(write_config(tmp_path)).as_yaml())
    write_job(run, id="4711", host="here")
    write_state(run, "pending")
    return run


@pytest.fixture
def running(run: RunDir) -> Iterator[RunDir]:
    """The same in its second phase, its event file still open, with the best weights at step 9."""
    attempt = run.claim_attempt()
    attempt.log(0).write_text(f"{NASTY}\n")
    tracker = Tracker(run, attempt, step=0, config_text="")
    for step in range(2, 31, 2):
        tracker.scalars(step, {"train/loss": 8.0 / step, "train/lr": 0.01, "speed/samples_per_second": 100.0 + step,
                               "speed/data_wait_fraction": 0.25})
    best = {"step": 9, "phase": "head", "loss": 0.4, "accuracy": 0.875}
    for step, accuracy in ((9, 0.875), (17, 0.75), (27, 0.5)):
        tracker.scalars(step, {"validation/loss": 0.4 * step / 9, "validation/accuracy": accuracy})
    tracker.picture(1, "train/head", contact_sheet([torch.rand(3, 8, 8)] * 4))
    tracker.picture(17, "validation/worst_samples", contact_sheet([torch.rand(1, 8, 8)], [NASTY]))
    tracker.flush()
    checkpoints = Checkpoints(run, attempt, keep=2)
    span = Span(phase=0, first_step=0, steps=9, samples=108, digest="0", attempt=0, world_size=2)
    checkpoints.save(Progress(step=9, phase_step=9, best=best, last=best, data={"samples": 100}, ledger=(span,)),
                     {"x": torch.zeros(3)}, {}, {})
    checkpoints.close()
    write_state(run, "running")
    tracker.status(now=True, phase="finetune", step=30, steps=42, eta_seconds=250.0)
    yield run
    tracker.close()


def text_of(page: str) -> str:
    """The text of a page."""
    return unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", re.sub("</?[bi]>", "", page), flags=re.DOTALL))


def test_a_pending_run(run: RunDir) -> None:
    page = report(run)
    assert "pending" in text_of(page)
    assert "2 on the CPU, 1 core each" in text_of(page)
    assert "monitor: loss" in text_of(page)
    assert "<svg" not in page
    assert "Curves" not in page


def test_the_weights_that_a_run_has_started_from(running: RunDir) -> None:
    table = "weights from w.pth\n  taken     backbone: 7 tensors\n  new       head: 2 tensors"
    assert "started from" not in report(running)
    StartingWeights(weights="w.pth", sha256="0" * 64, table=table).write(running.starting_weights)
    assert f"started from</th><td>{table}</td>" in report(running)


def test_slow_ranks(running: RunDir) -> None:
    """One that was slow for a while, and one that still is."""
    assert "slow rank" not in text_of(report(running))
    was = SlowRank(rank=3, node="gpu07", part="data", share=0.41, step=120, time=1e9, until=1e9 + 3600)
    still = replace(was, rank=5, part="compute", step=2130, time=2e9, until=None)
    RankTimes(step=200, data=(), compute=(), cores=(), wait=(), slow=(was, still)).write(running.attempt(0).ranks)
    text = " ".join(text_of(report(running)).split())
    assert (f"0 rank 3 on gpu07 waits longer for its data than the others, which wait for it 41% of the time 120 "
            f"{moment(1e9)} to {moment(1e9 + 3600)}") in text
    assert (f"0 rank 5 on gpu07 computes more slowly than the others, which wait for it 41% of the time 2,130 "
            f"{moment(2e9)} to the end") in text


def test_profiles(running: RunDir) -> None:
    found = Profile(id="a", step=1200, steps=5, data=(0.1,), forward=(1.0,), backward=(2.0,), communication=(0.0,),
                    optimizer=(0.1,), other=(0.0,), samples=(32.0,))
    found.write(running.attempt(0).profiled(1200))
    text = " ".join(text_of(report(running)).split())
    assert "profile of attempt 0, step 1,200 steps 1,200 to 1,204, milliseconds of an average step" in text


def test_a_running_run(running: RunDir) -> None:
    page = report(running)
    text = " ".join(text_of(page).split())
    assert "running last heartbeat" in text
    assert "s before this report, 4 minutes left" in text
    assert "width: 71.4%" in page  # 30 of 42 steps
    assert re.search(r"loss of the best checkpoint 0\.4 validation, step 9 .*"
                     r"accuracy of the best checkpoint 0\.875 validation, step 9", text)
    assert re.findall(r"<h3>(.*?)</h3>", page) == [
        "loss", "accuracy", "learning rate", "samples per second", "time waiting for data", "training samples: head",
        "validation: worst samples"]
    assert "9 head 0.4 0.875 best 17 head 0.7556 0.75 27 finetune 1.2 0.5" in text
    assert re.search(r"attempt started ranks steps saved end 0 2 9 running", text)
    assert re.search(r"9 head [\d.]+ MB 20\d\d-\d\d-\d\d \d\d:\d\d last, best", text)


def test_versions_and_what_has_changed(running: RunDir) -> None:
    change = "torch 2.13.0 at the checkpoint, 2.14.1 now: the result may differ in its last digits"
    versions = Versions(torch="2.14.1", python="3.11.2", cuda="13.0", device="NVIDIA H100", precision="bf16")
    assert "Versions" not in text_of(report(running))
    AttemptVersions(versions=versions, changes=(change,)).write(running.attempt(0).versions)
    text = " ".join(text_of(report(running)).split())
    assert ("Versions torch 2.14.1 CUDA 13.0 Python 3.11.2 device NVIDIA H100 precision bf16 "
            f"changed in attempt 0 {change}") in text


def test_a_run_without_a_heartbeat_for_long(running: RunDir) -> None:
    write_state(running, "running", ago=4 * 3600)
    write_heartbeat(running, ago=3 * 3600)
    assert "last heartbeat 3 hours before this report; it may be dead" in text_of(report(running))


def test_a_failed_run_shows_its_verdict_and_the_traceback_it_began_with(running: RunDir) -> None:
    attempt = running.attempt(0)
    for rank in (0, 1):
        RankError(rank=rank, node="here", type="ValueError", message=NASTY, step=30, time=2.0 - rank,
                  traceback=f"Traceback {rank}\n{NASTY}").write(attempt.error(rank))
    Verdict(outcome="failed", next="give up", message=f"rank 0: {NASTY}", step=9, rank=0).write(attempt.verdict)
    write_state(running, "failed", f"rank 0: {NASTY}")
    page = report(running)
    assert '<span class="badge bad">failed</span>' in page
    assert text_of(page).count(f"rank 0: {NASTY}") == 2  # the head and the attempt
    assert f"Traceback 0\n{NASTY}" in text_of(page)
    assert "Traceback 1" not in page
    assert "<script" not in page


def test_the_results_of_evaluate_are_in_it(running: RunDir) -> None:
    folder = running.path / "evaluation" / "test-9"
    folder.mkdir(parents=True)
    (folder / "metrics.txt").write_text("NORMAL     82% (826/1000)\n")
    Image.effect_noise((600, 500), 90).save(folder / "confusion.png")
    contact_sheet([torch.rand(1, 8, 8)], ["NORMAL / PNEUMONIA"]).save(folder / "worst_samples.png")
    (folder / "roc.png").write_bytes((folder / "confusion.png").read_bytes()[:1000])
    page = report(running)
    assert "<h3>test, step 9</h3>" in page
    assert "NORMAL     82% (826/1000)" in page
    assert page.count("data:image/jpeg;base64,") == 1  # noise is smaller as JPEG
    assert "roc cannot be read" in page
    assert re.findall(r'<figure class="(\w+)"><', page)[:3] == ["plot", "plot", "wide"]
    words = f"test set of {running.path.name}, best checkpoint, step 9: 12 samples\n\nloss  0.1\n"
    (folder / "metrics.txt").write_text(words)
    assert "<h3>test set, best checkpoint, step 9: 12 samples</h3>" in report(running)
    assert '<pre>loss  0.1</pre>' in report(running)
    (folder / "metrics.txt").write_text("line\n" * 100)
    assert "<summary>metrics</summary>" in report(running)


def test_the_page_loads_nothing_from_elsewhere(running: RunDir) -> None:
    page = report(running)
    assert set(re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^:";,]*:?)', page)) == {"data:"}
    assert "default-src 'none'" in page
    assert not re.search(r"@import|<link|<script|https?://", page)


@pytest.mark.parametrize(("out", "what"), [("", "this is a folder"), ("no/r.html", "cannot be written: No such file")])
def test_a_report_that_cannot_be_written(run: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str], out: str,
                                  what: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", str(run.path), "--out", str(tmp_path / out)]) == 2
    assert what in " ".join(capfd.readouterr().err.split())
    assert sorted(tmp_path.rglob("*")) == before


def test_it_needs_no_torch() -> None:
    program = "import sys, drumbeat.trainers.report.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_in_a_browser(running: RunDir, tmp_path: Path, width: int) -> None:
    """Nothing is wider than the window, no label is cut off, all lines and images are drawn, in light and in dark."""
    page = tmp_path / "report.html"
    page.write_text(report(running))
    light, dark = (browser.look(page, tmp_path, width=width, dark=dark) for dark in (False, True))
    for seen in (light, dark):
        assert seen["width"] <= width
        assert all(natural > 0 and 0 < shown <= width for _, natural, shown in seen["images"])
        assert len(seen["images"]) == 2
        assert [chart["title"] for chart in seen["charts"]][:2] == ["loss", "accuracy"]
        assert all(line[1] > chart["width"] / 4 for chart in seen["charts"] for line in chart["lines"])
        assert [chart["cut"] for chart in seen["charts"]] == [[]] * 5
    assert [line[0] for line in light["charts"][0]["lines"]] == ["c0", "c1"]
    rows = [chart["left"] for chart in light["charts"]]
    assert (rows[0] < rows[1], rows[2] < rows[3] < rows[4], len(set(rows))) == (
        (True, True, 4) if width == 1200 else (False, False, 1))  # rows of two and three, or a single column
    assert (light["ground"], dark["ground"]) == ("rgb(255, 255, 255)", "rgb(20, 23, 28)")
    assert light["ink"] != dark["ink"]
    assert {line[2] for chart in light["charts"] for line in chart["lines"]}.isdisjoint(
        line[2] for chart in dark["charts"] for line in chart["lines"])


@pytest.mark.slow
def test_on_paper(running: RunDir, tmp_path: Path) -> None:
    """Folded parts are unfolded in print."""
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(report(running))
    browser.run(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    printed = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    page.write_text(page.read_text().replace("::details-content", "::none"))
    browser.run(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    assert printed > len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))


@pytest.mark.slow
def test_of_a_real_run_that_was_restarted(tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "task._target_=tests.tiny.Fuse",
             f"task.folder={tmp_path}", "task.at=[40]", "task.how=raise")
    monkeypatch.chdir(tmp_path)
    assert main(["report", "tiny"]) == 0
    assert capfd.readouterr().out.startswith(f"report     runs/tiny/{latest(tmp_path).id}/report.html (")
    text = " ".join(text_of((latest(tmp_path).path / "report.html").read_text()).split())
    result = Result.require(latest(tmp_path).result)
    assert "finished 42 steps, 454 samples" in text
    assert f"accuracy of the best checkpoint {result.best['accuracy']:.4g}" in text
    assert f"test loss {result.test['loss']:.4g}" in text
    assert re.search(r"0 20\d\d-\S+ \S+ 2 \d+ rank \d .* RuntimeError: the fuse has blown.*; restart 1 20", text)
    seen = browser.look(latest(tmp_path).path / "report.html", tmp_path, width=1200)
    assert [chart["title"] for chart in seen["charts"]] == [
        "loss", "accuracy", "learning rate", "samples per second", "time waiting for data"]


def test_what_no_run_writes_is_one_screen(running: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Result(steps=42, samples_seen=1, overshoot=0, best={"step": "nine", "phase": "head", "loss": 0.5}).write(
        running.result)
    write_state(running, "finished")
    assert program.main(str(running.path), str(tmp_path / "r.html")) == 2
    screen = capsys.readouterr().err
    assert "a file of the run holds what no run writes" in screen and "Traceback" not in screen
    assert not (tmp_path / "r.html").exists()


def test_no_text_of_a_run_is_html(running: RunDir) -> None:
    """Whatever another user has written into its records, its config, its events or the names of its files."""
    run, attempt = running, running.attempt(0)
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    run.config.write_text(run.config.read_text().replace("_target_: tests.tiny.Net", f'_target_: "{evil}"'))
    write_state(run, "failed", evil)
    write_job(run, id="7", host=evil)
    write_heartbeat(run, step=30, steps=42, phase=evil, monitor=evil, validation={evil: 0.5}, best=0.5)
    RankError(rank=0, node=evil, type=evil, message=evil, step=3, traceback=evil).write(attempt.error(0))
    Verdict(outcome="failed", next="give up", message=evil, step=9, rank=0, error=evil).write(attempt.verdict)
    versions = Versions(torch=evil, python=evil, device=evil, precision=evil)
    AttemptVersions(versions=versions, changes=(evil,)).write(attempt.versions)
    Result(steps=1, samples_seen=1, overshoot=0, weights_sha256=evil, best={"step": 9, evil: 0.5}, test={evil: 0.5},
           nondeterministic_operations=(evil,)).write(run.result)
    tracker = Tracker(run, attempt, step=30, config_text="")
    tracker.scalars(31, {f"{evil.replace('/', '')}/{evil.replace('/', '')}": 0.5})
    tracker.picture(31, f"validation/{evil.replace('/', '')}", contact_sheet([torch.rand(1, 8, 8)]))
    tracker.close()
    folder = run.path / "evaluation" / evil.replace("/", "")
    folder.mkdir(parents=True)
    (folder / "metrics.txt").write_text(evil)
    Image.new("L", (4, 4)).save(folder / f"{evil.replace('/', '')}.png")
    page = report(run)
    assert page.count(unescape("&lt;script")) == 0
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;") > 20
