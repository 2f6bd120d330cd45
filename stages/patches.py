"""Cut every pattern out of its patients into one cache, and random sub-volumes into another."""

import json

from sg import paths
from sg.cohorts.records import ScanRow, read_rows
from sg.crops import read_crops
from sg.cutting import write_caches
from sg.resampled import resampled_scans
from sg.roles import read_roles
from sg.stage import stage

if __name__ == "__main__":
    with stage("patches", __doc__) as run:
        drawn = json.loads(paths.COORDINATES_METRICS.read_text(encoding="utf-8"))
        roles, scans = read_roles(paths.ROLES), read_rows(paths.SCANS, ScanRow)
        done = write_caches(
            run.output(paths.PATCHES),
            read_crops(paths.CROPS_TABLE),
            drawn["patterns"],
            tuple(drawn["patch_size"]),
            resampled_scans(roles.scans(scans, "pretrain", "pretrain"), paths.RESAMPLED),
            resampled_scans(roles.scans(scans, "pretrain", "early_stopping"), paths.RESAMPLED),
            paths.RESAMPLED,
            run.read("patches"),
            run.seed,
            run.workers,
        )
        cut = f"{done.patterns} patches of {drawn['patterns']} patterns"
        run.summary(f"{cut} and {done.random} random sub-volumes from {done.scans} scans")
