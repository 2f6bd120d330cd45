"""Measure whether the crops of a pattern show the same anatomy."""

from sg import paths
from sg.quality import in_a_line, measure, write_quality
from sg.stage import stage

if __name__ == "__main__":
    with stage("quality", __doc__) as run:
        settings = run.read("quality")
        rows, figures = measure(
            paths.COORDINATES, paths.PATTERNS, paths.TRUTH, settings.random_patients, run.seed
        )
        write_quality(run.output(paths.QUALITY), rows, figures)
        run.summary(in_a_line(figures))
