"""Cut every pattern out of its patients into one cache, and random sub-volumes into another."""

import json

from sg import paths
from sg.cohorts.records import ScanRow, of_use, read_rows
from sg.crops import read_crops
from sg.cutting import write_caches
from sg.resampled import resampled_scans
from sg.stage import stage

if __name__ == "__main__":
    with stage("patches", __doc__) as run:
        discovered = json.loads(paths.COORDINATES_METRICS.read_text(encoding="utf-8"))
        scans = resampled_scans(of_use(read_rows(paths.SCANS, ScanRow), "pretrain"), paths.RESAMPLED)
        done = write_caches(
            run.output(paths.PATCHES),
            read_crops(paths.CROPS_TABLE),
            discovered["patterns"],
            tuple(discovered["patch_size"]),
            [row for row in scans if row.split != "test"],
            paths.RESAMPLED,
            run.read("patches"),
            run.seed,
            run.workers,
        )
        run.summary(
            f"{done.patterns} patches of {discovered['patterns']} patterns and {done.random} random sub-volumes "
            f"from {done.scans} scans"
        )
