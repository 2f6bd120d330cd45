"""Rank the nearest patients of every training patient."""

from sg import paths
from sg.neighbors import rank, read_embeddings, write_ranking
from sg.roles import read_roles
from sg.stage import stage

if __name__ == "__main__":
    with stage("neighbors", __doc__) as run:
        settings = run.read("neighbors")
        embeddings = read_embeddings(paths.EMBEDDINGS, read_roles(paths.ROLES))
        ranking, metrics = rank(embeddings, settings.index, settings.depth)
        write_ranking(run.output(paths.NEIGHBORS), ranking, metrics)
        run.summary(
            f"{metrics['depth_train']} training and {metrics['depth_validation']} validation patients ranked "
            f"around each of {metrics['training_patients']} references"
        )
