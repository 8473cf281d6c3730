"""What ``msa-bench train`` does: a whole run, one that is killed, and what it goes on from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from msa_suites.models.index import FILE
from msa_suites.models.loading import ModelError
from msa_suites.models.routes import Start, checkpoint_of, load_start, train_route
from msa_suites.models.ship import ship
from msa_suites.models.shipped import EMBEDDED

from .trained import CORPUS, CPT, PT, start, train


class TestWholeRuns:
    """What ``msa-bench train`` does."""

    def go(self, out, plan=CPT, *, stop=None, resume=False):
        def on_step(_, step):
            if step.step == stop:
                raise KeyboardInterrupt  # what was saved before is all that is left of the run

        began = Start(start(), plan.start, None) if plan.start else None
        return train_route(
            plan, out, corpus=CORPUS, device="cpu", start=began,
            resume=resume, command="", on_step=on_step, contexts=1, lengths=[512],
        )  # fmt: skip

    def test_a_killed_run_goes_on_from_its_checkpoint(self, tmp_path, monkeypatch):
        monkeypatch.setattr("msa_suites.models.routes.CHECKPOINT_EVERY", 2)
        self.go(tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            self.go(tmp_path / "killed", stop=5)  # one step after a checkpoint
        with pytest.raises(ValueError, match="go on with --resume"):
            self.go(tmp_path / "killed")
        self.go(tmp_path / "killed", resume=True)
        assert not checkpoint_of(tmp_path / "killed").exists()
        for name in ("model.safetensors", FILE, "training.json"):
            one, other = ((tmp_path / way / name).read_bytes() for way in ("whole", "killed"))
            assert one == other, name

    def test_a_folder_with_something_in_it_is_not_written_over(self, tmp_path):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "mine").write_text("")
        with pytest.raises(ValueError, match="--out: wanted a folder that is empty"):
            self.go(tmp_path / "m")
        with pytest.raises(ValueError, match="--out: wanted a folder that is empty"):
            self.go(tmp_path / "m" / "mine")

    def test_another_configuration_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("msa_suites.models.routes.CHECKPOINT_EVERY", 2)
        with pytest.raises(KeyboardInterrupt):
            self.go(tmp_path / "m", stop=3)
        with pytest.raises(ValueError, match="got seed 0 where 1 is wanted"):
            self.go(tmp_path / "m", replace(CPT, seed=1), resume=True)

    def test_a_start_of_another_kind(self, tmp_path):
        made, _ = train(PT)
        ship(made, tmp_path / "m", command="", contexts=1, lengths=[512])
        with pytest.raises(ValueError, match="wanted a dense model, got one with an index branch"):
            load_start("cpt", tmp_path / "m", device="cpu")
        dense, _ = train(replace(PT, index=None))
        ship(dense, tmp_path / "d", command="", contexts=1, lengths=[512])
        with pytest.raises(
            ValueError, match=r"like the embedded one, with hidden_size 128, got 32"
        ):
            load_start("cpt", tmp_path / "d", device="cpu")
        config = json.loads((tmp_path / "m" / "config.json").read_text())
        (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
        with pytest.raises(ModelError):
            load_start("dense", tmp_path / "m", device="cpu")

    def test_the_embedded_model_is_where_cpt_begins(self):
        found = load_start("cpt", None, device="cpu")
        assert found is not None
        assert len(found.sha256) == 64
        assert found.plain is False
        assert load_start("dense", None, device="cpu") is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("num_attention_heads", 2),  # the same weights, cut into other heads
            ("rms_norm_eps", 1e-5),
            ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4}),
        ],
    )
    def test_a_start_that_differs_in_anything_is_refused(self, tmp_path, name, value):
        folder = shutil.copytree(EMBEDDED, tmp_path / "m")
        config = json.loads((folder / "config.json").read_text())
        changed = {name: value}
        if name == "num_attention_heads":
            changed |= {"head_dim": 64, "num_key_value_heads": 1}
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(ValueError, match=f"--start: wanted a model like .* with {name} "):
            load_start("cpt", folder, device="cpu")

    def test_a_start_may_differ_in_what_training_does_not_use(self, tmp_path):
        folder = shutil.copytree(EMBEDDED, tmp_path / "m")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "use_cache": False}))
        assert load_start("cpt", folder, device="cpu") is not None

    @pytest.mark.parametrize(
        ("log", "began"),
        [
            ('{"plan": {"plain_start": true}}', True),
            ('{"plan": {"plain_start": false}}', False),
            ('{"plan": {"plain_start": "no"}}', None),
            ('{"plan": 1}', None),
            ("[]", None),
            ("{", None),
            (None, None),
        ],
    )
    def test_how_a_start_began_is_what_its_log_says(self, tmp_path, log, began):
        folder = shutil.copytree(EMBEDDED, tmp_path / "m")
        (folder / "training.json").unlink()
        if log is not None:
            (folder / "training.json").write_text(log)
        found = load_start("dense", folder, device="cpu")
        assert found is not None
        assert found.plain is began
