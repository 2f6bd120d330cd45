"""Fine-tune one task from one initialization, in several seeded trials."""

from sg import paths
from sg.stage import stage
from sg.targets.finetuning import finetune

if __name__ == "__main__":
    with stage("finetune", __doc__, "task", "initialization") as run:
        task, initialization = run.items["task"], run.items["initialization"]
        run.summary(
            finetune(
                paths.target(task),
                initialization,
                paths.method(initialization),
                run.read("finetune.trials"),
                run.read(f"finetune.training.{task}"),
                run.seed,
                state=run.state(),
                folder=run.output(paths.trials(task, initialization)),
            )
        )
