"""Score the trials on the test patients and test the differences."""

from sg import console, paths
from sg.evaluation import evaluate, write_evaluation
from sg.plan import read_plan
from sg.roles import read_roles
from sg.stage import stage
from sg.targets.roles import check_tasks

if __name__ == "__main__":
    with stage("evaluate", __doc__) as run:
        settings = run.read("evaluate")
        plan = read_plan(paths.FINETUNE_PLAN)
        check_tasks((row["task"] for row in plan), paths.TARGETS, read_roles(paths.ROLES))
        scored = evaluate(plan, paths.TARGETS, paths.FINETUNE, settings, run.seed)
        for task in scored:
            for warning in task.warnings:
                console.warn(warning)
        run.summary(write_evaluation(run.output(paths.EVALUATE), run.output(paths.METRICS), scored, settings))
