"""The service mends and fills, as the commands do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from command_line import Run, make_photo
from PIL import Image, ImageSequence
from serving_bench import Serve, ended, sent, service

from resshift_cli.restoration.inpainter import Inpainter
from resshift_cli.serving.stdio import Pipes


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """A mask for `photo`, whose upper rows are to be filled."""
    light = np.zeros((12, 20), np.uint8)
    light[:4] = 255
    Image.fromarray(light).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def both(photo: Path, mask: Path) -> dict[str, tuple[str, bytes]]:
    return {**sent(photo), "mask": (mask.name, mask.read_bytes())}


def test_a_mended_photo_is_the_one_that_the_command_writes(
    client: httpx2.Client, resshift: Run, photo: Path, mends: Path
) -> None:
    options = ("--strength", 0.5, "--steps", 1, "--weights", mends, "--device", "cpu")
    assert resshift("restore", photo, *options, "--strip-metadata").code == 0
    data = {"model": "mends", "strength": "0.5", "steps": "1", "strip_metadata": "on"}
    answer = client.post("/api/restore", files=sent(photo), data=data)
    assert answer.content == photo.with_stem("photo_restored").read_bytes()
    assert "photo_restored.png" in answer.headers["content-disposition"]


def test_a_hole_is_filled_by_a_mask_that_is_sent_named_or_told(
    client: httpx2.Client, resshift: Run, photo: Path, mask: Path, fills: Path
) -> None:
    options = ("--steps", 1, "--weights", fills, "--device", "cpu", "--strip-metadata")
    assert resshift("inpaint", photo, "--mask", mask, *options).code == 0
    data = {"model": "fills", "steps": "1", "strip_metadata": "on"}
    sent_along = client.post("/api/inpaint", files=both(photo, mask), data=data)
    assert sent_along.content == photo.with_stem("photo_filled").read_bytes()
    kept = [client.post("/api/photos", files=sent(path)).json()["id"] for path in (photo, mask)]
    by_id = client.post("/api/inpaint", json={"photo": kept[0], "mask": kept[1], **data})
    assert by_id.content == sent_along.content
    told = client.post("/api/inpaint", files=sent(photo), data={**data, "mask": "alpha"})
    assert told.status_code == 400 and "photo.png has no alpha" in told.json()["detail"]


@pytest.mark.parametrize(
    ("size", "light", "said"),
    [
        (None, 0, "Nothing says which pixels are to be filled."),
        ((5, 5), 255, "The mask mask.png is 5x5, and photo.png is 20x12."),
        ((20, 12), 0, "leaves nothing of the photo to be filled"),
        ((20, 12), 255, "leaves nothing of the photo known"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_at_once(
    client: httpx2.Client,
    photo: Path,
    mask: Path,
    size: tuple[int, int] | None,
    light: int,
    said: str,
) -> None:
    Image.new("L", size or (1, 1), light).save(mask)
    files = sent(photo) if size is None else both(photo, mask)
    for route, data in (("inpaint", {}), ("estimate", {"task": "inpaint"})):
        answer = client.post(f"/api/{route}", files=files, data={"model": "fills", **data})
        assert answer.status_code == 400 and said in answer.json()["detail"]


def test_tasks_have_options_and_models_of_their_own(client: httpx2.Client, photo: Path) -> None:
    models = client.get("/api/models").json()
    assert models[0] | {"name": "tiny-x4", "task": "upscale", "default": True} == models[0]
    tasks = {model["name"]: model["task"] for model in models}
    assert (tasks["fills"], tasks["mends"]) == ("inpaint", "restore")
    schemas = client.get("/api/openapi.json").json()["components"]["schemas"]
    known = {task: schemas[f"{task}-options"]["properties"] for task in ("restore", "inpaint")}
    assert "strength" in known["restore"] and "scale" not in known["restore"]
    assert {"grow", "feather", "invert"} < known["inpaint"].keys()
    for data in ({"scale": "2"}, {"model": "tiny-x4"}, {"strength": "2"}):
        assert client.post("/api/restore", files=sent(photo), data=data).status_code == 400
    other = client.post("/api/estimate", files=sent(photo), data={"task": "paint"})
    assert other.json()["hint"] == "Choose one of upscale, restore, inpaint, face."


def test_a_preview_shows_a_mended_crop_beside_what_it_was(
    client: httpx2.Client, tmp_path: Path
) -> None:
    photo = make_photo(tmp_path / "photo.png", 70, 50)
    data = {"task": "restore", "model": "mends", "size": "32", "steps": "1"}
    job = ended(client, client.post("/api/preview", files=sent(photo), data=data))
    assert (job["state"], job["result"]["scale"]) == ("done", 1.0)
    assert "as it is" in client.get(f"/api/jobs/{job['id']}/view").text


def test_a_preview_is_around_the_hole_with_as_much_of_the_photo_as_a_tile_holds(
    client: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = make_photo(tmp_path / "photo.png", 300, 200)
    shown = list[tuple[int, int]]()
    stream = Inpainter.stream

    def noted(self: Inpainter, rows: Any, shape: tuple[int, int, int], *others: Any) -> Any:
        shown.append(shape[:2])
        return stream(self, rows, shape, *others)

    monkeypatch.setattr(Inpainter, "stream", noted)
    data = {"task": "inpaint", "model": "fills", "size": "32", "steps": "1"}
    asked = {**data, "boxes": "200,100,10,20", "tile": "64"}
    job = ended(client, client.post("/api/preview", files=sent(photo), data=asked))
    assert job["result"]["crop"] == {"left": 189, "top": 94, "width": 32, "height": 32}
    assert shown == [(64, 64)]
    wide = {**data, "boxes": "50,100,100,4"}
    job = ended(client, client.post("/api/preview", files=sent(photo), data=wide))
    assert job["result"]["crop"] == {"left": 50, "top": 52, "width": 100, "height": 100}
    beside = {**asked, "x": "20", "y": "20"}
    job = ended(client, client.post("/api/preview", files=sent(photo), data=beside))
    assert "nothing of this part of the photo to be filled" in job["error"]["detail"]


def test_rectangles_are_filled_as_the_command_fills_them(
    client: httpx2.Client, resshift: Run, photo: Path, fills: Path
) -> None:
    boxes = ["2,2,4,3", "10,5,5,5"]
    options = ("--steps", 1, "--weights", fills, "--device", "cpu", "--strip-metadata")
    told = ("--box", boxes[0], "--box", boxes[1], "--grow", 1)
    assert resshift("inpaint", photo, *told, *options).code == 0
    expected = photo.with_stem("photo_filled").read_bytes()
    data = {"model": "fills", "steps": "1", "strip_metadata": "on", "grow": "1"}
    for given in (boxes, " ".join(boxes)):
        answer = client.post("/api/inpaint", files=sent(photo), data={**data, "boxes": given})
        assert answer.content == expected
    kept = client.post("/api/photos", files=sent(photo)).json()["id"]
    asked = {"photo": kept, **data, "boxes": boxes}
    assert client.post("/api/inpaint", json=asked).content == expected
    for wrong in ({"boxes": [1]}, {"boxes": "1,2,3"}, {"boxes": "90,90,1,1"}, {"grow": 1025}):
        assert client.post("/api/inpaint", json=asked | wrong).status_code == 400
    schemas = client.get("/api/openapi.json").json()["components"]["schemas"]
    assert schemas["inpaint-options"]["properties"]["boxes"]["items"] == {"type": "string"}


def test_a_folder_is_filled_by_masks_beside_it_and_by_none_behind_a_link(
    serve: Serve, more: Path, folder: Path, tmp_path: Path
) -> None:
    masks = folder / "masks"
    (masks / "sub").mkdir(parents=True)
    for name, size in (("a.png", (12, 9)), ("b.png", (9, 12)), ("c.png", (8, 8))):
        Image.new("L", size).save(tmp_path / name)
        with Image.open(tmp_path / name) as mask:
            mask.putpixel((2, 2), 255)
            mask.save((masks if name != "c.png" else masks / "sub") / name)
    (masks / "b.png").rename(tmp_path / "b.png")
    (masks / "b.png").symlink_to(tmp_path / "b.png")
    client = serve(root=tmp_path, more=more)
    data = {"folder": "in", "task": "inpaint", "masks": "in/masks", "model": "fills", "steps": 1}
    told = ended(client, client.post("/api/batch", json=data))["result"]
    assert (told["output"], told["found"], told["done"], told["failed"]) == ("in_filled", 3, 2, 1)
    assert "b.jpg is behind a link" in told["failures"][0]["message"]
    boxed = data | {"masks": None, "boxes": ["1,1,2,2"]}
    assert ended(client, client.post("/api/batch", json=boxed))["error"]["exit_code"] == 6
    for wrong in ({"masks": "in"}, {"masks": "none"}, {"task": "restore"}, {"masks": None}):
        assert client.post("/api/batch", json=data | wrong).status_code in (400, 404)


def test_pipes_mend_and_fill_too(more: Path, photo: Path, mask: Path) -> None:
    target, out = photo.with_stem("whole"), io.StringIO()
    request = {"do": "inpaint", "input": str(photo), "output": str(target), "model": "fills"}
    lines = [{"id": 1, **request, "mask": str(mask), "steps": 1}, {"id": 2, **request}]
    lines += [{"id": 4, **request, "boxes": ["1,1,2,2"], "output": str(photo.with_stem("boxed"))}]
    mend = {"do": "restore", "input": str(photo), "model": "mends", "strength": 0, "id": 3}
    lines.append({**mend, "output": str(photo.with_stem("mended"))})
    with service(more=more) as made:
        Pipes(made, out).run(map(json.dumps, lines))
    told = {said["id"]: said for said in map(json.loads, out.getvalue().splitlines())}
    assert told[1]["result"]["output"] == str(target) and target.exists()
    assert "Nothing says which pixels" in told[2]["error"]["message"]
    assert told[4]["result"]["boxes"] == ["1,1,2,2"] and photo.with_stem("boxed").exists()
    assert photo.with_stem("mended").exists() and told[3]["result"]["strength"] == 0


def test_heic_16_bits_and_animations_go_through_as_the_command_has_them(
    client: httpx2.Client, tmp_path: Path
) -> None:
    data = {"model": "mends", "steps": "1"}
    deep = np.arange(240, dtype=np.uint16).reshape(12, 20) * 250
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    answer = client.post("/api/restore", files=sent(tmp_path / "deep.tif"), data=data)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.mode[:4], image.format) == ("I;16", "TIFF")
    frames = [Image.new("RGB", (20, 12), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:], duration=40)
    kept = client.post("/api/photos", files=sent(tmp_path / "moving.png")).json()
    assert kept["frames"] == 2
    answer = client.post("/api/restore", json={"photo": kept["id"], **data})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert len(list(ImageSequence.Iterator(image))) == 2
    pytest.importorskip("pillow_heif").from_pillow(frames[0]).save(tmp_path / "photo.heic")
    answer = client.post("/api/restore", files=sent(tmp_path / "photo.heic"), data=data)
    assert "photo_restored.heic" in answer.headers["content-disposition"]
