"""LightningRecorder: a Lightning module that knows nothing of it; accumulation, clipping, resume."""

import pytest
import torch
from spy import Spy

from graphdyn.estimate import Invalid
from graphdyn.instruments import Instrument
from graphdyn.journal import read_table
from graphdyn.schedule import Epoch

pl = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own advice


def module_of(clip=None):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            rng = torch.Generator().manual_seed(1)
            self.net = torch.nn.Linear(3, 1)
            self.net.weight.data = torch.randn(1, 3, generator=rng)
            self.net.bias.data.zero_()
            self.losses = []

        def training_step(self, batch, index):
            loss = self.net(batch[0]).square().mean()
            self.losses.append(loss.item())
            return loss

        def validation_step(self, batch, index):
            self.log("valid", self.net(batch[0]).square().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.5)

    return Module()


class Ends(Instrument):
    every = Epoch()

    def measure(self, s):
        if not s.scores:
            raise Invalid("nothing was evaluated.")
        return {"valid": s.scores["valid"]}


def loader(rows=12):
    rng = torch.Generator().manual_seed(2)
    data = torch.utils.data.TensorDataset(torch.randn(rows, 3, generator=rng))
    return torch.utils.data.DataLoader(data, batch_size=2)


def fit(tmp_path, module, callbacks, epochs=2, ckpt=None, **options):
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=any(hasattr(c, "save_top_k") for c in callbacks),
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
        default_root_dir=tmp_path, **options,
    )  # fmt: skip
    trainer.fit(
        module, loader(), loader(4), ckpt_path=ckpt, **({"weights_only": False} if ckpt else {})
    )
    return trainer


def recorded(*instruments, **options):
    from graphdyn.lightning import LightningRecorder

    return LightningRecorder(instruments, **options)


def rows(recorder):
    return [(c.step, r.name, r.value) for c, r in recorder.sink.rows if hasattr(r, "value")]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_step_once(tmp_path, accumulate):
    module, spy = module_of(), Spy()
    callback = recorded(spy, Ends())
    fit(tmp_path, module, [callback], accumulate_grad_batches=accumulate)
    steps = 12 // accumulate
    assert callback.recorder.step == steps
    assert [seen["step"] for seen in spy.seen] == list(range(1, steps + 1))
    found = rows(callback.recorder)
    assert {seen["micro"].shape[0] for seen in spy.seen} == {accumulate}
    own = [sum(module.losses[i : i + accumulate]) / accumulate for i in range(0, 12, accumulate)]
    assert [v for _, n, v in found if n == "loss"] == pytest.approx(own)
    assert [s for s, n, _ in found if n == "loss"] == list(range(1, steps + 1))
    read = [loss for seen in spy.seen for _, loss in seen["losses"]]
    assert read == pytest.approx(own[:-1])
    assert [s for s, n, _ in found if n == "ends.valid"] == [steps // 2, steps]


def test_training_is_the_same(tmp_path):
    watched, alone = module_of(), module_of()
    fit(tmp_path, watched, [recorded(Spy(), Ends())])
    fit(tmp_path, alone, [])
    assert watched.losses == alone.losses
    assert torch.equal(watched.net.weight, alone.net.weight)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_clipping_is_seen_where_lightning_clips(tmp_path, clip):
    spy = Spy()
    fit(tmp_path, module_of(), [recorded(spy)], epochs=1, gradient_clip_val=clip)
    assert [seen["modified"] for seen in spy.seen] == [clip is not None] * 6
    norms = [float(seen["grad"].norm()) for seen in spy.seen]
    assert all(norm <= 1.01e-3 for norm in norms) == (clip is not None)


def test_it_goes_on_from_lightnings_checkpoint(tmp_path):
    straight = recorded(Spy(), to=tmp_path / "straight")
    fit(tmp_path, module_of(), [straight], epochs=3)

    class Stops(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    first = recorded(Spy(), to=tmp_path / "run")
    saves = pl.callbacks.ModelCheckpoint(
        tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True
    )
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, module_of(), [first, Stops(), saves], epochs=3)
    assert read_table(tmp_path / "run").column("step").to_pylist()[-1] == 12
    again = recorded(Spy(), to=tmp_path / "run")
    fit(tmp_path, module_of(), [again], epochs=3, ckpt=tmp_path / "epoch=0.ckpt")
    one, other = (
        sorted(map(str, read_table(tmp_path / name).drop_columns("seconds").to_pylist()))
        for name in ("straight", "run")
    )
    assert one == other
