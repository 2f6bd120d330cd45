"""Make the patches of one target task."""

from sg import console, paths
from sg.cohorts.records import FindingRow, ScanRow, read_rows
from sg.roles import TASK_ROLES, read_roles
from sg.stage import stage
from sg.targets.tasks import write_task

if __name__ == "__main__":
    with stage("targets", __doc__, "task") as run:
        task = run.items["task"]
        facts, warnings = write_task(
            run.output(paths.target(task)),
            task,
            run.read(f"targets.recipes.{task}"),
            read_roles(paths.ROLES).scans(read_rows(paths.SCANS, ScanRow), task, *TASK_ROLES.values()),
            read_rows(paths.FINDINGS, FindingRow),
            paths.RESAMPLED,
            run.seed,
        )
        for warning in warnings:
            console.warn(warning)
        run.summary(facts)
