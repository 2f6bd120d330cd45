"""Pre-train a network with one method, as its recipe says."""

from sg import paths
from sg.pretraining import pretrain
from sg.stage import stage

if __name__ == "__main__":
    with stage("pretrain", __doc__, "method") as run:
        method = run.items["method"]
        done = pretrain(
            method,
            run.read("pretrain.shared"),
            run.read(f"pretrain.recipes.{method}"),
            run.seed,
            clip=(run.read("resample.hu_min"), run.read("resample.hu_max")),
            state=run.state(),
            folder=run.output(paths.method(method)),
            workers=run.workers,
        )
        run.summary(
            f"{done.fitted.epochs} epochs (best {done.fitted.best_epoch}), "
            f"validation loss {done.fitted.best_validation:.4f}, {done.parameters / 1e6:.1f} M parameters"
        )
