"""Learn an auto-encoder of whole scans and place every scan in the space of its bottleneck."""

from sg import paths
from sg.embedding import learn_embedding
from sg.roles import read_roles
from sg.stage import stage

if __name__ == "__main__":
    with stage("embed", __doc__) as run:
        learned = learn_embedding(
            paths.THUMBNAILS,
            read_roles(paths.ROLES),
            run.output(paths.EMBED),
            run.read("embed"),
            run.seed,
            run.state(),
        )
        fitted = learned.fitted
        run.summary(
            f"{learned.scans} scans as vectors of {learned.channels}; validation loss {fitted.best_validation:.5f} "
            f"at epoch {fitted.best_epoch} of {fitted.epochs}"
        )
