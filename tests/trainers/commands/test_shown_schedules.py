"""`drumbeat show` tells the schedule of each phase, how weights are averaged, and the memory of that."""

from __future__ import annotations

from pathlib import Path

from drumbeat.configs.load import load
from drumbeat.trainers.commands.show import show
from drumbeat.trainers.commands.shown_schedules import schedule_lines
from tests.tiny import write_config

EMA = ("phases.head.average={_target_: torch.optim.swa_utils.AveragedModel, use_buffers: true, multi_avg_fn: "
       "{_target_: torch.optim.swa_utils.get_ema_multi_avg_fn, decay: 0.9}}")


def test_schedules_and_averages_of_all_phases(tmp_path: Path) -> None:
    nested = ("phases.finetune.scheduler={_target_: torch.optim.lr_scheduler.SequentialLR, milestones: [3], "
              "schedulers: [{_target_: torch.optim.lr_scheduler.LinearLR}, "
              "{_target_: torch.optim.lr_scheduler.ExponentialLR, gamma: 0.5}]}")
    config = load(write_config(tmp_path), [EMA, "phases.head.average_every=null", nested]).config
    text = " ".join(" ".join(schedule_lines(config)).split())
    assert text == (
        "schedule head: a constant learning rate; average of the weights: AveragedModel (use_buffers true, "
        "multi_avg_fn get_ema_multi_avg_fn (decay 0.9)), every epoch "
        "schedule finetune: SequentialLR (milestones [3], schedulers [LinearLR, ExponentialLR (gamma 0.5)]), every "
        "step")


def test_the_memory_of_an_average(tmp_path: Path) -> None:
    lines = show(load(write_config(tmp_path), [EMA]).config, tmp_path / "show.png")
    start = next(number for number, line in enumerate(lines) if line.startswith("phase "))
    titles, head, finetune = (line.split() for line in lines[start:start + 3])
    assert titles == ["phase", "batch", "weights", "gradients", "optimizer", "average", "activations", "total"]
    weights, average, none = head[2:4], head[8:10], finetune[8:10]
    assert weights == average and none == ["0", "B"]
    assert any(line.startswith("schedule   finetune: CosineAnnealingLR (T_max 25), every step") for line in lines)
