"""Name what the study is made of, and clear away what it no longer names."""

from sg import paths
from sg.plan import clear, write_plan
from sg.stage import stage

if __name__ == "__main__":
    with stage("plan", __doc__) as run:
        plan = run.read("plan")
        tasks = run.read("finetune.tasks")
        initializations = run.read("finetune.initializations")
        cohorts = run.read("phantom.cohorts")
        removed = clear(paths.DATA, plan, cohorts, tasks, initializations)
        write_plan(run.output, plan, cohorts, tasks, initializations, run.read("pretrain.shared.network"))
        run.summary(
            f"{len(plan.methods)} methods, {len(tasks)} tasks from {len(initializations)} initializations"
            + (f"; removed {', '.join(map(str, removed))}" if removed else "")
        )
