"""Measure whether the crops of a pattern show the same anatomy."""

from sg import paths
from sg.quality.measuring import Sources, in_a_line, measure, write_quality
from sg.roles import read_roles
from sg.stage import stage

if __name__ == "__main__":
    with stage("quality", __doc__) as run:
        sources = Sources(
            paths.COORDINATES,
            paths.TRUTH,
            paths.PATTERNS,
            paths.RANKING,
            paths.THUMBNAILS,
            paths.SCANS,
            paths.EMBED,
        )
        found = measure(sources, read_roles(paths.ROLES), run.read("quality").registrations, run.seed)
        write_quality(run.output(paths.QUALITY), found)
        run.summary(in_a_line(found.figures))
