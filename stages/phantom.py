"""Make a cohort of synthetic chest CTs with known truth, in a public data set's layout."""

from sg import paths
from sg.cohorts.phantom.making import make
from sg.stage import stage

if __name__ == "__main__":
    with stage("phantom", __doc__, "cohort") as run:
        cohort = run.items["cohort"]
        recipe = run.read(f"phantom.recipes.{cohort}")
        made = make(
            run.output(paths.phantom(cohort)),
            run.seed,
            cohort,
            recipe,
            run.read("phantom.shared"),
            run.workers,
        )
        run.summary(
            f"{cohort}: {len(made)} scans in the layout of {recipe.layout}, {sum(one.findings for one in made)} findings; "
            f"atlas positions interpolate to {max(one.interpolation_error_mm for one in made):.1f} mm (95th percentile)"
        )
