"""Bring all scans to one orientation, grid and intensity range."""

from sg import paths
from sg.cohorts.records import ScanRow, read_rows
from sg.resampling import resample_cohort
from sg.stage import stage

if __name__ == "__main__":
    with stage("resample", __doc__) as run:
        tally = resample_cohort(
            read_rows(paths.SCANS, ScanRow),
            run.place("cohort.raw"),
            run.read("resample"),
            run.code_fingerprint(),
            earlier=paths.RESAMPLED,
            store=run.store(),
            output=run.output(paths.RESAMPLED),
            workers=run.workers,
        )
        run.summary(str(tally))
