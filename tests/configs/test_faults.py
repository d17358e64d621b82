"""The faults of a config: what is wrong, where, and what to write instead."""

from __future__ import annotations

from dataclasses import fields

import pytest

from drumbeat.configs.errors import ConfigError
from drumbeat.configs.load import load
from drumbeat.configs.schema import Phase
from tests.configs.small import BASE, Write, faults


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
    ("micro_batch_size=many", "micro_batch_size must be a whole number, auto or null", ""),
    ("data.shuffle=3.5", "data.shuffle must be true or false", ""),
    ("phases.head.epochs=-1", "phases.head.epochs must be above 0", ""),
    ("phases.head.epochs=.inf", "phases.head.epochs must be a finite number", ""),
    ("phases.head.epochs=.nan", "phases.head.epochs must be a finite number", ""),
    ("precision=fp8", "precision must be one of auto, bf16, fp16, tf32, fp32", ""),
    ("phases.head.freeze=backbone", "phases.head.freeze must be a list",
     "Put it in brackets: phases.head.freeze: [backbone]"),
    ("data.test=null", "data.test must be a section: `_target_: package.module.Name` and its arguments",
     "Write {} for none: data.test: {}"),
    ("model=3", "model must be a section: `_target_: package.module.Name` and its arguments", ""),
    ("phases.head.groups.a.weight_decay=0", "unknown key 'weight_decay' in 'phases.head.groups.a'",
     "An argument of the optimizer? Write optimizer: {weight_decay: ...}"),
    ("phases.head.groups.a.mtch=[x]", "unknown key 'mtch' in 'phases.head.groups.a'", "Did you mean 'match'?"),
    ("phases.head=3", f"phases.head must be a section with some of: {', '.join(one.name for one in fields(Phase))} or "
     "null", ""),
    ("budget=0", "budget must be a section with some of: steps, hours", "Write a section, {} for none: budget: {}"),
    ("budget=35", "budget must be a section with some of: steps, hours", "Write a section: budget: {steps: 35}"),
    ("checkpoints.keep_best=0", "checkpoints.keep_best must be at least 1", "Leave it out for the default: 1."),
    ("phases.head.patience=0", "phases.head.patience must be at least 1", "Leave it out, or write null."),
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
     "model.x refers to something that does not exist: Environment variable 'NOPE_X' not found",
     "Set it, or give a default: ${oc.env:NOPE_X,DEFAULT}"),
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


def test_odd_keys_of_sections(write: Write) -> None:
    with pytest.raises(ConfigError, match="phases must be named with letters, digits"):
        load(write("phases: {'a b': {epochs: 1, optimizer: {_target_: x}}}\n"))
    with pytest.raises(ConfigError, match="incompatible"):
        load(write("phases: {1: {epochs: 1, optimizer: {_target_: x}}}\n"))
