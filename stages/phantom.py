"""Make a cohort of synthetic patients with known truth, in a public data set's layout."""

from sg import paths
from sg.cohorts.phantom.making import make
from sg.stage import stage

if __name__ == "__main__":
    with stage("phantom", __doc__, "cohort") as run:
        cohort = run.items["cohort"]
        layout = run.read(f"phantom.recipes.{cohort}").layout
        made = make(
            run.output(paths.phantom(cohort)),
            run.seed,
            cohort,
            run.read("phantom.recipes"),  # all of them: a cohort may show patients of another one again
            run.read("phantom.shared"),
            run.workers,
        )
        known = [one.known for one in made]
        run.summary(
            f"{cohort}: {len(made)} scans in the layout of {layout}, "
            f"{sum(one.findings for one in known)} findings; atlas positions interpolate to "
            f"{max(one.interpolation_error_mm for one in known):.1f} mm (95th percentile)"
        )
