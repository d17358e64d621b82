"""What SLURM 22.05's names of limits mean. In tests/slurm/test_accounts_and_qos.py a real controller reports them."""

from __future__ import annotations

import pytest

from drumbeat.launch.slurm.limits import parse_limit

OTHER = {"qos": "choose another qos or partition in the profile", "account": "choose another account in the profile"}
WAIT = "wait until some jobs end (squeue --me shows yours), "


@pytest.mark.parametrize(("name", "message", "remedy", "key"), [
    ("QOSMaxWallDurationPerJobLimit", "it asks for more time than its QOS allows for a job",
     "request a shorter time_minutes (a run that needs longer is requeued by itself), or ", "qos"),
    ("QOSMaxGRESPerNode", "it asks for more GPUs on a node than its QOS allows for a job", "request fewer --gpus, or ",
     "qos"),
    ("AssocMaxNodePerJobLimit", "it asks for more nodes than its account allows for a job",
     "request fewer --nodes, or ", "account"),
    ("QOSMaxMemoryPerJob", "it asks for more memory than its QOS allows for a job",
     "request less memory in the profile, or ", "qos"),
    ("AssocMaxGRESMinutesPerJob", "it asks for more GPU minutes than its account allows for a job",
     "request fewer --gpus or a shorter time_minutes, or ", "account"),
    ("AssocGrpBillingMinutes", "the billing unit minutes of its account are used up", "", "account"),
    ("QOSMaxCpuPerUserLimit", "its QOS limits the cores of each user",
     f"{WAIT}request fewer launch.cpus_per_rank, or ", "qos"),
    ("AssocMaxJobsLimit", "its account limits the running jobs of each user", f"{WAIT}or ", "account"),
    ("QOSMaxSubmitJobPerUserLimit", "its QOS limits the jobs in the queue of each user", f"{WAIT}or ", "qos"),
    ("MaxSubmitJobsPerAccount", "its QOS limits the jobs in the queue of each account", f"{WAIT}or ", "qos"),
    ("AssocGrpMemLimit", "its account limits the memory of all its jobs together",
     f"{WAIT}request less memory in the profile, or ", "account"),
    ("QOSGrpGRESRunMinutes", "its QOS limits the GPU minutes of all its jobs together",
     f"{WAIT}request fewer --gpus or a shorter time_minutes, or ", "qos"),
    ("AssocGrpCPUMinutesLimit", "the core minutes of its account are used up", "", "account"),
    ("QOSGrpWallLimit", "the time of its QOS is used up", "", "qos"),
    ("QOSMinGRES", "it asks for fewer GPUs than the minimum of its QOS", "request more GPUs, or ", "qos"),
    ("MaxCpuRunMinsPerUser", "its QOS limits the core minutes of each user",
     f"{WAIT}request fewer launch.cpus_per_rank or a shorter time_minutes, or ", "qos"),
    ("QOSMaxBBPerJob", "it asks for more burst buffers than its QOS allows for a job",
     "request less burst buffer space, or ", "qos"),
    ("AssocGrpUnknown", "its account limits the other resources of all its jobs together",
     f"{WAIT}request fewer of these resources, or ", "account"),
    ("QOSMinCpuNotSatisfied", "it asks for fewer cores than the minimum of its QOS", "request more cores, or ",
     "qos"),
])
def test_the_message_of_a_limit(name: str, message: str, remedy: str, key: str) -> None:
    found = parse_limit(name)
    assert found and (found.message, found.remedy, found.key) == (message, remedy + OTHER[key], key)
    assert found.waits == remedy.startswith("wait")


@pytest.mark.parametrize("name", ["Resources", "QOSNotAllowed", "QOSUsageThreshold", "PartitionTimeLimit", "Maximum",
                                  "MaxMemPerLimit", "QOSGrpWeather", ""])
def test_no_limit_of_an_account_or_a_qos(name: str) -> None:
    assert parse_limit(name) is None
