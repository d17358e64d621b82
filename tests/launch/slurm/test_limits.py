"""What the names of limits mean. They are SLURM 22.05's; in tests/slurm/test_accounts_and_qos.py a controller says
them."""

from __future__ import annotations

import pytest

from drumbeat.launch.slurm.limits import limit

OTHER = {"qos": "choose another qos or partition in the profile", "account": "choose another account in the profile"}
WAIT = "wait until some jobs end (squeue --me shows yours), "


@pytest.mark.parametrize(("name", "words", "remedy", "key"), [
    ("QOSMaxWallDurationPerJobLimit", "it asks for more time than its QOS lets a job have",
     "ask for a shorter time_minutes (a run that needs longer is queued again by itself), or ", "qos"),
    ("QOSMaxGRESPerNode", "it asks for more GPUs on a node than its QOS lets a job have", "ask for fewer --gpus, or ",
     "qos"),
    ("AssocMaxNodePerJobLimit", "it asks for more nodes than its account lets a job have",
     "ask for fewer --nodes, or ", "account"),
    ("QOSMaxMemoryPerJob", "it asks for more memory than its QOS lets a job have",
     "ask for less memory in the profile, or ", "qos"),
    ("AssocMaxGRESMinutesPerJob", "it asks for more GPU minutes than its account lets a job have",
     "ask for fewer --gpus or a shorter time_minutes, or ", "account"),
    ("AssocGrpBillingMinutes", "the billing unit minutes of its account are used up", "", "account"),
    ("QOSMaxCpuPerUserLimit", "its QOS lets one user have only so many cores",
     f"{WAIT}ask for fewer launch.cpus_per_rank, or ", "qos"),
    ("AssocMaxJobsLimit", "its account lets one user have only so many jobs at work", f"{WAIT}or ", "account"),
    ("QOSMaxSubmitJobPerUserLimit", "its QOS lets one user have only so many jobs in the queue", f"{WAIT}or ", "qos"),
    ("MaxSubmitJobsPerAccount", "its QOS lets one account have only so many jobs in the queue", f"{WAIT}or ", "qos"),
    ("AssocGrpMemLimit", "all jobs of its account together may have only so much memory",
     f"{WAIT}ask for less memory in the profile, or ", "account"),
    ("QOSGrpGRESRunMinutes", "all jobs of its QOS together may have only so many GPU minutes",
     f"{WAIT}ask for fewer --gpus or a shorter time_minutes, or ", "qos"),
    ("AssocGrpCPUMinutesLimit", "the core minutes of its account are used up", "", "account"),
    ("QOSGrpWallLimit", "the time of its QOS is used up", "", "qos"),
    ("QOSMinGRES", "it asks for fewer GPUs than its QOS wants a job to have", "ask for more GPUs, or ", "qos"),
    ("QOSMinCpuNotSatisfied", "it asks for fewer cores than its QOS wants a job to have", "ask for more cores, or ",
     "qos"),
])
def test_a_limit_in_words(name: str, words: str, remedy: str, key: str) -> None:
    found = limit(name)
    assert found and (found.words, found.remedy, found.key) == (words, remedy + OTHER[key], key)
    assert found.waits == remedy.startswith("wait")


@pytest.mark.parametrize("name", ["Resources", "QOSNotAllowed", "QOSUsageThreshold", "PartitionTimeLimit", "Maximum",
                                  "MaxMemPerLimit", "QOSGrpUnknown", ""])
def test_no_limit_of_an_account_or_a_qos(name: str) -> None:
    assert limit(name) is None
