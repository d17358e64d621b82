"""Trackers: what shows the curves of many runs side by side, and the process that sends them what a run has written.

They read the run's event files in a process beside it, which never imports torch, so that no tracker costs the training
anything. Nothing here is imported before it is needed: the packages of trackers are slow to import.
"""

from drumbeat.trainers.trackers.mlflow import MLflow
from drumbeat.trainers.trackers.tracker import Row, RunInfo, Tracker
from drumbeat.trainers.trackers.trackio import Trackio
from drumbeat.trainers.trackers.wandb import WandB

__all__ = ["MLflow", "Row", "RunInfo", "Tracker", "Trackio", "WandB"]
