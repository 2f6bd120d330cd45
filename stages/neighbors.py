"""Rank the nearest patients of training patients."""

from sg import paths
from sg.neighbors import draw_references, rank, read_embeddings, write_ranking
from sg.roles import read_roles
from sg.stage import stage

if __name__ == "__main__":
    with stage("neighbors", __doc__) as run:
        settings = run.read("neighbors")
        embeddings = read_embeddings(paths.EMBEDDINGS, read_roles(paths.ROLES))
        references = draw_references(embeddings, settings.references, run.seed)
        ranking, metrics = rank(embeddings, settings.index, settings.depth, settings.search, references)
        write_ranking(run.output(paths.NEIGHBORS), ranking, metrics)
        run.summary(
            f"{metrics['depth_train']} training and {metrics['depth_validation']} validation patients ranked "
            f"around each of {len(references)} references"
        )
