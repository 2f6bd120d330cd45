"""Draw references and coordinates, and lay their crops in the nearest patients."""

from sg import paths
from sg.coordinates import discover, write_discovery
from sg.neighbors import read_ranking
from sg.roles import read_roles
from sg.stage import stage

if __name__ == "__main__":
    with stage("coordinates", __doc__) as run:
        settings = run.read("coordinates")
        ranking = read_ranking(paths.RANKING, read_roles(paths.ROLES))
        found = discover(ranking, paths.RESAMPLED, settings, run.seed, run.workers)
        write_discovery(run.output(paths.COORDINATES), found)
        figures = found.metrics
        run.summary(
            f"{figures['patterns']} patterns ({settings.frame} frame), {figures['crops']} crops; "
            f"{figures['references_refused']} references refused, {figures['stepped_in']} next nearest stepped in"
        )
