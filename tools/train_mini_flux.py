#!/usr/bin/env python3
"""Trains models/mini-flux (a miniature of FLUX.1-dev) and models/mini-flux-scorer from Debian's emoji font.

  python tools/train_mini_flux.py --prepare              glyphs and tokenizers only (needs the Debian packages
                                                         fonts-noto-color-emoji and unicode-cldr-core)
  python tools/train_mini_flux.py --teach-binding &      stage 2b, beside the others
  python tools/train_mini_flux.py --fill-pool RANK &     one for every process of the next line, on its GPU
  torchrun --nproc-per-node 2 tools/train_mini_flux.py   everything, about 13 minutes on two H100
  python tools/train_mini_flux.py --smoke                a few steps of every stage, also without a GPU

Stages: 1 autoencoder, 2 scorer and pool of latents, 2b the text encoders learn who stands where (`binding.py`),
3 flow matching with these, frozen, 4 guidance distillation, 5 evaluation through the exported folder. Each
leaves a checkpoint in --work and is skipped when that is there.

Stage 3 takes 55 to 58 ms a step of 256 scenes on each of two H100. Untried: one CUDA graph of the step. No
tensor of it changes its shape and nothing waits for the device, so torch.cuda.graph can record from
draw_batch to the averaged weights, once AdamW is `capturable` and the rate is a tensor on the device.
mode="reduce-overhead" would record less: a graph for each of the nine blocks and directions, and outside
remain 200 additions into the flat gradients, Muon and AdamW.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import torch

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from mini_flux import autoencoder, binding, denoiser, evaluate, export, models, pool, scenes, scorer, vocabulary
from mini_flux.distributed import Team, join_team

SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
TEST_SEED = 990_001  # of the captions that the README's numbers are about; never used in training


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="extract glyphs, train tokenizers, stop")
    parser.add_argument("--cache", type=Path, default=Path(".cache/mini-flux"), help="glyphs and tokenizers")
    parser.add_argument("--work", type=Path, default=Path("out/mini-flux-work"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("out/models"), help="exported folders and measurements")
    parser.add_argument("--autoencoder-seconds", type=float, default=150)
    parser.add_argument("--scorer-seconds", type=float, default=55)
    parser.add_argument("--pool-seconds", type=float, default=60, help="at most, for filling a pool")
    parser.add_argument("--binding-seconds", type=float, default=60, help="text encoders alone, on who stands where")
    parser.add_argument("--binding-batch", type=int, default=256, help="captions a step of stage 2b")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="continue from an exported pipeline, without 2b")
    parser.add_argument("--slope", type=float, help="of the scale over the guidance value, instead of choosing one")
    parser.add_argument("--scales", type=float, nargs="+", default=list(SCALES), help="of true CFG, to choose from")
    parser.add_argument("--brief", action="store_true", help="evaluate the default settings only")
    parser.add_argument("--teach-binding", action="store_true", help="only train the text encoders, and stop")
    parser.add_argument("--fill-pool", type=int, metavar="RANK", help="only fill the pool of that process, and stop")
    parser.add_argument("--denoiser-seconds", type=float, default=370)
    parser.add_argument("--guidance-seconds", type=float, default=75)
    parser.add_argument("--batch", type=int, default=256, help="scenes a step and GPU, stages 3 and 4")
    parser.add_argument("--autoencoder-batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate of stage 3")
    parser.add_argument("--pool", type=int, default=500_000, help="most scenes in the pool")
    parser.add_argument("--test", type=int, default=1000, help="captions of the final evaluation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    options.most_steps = 3 if options.smoke else None
    if options.smoke:
        options.batch, options.autoencoder_batch, options.pool, options.test = 4, 2, 16, 4
        options.scorer_seconds, options.binding_batch = 3, 8
    return options


def prepare(cache: Path) -> None:
    if not (cache / "glyphs.npz").exists():
        scenes.extract_glyphs(cache / "glyphs.npz")
    if not (cache / "tokenizer").exists():
        vocabulary.train_clip_bpe(cache / "tokenizer")
    if not (cache / "tokenizer_2").exists():
        vocabulary.train_t5_pieces(cache / "tokenizer_2")


def save(state: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


class Run:
    """One training run; the methods are its stages, in order."""

    def __init__(self, options: argparse.Namespace, team: Team) -> None:
        self.options, self.team = options, team
        self.smoke = options.smoke
        self.metrics: dict[str, object] = {}
        self.started = time.monotonic()
        self.glyphs = scenes.load_glyphs(options.cache / "glyphs.npz", team.device)
        self.renderer = scenes.Renderer(self.glyphs, options.seed + team.rank)
        self.tokenizers = vocabulary.Tokenizers(options.cache)
        torch.manual_seed(options.seed)
        self.vae = models.build_autoencoder().to(team.device, memory_format=torch.channels_last)
        transformer = models.build_transformer().to(team.device)
        models.initialise_transformer(transformer)
        t5_size = -(-len(self.tokenizers.t5) // 8) * 8  # a whole number of 16-byte rows of bf16
        text = models.TextEncoders(len(self.tokenizers.clip), t5_size).to(team.device)
        if options.resume:
            export.load_denoiser(options.resume, transformer, text)
        clip, t5 = self.tokenizers([""])
        empty = denoiser.EmptyCaption(
            clip[0, : pool.CLIP_TRAINED_LENGTH].int().to(team.device), t5[0].int().to(team.device)
        )
        self.model = denoiser.Denoiser(transformer, text, empty)
        team.synchronise([self.vae, transformer, text])
        self.scorer = scorer.Scorer().to(team.device)
        self.reference: evaluate.Moments = (torch.zeros(0), torch.zeros(0))
        self.pool: pool.Pool | None = None

    def checkpoint(self, name: str) -> Path:
        return self.options.work / f"{name}.pt"

    def load(self, name: str) -> dict[str, object] | None:
        path = self.checkpoint(name)
        if not path.exists():
            return None
        self.team.log(f"{name}: taken from {path.name}")
        return torch.load(path, map_location=self.team.device, weights_only=True)

    def mark(self, stage: str) -> None:
        self.team.log(f"== {stage} done at {time.monotonic() - self.started:.0f} s")

    def rehearse(self) -> None:
        """Compiles now, so that a stage's seconds are all training and a mistake shows at once."""
        if self.options.compile:
            self.model.compile()
            autoencoder.training_loss = torch.compile(autoencoder.training_loss, dynamic=False)
        denoiser.rehearse(self.model, self.team, self.options.batch)
        generator = torch.Generator().manual_seed(0)
        if not self.checkpoint("autoencoder").exists():
            batch = self.options.autoencoder_batch
            images = self.renderer(scenes.draw_scenes(batch, generator)).to(memory_format=torch.channels_last)
            autoencoder.training_loss(self.vae, images).backward()
            self.vae.zero_grad()
        self.mark("rehearsal")

    def train_autoencoder(self) -> None:
        state = self.load("autoencoder")
        if state is None:
            o = self.options
            autoencoder.train_autoencoder(
                self.vae, self.renderer, self.team, o.autoencoder_seconds, o.autoencoder_batch, o.seed, o.most_steps
            )
            export.round_to_bf16(self.vae)
            count, batch = (4, 2) if self.smoke else (2048, 128)
            measured = autoencoder.measure(self.vae, self.renderer, count, batch)
            # One process's measurement, or the processes would disagree in the last digits.
            values = torch.tensor(list(measured.values()), device=self.team.device)
            measured = dict(zip(measured, self.team.broadcast(values).tolist(), strict=True))
            state = {"weights": self.vae.state_dict(), "measured": measured}
            if self.team.leads:
                save(state, self.checkpoint("autoencoder"))
        self.vae.load_state_dict(state["weights"])
        self.vae.eval().requires_grad_(False)
        measured = state["measured"]
        autoencoder.set_normalisation(self.vae, measured["mean"], measured["std"])
        self.metrics["autoencoder"] = measured
        self.team.log(f"autoencoder: {measured}")
        self.mark("autoencoder")

    def _train_scorer(self) -> None:
        if self.checkpoint("scorer").exists():
            return

        def reconstruct(images: torch.Tensor) -> torch.Tensor:
            latents = autoencoder.encode(self.vae, images)
            return autoencoder.decode(self.vae, latents + models.POSTERIOR_STD * torch.randn_like(latents))

        o = self.options
        batch = 8 if self.smoke else 256
        trained = scorer.train_scorer(self.renderer, reconstruct, o.scorer_seconds, batch, o.seed + 7)
        export.round_to_bf16(trained)
        count = 16 if self.smoke else 16_384
        described = scenes.draw_scenes(count, torch.Generator().manual_seed(31))
        parts = [described.slice(i, i + 256) for i in range(0, count, 256)]
        features, right = [], []
        for part in parts:
            feature, found = scorer.read(trained, self.renderer(part))
            asked = scenes.labels(part, feature.device)
            features.append(feature)
            right.append(torch.stack([found[name] == asked[name] for name in asked]).all(0))
        mean, covariance = scorer.moments(torch.cat(features))
        accuracy = float(torch.cat(right).float().mean())
        rebuilt = [evaluate.score(trained, reconstruct(self.renderer(p)), p, (mean, covariance)) for p in parts[:4]]
        measured = {
            "accuracy on renders": accuracy,
            "accuracy on reconstructions": sum(r["accuracy"] for r in rebuilt) / len(rebuilt),
            "reference count": count,
        }
        print(f"scorer: {measured}", flush=True)
        state = {"weights": trained.state_dict(), "mean": mean, "covariance": covariance, "measured": measured}
        save(state, self.checkpoint("scorer"))

    def teach_binding(self) -> None:
        """In a process of its own, like `fill_pool`."""
        o, path = self.options, self.checkpoint("binding")
        if path.exists():
            return
        text, readers = self.model.text, binding.Readers().to(self.team.device)
        measured = binding.teach_binding(
            text, readers, self.tokenizers, o.binding_seconds, o.binding_batch, 2e-3, o.seed + 5, o.most_steps
        )
        print(f"binding: {measured}", flush=True)
        save({"text": text.state_dict(), "readers": readers.state_dict(), "measured": measured}, path)

    def fill_pool(self, rank: int) -> None:
        """In a process of its own, which shares the device with a trainer that compiles meanwhile."""
        path = self.checkpoint(f"pool-{rank}")
        if path.exists():
            return
        o = self.options
        processes = 2 if self.smoke else min(10, max(2, (os.cpu_count() or 4) // 3))
        with pool.start_workers(processes) as workers:
            warm = [workers.submit(pool._describe, o.cache.resolve(), 0, 8) for _ in range(processes)]
            while not self.checkpoint("autoencoder").exists():
                time.sleep(0.2)
            [future.result() for future in warm]
            self.train_autoencoder()  # takes the finished one
            seconds = 1e9 if self.smoke else o.pool_seconds
            filled = pool.build_pool(
                self.vae, self.renderer, o.cache.resolve(), workers, seconds, o.pool, o.seed + 1 + rank
            )
            pool.save_pool(filled, path)
            workers.shutdown(cancel_futures=True)

    def train_scorer(self) -> None:
        if self.team.rank == self.team.size - 1:
            self._train_scorer()
        if not self.checkpoint("guidance").exists():
            self.pool = pool.wait_for_pool(self.checkpoint(f"pool-{self.team.rank}"), self.team.device)
            print(f"rank {self.team.rank}: {len(self.pool)} scenes", flush=True)
            if not self.options.resume:
                pool.wait_for(self.checkpoint("binding"))
                state = self.load("binding")
                assert state is not None
                self.model.text.load_state_dict(state["text"])
                self.metrics["binding"] = state["measured"]
        self.team.wait()  # one process alone trains the scorer
        state = self.load("scorer")
        assert state is not None
        self.scorer.load_state_dict(state["weights"])
        self.scorer.eval()
        self.reference = (state["mean"], state["covariance"])
        self.metrics["scorer"] = state["measured"]
        if self.team.leads:
            folder = self.options.out / "mini-flux-scorer"
            export.export_scorer(folder, self.scorer, self.reference, state["measured"]["reference count"])
        self.mark("scorer")

    def validate(self) -> None:
        """Draws some captions as training stands: a run that does not learn is seen within minutes."""
        plain = denoiser.make_teacher(self.model, compiled=False)
        count, steps = (2, 2) if self.smoke else (128, 10)
        described = scenes.draw_scenes(count, torch.Generator().manual_seed(4243))
        images = evaluate.sample_with_cfg(plain, self.vae, self.tokenizers, described, 2.0, 4243, steps)
        found = evaluate.score(self.scorer, images, described, self.reference)
        self.team.log("as it stands: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))

    def train_denoiser(self) -> None:
        state = self.load("denoiser")
        if state is None:
            assert self.pool is not None
            o = self.options
            settings = denoiser.DenoiserOptions(o.denoiser_seconds, o.batch, o.rate, o.seed, o.most_steps)
            if self.smoke:
                settings = dataclasses.replace(settings, validate_every=2)
            steps = denoiser.train_denoiser(self.model, self.pool, self.team, settings, self.validate)
            state = {
                "transformer": self.model.transformer.state_dict(),
                "text": self.model.text.state_dict(),  # as stage 2b left them
                "steps": steps,
            }
            if self.team.leads:
                save(state, self.checkpoint("denoiser"))
        self.model.transformer.load_state_dict(state["transformer"])
        self.model.text.load_state_dict(state["text"])
        self.metrics["denoiser steps"] = state["steps"]
        self.mark("denoiser")

    def choose_slope(self) -> tuple[float, dict[float, dict[str, float]]]:
        """So that the pipeline's default guidance value means the best scale of true CFG."""
        # The uncompiled copy: its batch sizes would each cost a compilation.
        plain = denoiser.make_teacher(self.model, compiled=False)
        count, steps = (2, 2) if self.smoke else (250, evaluate.STEPS)
        scales = tuple(self.options.scales)
        chosen, rows = evaluate.best_scale(
            plain, self.vae, self.tokenizers, self.scorer, self.reference, self.team, scales, count, steps
        )
        return (chosen - 1) / (denoiser.DEFAULT_GUIDANCE - 1), rows

    def distil_guidance(self) -> None:
        state = self.load("guidance")
        if state is None:
            assert self.pool is not None
            o = self.options
            slope, rows = (o.slope, {}) if o.slope is not None else self.choose_slope()
            self.team.log(f"guidance g will mean scale 1 + {slope:.3f} (g - 1)")
            teacher = denoiser.make_teacher(self.model, o.compile)
            settings = denoiser.DenoiserOptions(o.guidance_seconds, o.batch, 5e-4, o.seed, o.most_steps)
            done = denoiser.distil_guidance(self.model, teacher, self.pool, self.team, slope, settings)
            state = {
                "transformer": self.model.transformer.state_dict(),
                "measured": {"steps": done, "slope": slope, "true CFG": {str(s): r for s, r in rows.items()}},
            }
            if self.team.leads:
                save(state, self.checkpoint("guidance"))
        self.model.transformer.load_state_dict(state["transformer"])
        self.metrics["guidance"] = state["measured"]
        if self.team.leads:
            plain_transformer = denoiser.copy_transformer(self.model.transformer, torch.bfloat16)
            folder = self.options.out / "mini-flux"
            export.export_pipeline(folder, plain_transformer, self.model.text, self.vae, self.options.cache)
        self.team.wait()
        self.mark("guidance")

    def evaluate(self) -> None:
        """Every process takes its share of the settings; the leader gathers and writes."""
        pipeline = evaluate.FolderPipeline(self.options.out / "mini-flux", self.team.device)
        count = self.options.test
        described = scenes.draw_scenes(count, torch.Generator().manual_seed(TEST_SEED))
        captions = evaluate.main_captions(described)
        # (guidance, steps, true CFG scale), the default first
        settings = [(3.5, 20, 1.0), (1.0, 20, 1.0), (2.0, 20, 1.0), (5.0, 20, 1.0), (3.5, 10, 1.0), (3.5, 28, 1.0)]
        settings += [(1.0, 20, 2.0)]
        if self.options.brief:
            settings = [settings[0], settings[1]]
        if self.smoke:
            settings = [(3.5, 2, 1.0), (1.0, 2, 2.0)]
        results: dict[str, dict[str, float]] = {}
        for i in range(self.team.rank, len(settings), self.team.size):
            guidance, steps, true_cfg = settings[i]
            images = pipeline(captions, TEST_SEED, steps, guidance, true_cfg)
            name = f"guidance {guidance}, {steps} steps" + (f", true CFG {true_cfg}" if true_cfg > 1 else "")
            results[name] = evaluate.score(self.scorer, images, described, self.reference)
            print(f"{name}: {results[name]}", flush=True)
            if i == 0:
                evaluate.save_grid(images[:40], self.options.out / "grid.png", min(8, count))
        if self.team.size > 1:
            gathered: list[dict[str, dict[str, float]]] = [{} for _ in range(self.team.size)]
            torch.distributed.all_gather_object(gathered, results)
            results = {name: row for part in gathered for name, row in part.items()}
        self.metrics["pipeline"] = results
        self.metrics["captions"] = captions[:40]
        if self.team.leads:
            (self.options.out / "metrics.json").write_text(json.dumps(self.metrics, indent=2) + "\n")
        self.mark("evaluation")


def main() -> None:
    options = parse_arguments()
    if options.prepare or not (options.cache / "tokenizer_2").exists():
        prepare(options.cache)
        if options.prepare:
            return
    team = join_team()
    # cuDNN's attention crashes in the backward pass at these shapes (torch 2.11, H100).
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    run = Run(options, team)
    if options.teach_binding:
        run.teach_binding()
        return
    if options.fill_pool is not None:
        run.fill_pool(options.fill_pool)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not run.checkpoint("guidance").exists():
        run.rehearse()
    run.train_autoencoder()
    run.train_scorer()
    run.train_denoiser()
    run.distil_guidance()
    run.evaluate()
    team.close()


if __name__ == "__main__":
    main()
