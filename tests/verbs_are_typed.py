"""Calls that mypy checks as a user's editor does: it runs on this file, and each wrong call must be an error."""

from pathlib import Path

import torch

import sparc


def calls_that_are_right(run: Path) -> sparc.Report:
    """Options by keyword or as one configuration, with the types that users write."""
    sparc.extract(dataset="image-folder", data_root="photos", stream=["dinov2", "clip-img"], tokens="patch")
    config = sparc.RunConfig(stream=["dinov2", {"name": "timm", "model": "m"}], n_latents=64, lambda_=0.5, store=run)
    trained = sparc.train(config)
    sparc.train(stream="dinov2", n_latents=64, k=4, aux_weight=0.0, out=run)
    sparc.train(resume=trained.path, device="cpu")
    rows = torch.ones(8, 3)
    sparc.train(features={"a": rows, "b": rows.numpy()}, ids=range(8), labels=["cat"] * 8, taxonomy={"cat": []})
    sparc.train(features="imported", track="tensorboard")
    assert sparc.plan(config, k=4).train.disk > 0
    sparc.ablate(config, grid={"k": [4, 8]}, seeds=2)
    sparc.evaluate(run, concepts="purity", localization=True)
    sparc.explore(str(run), latent=3, sheet=True, out="latent.png")
    sparc.explore(run, text="a cat")
    sparc.evaluate(run, dataset="coco", data_root="coco", stream=["a=dinov2", "b=clip-txt"])
    attached = sparc.attach(run, stream="other=dinov2", out="three", device="cpu")
    sparc.detach(attached.path, "other", out=run)
    sparc.encode(run, ["photo.jpg", "a red bus", run], image=run, top=3)
    sparc.search(run, "a red bus", find="image", by="cross", target_stream="dinov2", index="photos", out=run)
    sparc.localize(run, image=["photo.jpg"], text=["a red bus"], latent=[3, "4,5", [6, 7]])
    return trained.report


def calls_that_are_wrong(run: Path) -> None:
    """A misspelled option, a wrong type, a wrong choice."""
    sparc.train(n_latent=64)  # type: ignore[call-arg]
    sparc.train(n_latents="many")  # type: ignore[arg-type]
    sparc.RunConfig(n_latent=64)  # type: ignore[call-arg]
    sparc.RunConfig(n_latents="many")  # type: ignore[arg-type]
    sparc.train(selection="both")  # type: ignore[arg-type]
    sparc.train(track="paper")  # type: ignore[arg-type]
    sparc.train(features={"a": [[1.0]]}, label=[1])  # type: ignore[call-arg]
    sparc.attach(run, epochs=3)  # type: ignore[call-arg]
    sparc.evaluate(run, concepts="taste")  # type: ignore[arg-type]
    sparc.encode(run, top="three")  # type: ignore[arg-type]
    sparc.search(run, "a red bus", by="taste")  # type: ignore[arg-type]
    sparc.explore(run, latent="three")  # type: ignore[arg-type]
