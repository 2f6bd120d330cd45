"""Bring all scans to one orientation, grid and intensity range."""

from sg import paths, resampling
from sg.cohorts.records import FileRow, ScanRow, read_rows
from sg.stage import stage

if __name__ == "__main__":
    with stage("resample", __doc__) as run:
        tally = resampling.resample_cohort(
            read_rows(paths.SCANS, ScanRow),
            read_rows(paths.FILES, FileRow),
            run.place("cohort.raw"),
            run.read("resample"),
            run.code_fingerprint(),
            earlier=paths.RESAMPLED,
            store=run.store(),
            output=run.output(paths.RESAMPLED),
            workers=run.workers,
        )
        resampling.show(tally)
        run.summary(str(tally))
