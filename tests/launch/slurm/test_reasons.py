"""What SLURM's reasons mean, and what to do."""

from __future__ import annotations

import pytest

from drumbeat.launch.slurm.reasons import REASONS, explain_reason

SLURM_HAS = """
AccountNotAllowed AccountingPolicy AssocGrpBB AssocGrpBBMinutes AssocGrpBBRunMinutes AssocGrpBilling
AssocGrpBillingMinutes AssocGrpBillingRunMinutes AssocGrpCPUMinutesLimit AssocGrpCPURunMinutesLimit
AssocGrpCpuLimit AssocGrpEnergy AssocGrpEnergyMinutes AssocGrpEnergyRunMinutes AssocGrpGRES AssocGrpGRESMinutes
AssocGrpGRESRunMinutes AssocGrpJobsLimit AssocGrpLicense AssocGrpLicenseMinutes AssocGrpLicenseRunMinutes
AssocGrpMemLimit AssocGrpMemMinutes AssocGrpMemRunMinutes AssocGrpNodeLimit AssocGrpNodeMinutes
AssocGrpNodeRunMinutes AssocGrpSubmitJobsLimit AssocGrpUnknown AssocGrpUnknownMinutes AssocGrpUnknownRunMinutes
AssocGrpWallLimit AssocMaxBBMinutesPerJob AssocMaxBBPerJob AssocMaxBBPerNode AssocMaxBillingMinutesPerJob
AssocMaxBillingPerJob AssocMaxBillingPerNode AssocMaxCpuMinutesPerJobLimit AssocMaxCpuPerJobLimit
AssocMaxCpuPerNode AssocMaxEnergyMinutesPerJob AssocMaxEnergyPerJob AssocMaxEnergyPerNode AssocMaxGRESMinutesPerJob
AssocMaxGRESPerJob AssocMaxGRESPerNode AssocMaxJobsLimit AssocMaxLicenseMinutesPerJob AssocMaxLicensePerJob
AssocMaxMemMinutesPerJob AssocMaxMemPerJob AssocMaxMemPerNode AssocMaxNodeMinutesPerJob AssocMaxNodePerJobLimit
AssocMaxSubmitJobLimit AssocMaxUnknownMinutesPerJob AssocMaxUnknownPerJob AssocMaxUnknownPerNode
AssocMaxWallDurationPerJobLimit AssociationJobLimit AssociationResourceLimit AssociationTimeLimit BadConstraints
BeginTime BlockFreeAction BlockMaxError BurstBufferOperation BurstBufferResources BurstBufferStageIn Cleaning
Constraints DeadLine Dependency DependencyNeverSatisfied FedJobLock FrontEndDown InactiveLimit InvaildReason
InvalidAccount InvalidQOS InvalidReason JobArrayTaskLimit JobHeldAdmin JobHeldUser JobHoldMaxRequeue
JobLaunchFailure Licenses MaxBBPerAccount MaxBBRunMinsPerAccount MaxBBRunMinsPerUser MaxBillingPerAccount
MaxBillingRunMinsPerAccount MaxBillingRunMinsPerUser MaxCpuPerAccount MaxCpuRunMinsPerAccount MaxCpuRunMinsPerUser
MaxEnergyPerAccount MaxEnergyRunMinsPerAccount MaxEnergyRunMinsPerUser MaxGRESPerAccount MaxGRESRunMinsPerAccount
MaxGRESRunMinsPerUser MaxJobsPerAccount MaxLicensePerAccount MaxLicenseRunMinsPerAccount MaxLicenseRunMinsPerUser
MaxMemPerLimit MaxMemoryPerAccount MaxMemoryRunMinsPerAccount MaxMemoryRunMinsPerUser MaxNodePerAccount
MaxNodeRunMinsPerAccount MaxNodeRunMinsPerUser MaxPoweredUpNodes MaxSubmitJobsPerAccount MaxUnknownPerAccount
MaxUnknownRunMinsPerAccount MaxUnknownRunMinsPerUser MpiPortsBusy NodeDown NonZeroExitCode None NvidiaImexChannels
OutOfMemory PartitionConfig PartitionDown PartitionInactive PartitionNodeLimit PartitionTimeLimit PowerNotAvail
PowerReserved Priority Prolog QOSGrpBB QOSGrpBBMinutes QOSGrpBBRunMinutes QOSGrpBilling QOSGrpBillingMinutes
QOSGrpBillingRunMinutes QOSGrpCPUMinutesLimit QOSGrpCPURunMinutesLimit QOSGrpCpuLimit QOSGrpEnergy
QOSGrpEnergyMinutes QOSGrpEnergyRunMinutes QOSGrpGRES QOSGrpGRESMinutes QOSGrpGRESRunMinutes QOSGrpJobsLimit
QOSGrpLicense QOSGrpLicenseMinutes QOSGrpLicenseRunMinutes QOSGrpMemLimit QOSGrpMemoryMinutes
QOSGrpMemoryRunMinutes QOSGrpNodeLimit QOSGrpNodeMinutes QOSGrpNodeRunMinutes QOSGrpSubmitJobsLimit QOSGrpUnknown
QOSGrpUnknownMinutes QOSGrpUnknownRunMinutes QOSGrpWallLimit QOSJobLimit QOSMaxBBPerJob QOSMaxBBPerNode
QOSMaxBBPerUser QOSMaxBillingMinutesPerJob QOSMaxBillingPerJob QOSMaxBillingPerNode QOSMaxBillingPerUser
QOSMaxCpuMinutesPerJobLimit QOSMaxCpuPerJobLimit QOSMaxCpuPerNode QOSMaxCpuPerUserLimit QOSMaxEnergyMinutesPerJob
QOSMaxEnergyPerJob QOSMaxEnergyPerNode QOSMaxEnergyPerUser QOSMaxGRESMinutesPerJob QOSMaxGRESPerJob
QOSMaxGRESPerNode QOSMaxGRESPerUser QOSMaxJobsPerUserLimit QOSMaxLicenseMinutesPerJob QOSMaxLicensePerJob
QOSMaxLicensePerUser QOSMaxMemoryMinutesPerJob QOSMaxMemoryPerJob QOSMaxMemoryPerNode QOSMaxMemoryPerUser
QOSMaxNodeMinutesPerJob QOSMaxNodePerJobLimit QOSMaxNodePerUserLimit QOSMaxSubmitJobPerUserLimit
QOSMaxUnknownMinutesPerJob QOSMaxUnknownPerJob QOSMaxUnknownPerNode QOSMaxUnknownPerUser
QOSMaxWallDurationPerJobLimit QOSMinBB QOSMinBilling QOSMinCpuNotSatisfied QOSMinEnergy QOSMinGRES QOSMinLicense
QOSMinMemory QOSMinNode QOSMinUnknown QOSNotAllowed QOSResourceLimit QOSTimeLimit QOSUsageThreshold RaisedSignal
ReqNodeNotAvail Reservation ReservationDeleted ReservationInvalid Resources SchedDefer SystemFailure TimeLimit
"""
"""Each reason in src/common/job_state_reason.c (until 22.05: slurm_protocol_defs.c) of SLURM 20.11 to 26.05."""

TEXTS = ("job requeued in held state", "launch failed requeued held", "launch failure limit exceeded requeued held",
         "user env retrieval failed requeued held", "ReqNodeNotAvail, Reserved for maintenance",
         "Nodes required for job are DOWN, DRAINED, REBOOTING or reserved for jobs in higher priority partitions")
"""Texts in src/slurmctld that take the place of a reason."""


@pytest.mark.parametrize(("reason", "words"), [
    ("QOSGrpCpuLimit", "its QOS limits the cores of all its jobs together"),
    ("AssocMaxSubmitJobLimit", "its account limits the jobs in the queue of each user"),
    ("QOSMaxNodePerJobLimit", "it asks for more nodes than its QOS allows for a job"),
    ("ReqNodeNotAvail, UnavailableNodes:n1", "a node that it needs is down, drained or reserved (UnavailableNodes:n1)"),
    ("(Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions)",
     "all nodes that it could use are down, drained, or reserved for partitions of higher priority"),
    ("launch_failed_requeued_held", "it could not be started on its node, and SLURM holds it"),
    ("job requeued in held state", "it was requeued and held, by a user or by its exit code"),
])
def test_the_meaning_of_reasons(reason: str, words: str) -> None:
    assert explain_reason(reason)[0] == words


@pytest.mark.parametrize("reason", [*SLURM_HAS.split(), *TEXTS])
def test_every_reason_of_slurm_is_known(reason: str) -> None:
    meaning, remedy = explain_reason(reason)
    assert not meaning.startswith("SLURM's reason is")
    assert remedy


def test_an_unknown_reason() -> None:
    assert "JOB" not in explain_reason("Weather")[1], "which would be taken for the job's id"


def test_every_reason_has_a_meaning_and_a_remedy() -> None:
    assert all(words and remedy for words, remedy in REASONS.values())
