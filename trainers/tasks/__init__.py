"""Tasks: what the outputs of a model mean, its loss and its metrics. One class for each kind of task.

    Classification    one class of several            targets int64 [n]
    MultiLabel        any number of labels            targets 0 or 1, float32 [n, labels]
    Regression        one or several numbers          targets float32 [n, values] or [n]
    Segmentation      a class for each pixel          targets of any integer type, [n, H, W]

Metrics are computed from a whole set at once, on one thread, so they are the same to the bit on any number of ranks.
"""

from drumbeat.trainers.tasks.classification import Classification as Classification
from drumbeat.trainers.tasks.logged import log as log
from drumbeat.trainers.tasks.logged import log_image as log_image
from drumbeat.trainers.tasks.multilabel import MultiLabel as MultiLabel
from drumbeat.trainers.tasks.regression import Regression as Regression
from drumbeat.trainers.tasks.segmentation import Segmentation as Segmentation
from drumbeat.trainers.tasks.task import Results as Results
from drumbeat.trainers.tasks.task import Task as Task
from drumbeat.trainers.tasks.task import WorstSample as WorstSample
