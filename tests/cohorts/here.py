"""Stands for the processes that scans are read in, where a test has no need of them."""

from sg.cohorts import index
from sg.scans import Refusal


def each(work, jobs, workers, seconds):
    """Like sg.isolated.each, in this process and without limits of memory."""
    for job in jobs:
        try:
            yield index.measure(*job)
        except Refusal as refusal:
            yield refusal
