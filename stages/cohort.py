"""Index every scan with its patient, split, hash and findings; set aside what cannot be vouched for."""

from sg import paths
from sg.cohorts import index
from sg.stage import stage

if __name__ == "__main__":
    with stage("cohort", __doc__) as run:
        cohort = index.build(run.read("cohort"), run.seed, run.workers)
        index.write(cohort, run.output(paths.COHORT))
        index.show(cohort.summary)
        run.summary(index.sentence(cohort.summary))
