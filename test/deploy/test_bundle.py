# SPDX-License-Identifier: Apache-2.0
"""A bundle comes back as it was written, and every damaged one is refused with one sentence."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import files_of_at_most
from weakseg_ros.config import from_mapping, to_mapping
from weakseg_ros.deploy import bundle_place
from weakseg_ros.deploy.bundle import Bundle, BundleInfo, ModelFile, write_bundle
from weakseg_ros.deploy.bundle_place import find_bundle
from weakseg_ros.errors import BundleError, ConfigError
from weakseg_ros.files import sha256_of_parts


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change bundle.yaml and, where it still can be read, give it the hash that fits: an error is then not the hash's."""
    path = folder / "bundle.yaml"
    mapping = yaml.safe_load(path.read_text())
    change(mapping)
    try:
        info = from_mapping(BundleInfo, mapping, "test")
        mapping["content_hash"] = info.hashed()
    except (ConfigError, AttributeError):
        pass
    path.write_text(yaml.safe_dump(mapping, sort_keys=False))


def rename_model(mapping: dict[str, Any], name: str) -> None:
    mapping["files"][name] = mapping["files"].pop("model.onnx")


def test_comes_back_as_written(tiny_bundle: Bundle) -> None:
    again = Bundle.load(tiny_bundle.folder)
    assert again.info == tiny_bundle.info
    assert (again.name, again.num_classes, again.labels.names[1]) == ("tiny", 5, "class 1")
    assert again.content_hash == again.info.hashed()
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "MODEL_CARD.md",
        "bundle.yaml",
        "model.onnx",
        "weights.safetensors",
    ]
    assert from_mapping(BundleInfo, to_mapping(again.info), "x") == again.info


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown version": (lambda m: m.update(version=7), "format 7"),
    "no version": (lambda m: m.pop("version"), "format None"),
    "unknown key": (lambda m: m.update(colour="red"), "unknown key"),
    "missing key": (lambda m: m.pop("input"), "input"),
    "duplicate ids": (lambda m: m["labels"]["classes"][2].update(id=1), "id"),
    "colour of two parts": (lambda m: m["labels"]["classes"][2].update(color=[1, 2]), "color"),
    "colour out of range": (lambda m: m["labels"]["classes"][2].update(color=[1, 2, 300]), "color"),
    "unknown channel": (lambda m: m["input"]["channels"].__setitem__(4, "intensty"), "did you mean 'intensity'"),
    "channel twice": (lambda m: m["input"]["channels"].__setitem__(4, "z"), "channels"),
    "too few means": (lambda m: m["input"]["mean"].pop(), "mean"),
    "NaN in means": (lambda m: m["input"]["mean"].__setitem__(0, float("nan")), "mean"),
    "deviation of zero": (lambda m: m["input"]["std"].__setitem__(0, 0.0), "std"),
    "fov upside down": (lambda m: m["input"]["geometry"].update(fov_up_deg=-30.0), "fov_up_deg"),
    "temperature zero": (lambda m: m.update(temperature=0.0), "temperature"),
    "no files": (lambda m: m.update(files={}), "no model file"),
    "path to the parent": (lambda m: rename_model(m, "../model.onnx"), "outside"),
    "absolute path": (lambda m: rename_model(m, "/etc/passwd"), "outside"),
    "path is a folder": (lambda m: rename_model(m, ".."), "outside"),
    "file not there": (lambda m: rename_model(m, "other.onnx"), "cannot be read"),
    "wrong hash": (lambda m: m["files"]["model.onnx"].update(sha256="0" * 64), "hash"),
    "classes are text": (lambda m: m.update(labels="semantickitti"), "labels"),
}


BOMB = "&a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"  a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
HOSTILE = {
    "aliases that grow": (f"metrics:\n  a0: {BOMB}", "alias"),
    "an alias of itself": ("metrics: &m\n  self: *m\n", "alias"),
    "nested without end": (f"metrics: {'[' * 100_000}", "not valid YAML"),
    "nested deeply": (f"metrics: {'{a: ' * 900}1{'}' * 900}", "cannot be read|content_hash"),
    "a number of 5000 digits": (f"version: {'9' * 5000}", "not valid YAML"),
    "a hexadecimal number without end": (f"metrics: 0x{'f' * 100_000}", "a number of 100002 characters"),
    "a number to base 60": (f"metrics: {'1:' * 100_000}1", "a number of 200001 characters"),
    "a tag that does not suit": ("metrics: !!bool x", "not valid YAML"),
    "an impossible day": ("metrics: 2001-99-99", "not valid YAML"),
    "an empty number": ("metrics: !!int ''", "not valid YAML"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_a_hostile_yaml(copied_bundle: Path, name: str) -> None:
    path, (line, text) = copied_bundle / "bundle.yaml", HOSTILE[name]
    kept = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != line.partition(":")[0]}
    path.write_text(f"{yaml.safe_dump(kept)}{line}\n")
    with pytest.raises(BundleError, match=text):
        Bundle.load(copied_bundle)


@pytest.mark.parametrize("file", ["bundle.yaml", "model.onnx"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_reads_nothing_that_may_never_end(copied_bundle: Path, tmp_path: Path, file: str, kind: str) -> None:
    (copied_bundle / file).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / "pipe")
    (copied_bundle / file).symlink_to(tmp_path / "pipe" if kind == "pipe" else "/dev/zero")
    with pytest.raises(BundleError, match=r"not a regular file|holds no bundle\.yaml"):
        Bundle.load(copied_bundle)


def test_a_file_name_with_a_null_byte_is_refused(copied_bundle: Path) -> None:
    rewrite(copied_bundle, lambda m: rename_model(m, "model\0.onnx"))
    with pytest.raises(BundleError, match="a null character, which no name may contain"):
        Bundle.load(copied_bundle)


@pytest.mark.parametrize("damage", DAMAGES)
def test_refuses_damaged_yaml(copied_bundle: Path, damage: str) -> None:
    change, expected = DAMAGES[damage]
    rewrite(copied_bundle, change)
    with pytest.raises(BundleError, match="(?s)" + expected) as error:
        Bundle.load(copied_bundle)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2", b"- a\n- b\n", b"!!python/object/apply:os.system ['true']"])
def test_refuses_a_yaml_that_is_none(copied_bundle: Path, content: bytes) -> None:
    (copied_bundle / "bundle.yaml").write_bytes(content)
    with pytest.raises(BundleError):
        Bundle.load(copied_bundle)


def test_refuses_damaged_model_files(copied_bundle: Path) -> None:
    model = copied_bundle / "model.onnx"
    content = model.read_bytes()
    for damaged in (content[: len(content) // 2], content + b"x", bytes([content[0] ^ 1]) + content[1:]):
        model.write_bytes(damaged)
        with pytest.raises(BundleError, match="truncated or modified"):
            Bundle.load(copied_bundle)
    model.write_bytes(b"")
    with pytest.raises(BundleError, match="is empty"):
        Bundle.load(copied_bundle)
    model.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.load(copied_bundle)


def test_refuses_an_edited_yaml(copied_bundle: Path) -> None:
    path = copied_bundle / "bundle.yaml"
    path.write_text(path.read_text().replace("temperature: 1.4", "temperature: 1.5"))
    with pytest.raises(BundleError, match="content_hash"):
        Bundle.load(copied_bundle)


def test_reads_a_file_replaced_later_as_an_error(copied_bundle: Path) -> None:
    bundle = Bundle.load(copied_bundle)
    (copied_bundle / "model.onnx").write_bytes(b"another model")
    with pytest.raises(BundleError, match="modified"):
        bundle.read("model.onnx")


def test_a_link_is_followed_only_to_the_right_content(copied_bundle: Path, tmp_path: Path) -> None:
    model = copied_bundle / "model.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    model.symlink_to(tmp_path / "elsewhere.onnx")
    Bundle.load(copied_bundle)
    model.unlink()
    model.symlink_to("/etc/hostname")
    with pytest.raises(BundleError):
        Bundle.load(copied_bundle)


def test_found_by_path_and_by_name(copied_bundle: Path, monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path) -> None:
    assert find_bundle(copied_bundle) == copied_bundle
    monkeypatch.chdir(tmp_path)
    assert find_bundle("tiny") == copied_bundle
    monkeypatch.setattr(bundle_place, "share_folder", lambda: tmp_path)
    monkeypatch.chdir("/")
    (tmp_path / "models").mkdir()
    copied_bundle.rename(tmp_path / "models" / "tiny")
    assert find_bundle("tiny") == find_bundle("models/tiny") == tmp_path / "models" / "tiny"
    with pytest.raises(BundleError, match="~nobody_here/models: nobody here has such a home folder; write the whole path"):
        find_bundle("~nobody_here/models")
    with pytest.raises(BundleError, match="there is no such folder"):
        find_bundle("models/absent")
    with pytest.raises(BundleError, match=r"holds no bundle\.yaml"):
        find_bundle(tmp_path)


def test_write_replaces_a_bundle_whole(tiny_bundle: Bundle, copied_bundle: Path) -> None:
    (copied_bundle / "left over.txt").write_text("from the old one")
    info = dataclasses.replace(tiny_bundle.info, name="second")
    written = write_bundle(copied_bundle, info, {"a.bin": ("onnx-int8", b"1234")}, "card")
    assert written.name == "second"
    assert written.info.files == {"a.bin": ModelFile(hashlib.sha256(b"1234").hexdigest(), "onnx-int8")}
    assert written.content_hash != tiny_bundle.content_hash
    assert sorted(os.listdir(copied_bundle)) == ["MODEL_CARD.md", "a.bin", "bundle.yaml"]
    assert os.listdir(copied_bundle.parent) == ["tiny"]


def test_write_leaves_foreign_folders_alone(tiny_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(tmp_path, tiny_bundle.info, {"a.bin": ("onnx", b"1")}, "card")
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_write_that_fails_leaves_the_old_bundle(tiny_bundle: Bundle, copied_bundle: Path) -> None:
    with files_of_at_most(4096), pytest.raises(BundleError, match="cannot be written"):
        write_bundle(copied_bundle, tiny_bundle.info, {"a.bin": ("onnx", bytes(100_000))}, "card")
    assert Bundle.load(copied_bundle).info == tiny_bundle.info
    assert os.listdir(copied_bundle.parent) == ["tiny"]


def test_an_unwritable_place_is_one_sentence(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(Path("/proc/models/x"), tiny_bundle.info, {"a.bin": ("onnx", b"1")}, "card")


def as_format_1(mapping: dict[str, Any], *outputs: str) -> dict[str, Any]:
    """bundle.yaml as the first version wrote it."""
    told = mapping.pop("input")
    told["spec"] = told.pop("geometry")
    old = {key: value for key, value in mapping.items() if key not in ("inputs", "outputs", "heads")}
    old |= {key: told[key] for key in ("spec", "channels", "mean", "std", "intensity")}
    old |= {"version": 1, "content_hash": "", "outputs": list(outputs), "method": {"name": "", "options": {}}}
    hashed = {key: value for key, value in old.items() if outputs or key not in ("outputs", "method")}
    old["content_hash"] = sha256_of_parts([json.dumps(hashed, sort_keys=True)])
    return old


@pytest.mark.parametrize(("outputs", "heads"), [((), ()), (("centre", "offset", "novelty"), ("novelty", "centres"))])
def test_bundles_of_format_1_still_load(
    tiny_bundle: Bundle, copied_bundle: Path, outputs: tuple[str, ...], heads: tuple[str, ...]
) -> None:
    path = copied_bundle / "bundle.yaml"
    old = as_format_1(to_mapping(tiny_bundle.info), *outputs)
    path.write_text(yaml.safe_dump(old))
    loaded = Bundle.load(copied_bundle)
    assert loaded.info.input == tiny_bundle.info.input
    assert loaded.info.head_names == heads
    assert loaded.content_hash == old["content_hash"]
    path.write_text(yaml.safe_dump({**old, "temperature": 3.0}))
    with pytest.raises(BundleError, match="was edited"):
        Bundle.load(copied_bundle)


def test_entries_that_a_later_version_adds_do_not_make_a_bundle_edited(copied_bundle: Path) -> None:
    path = copied_bundle / "bundle.yaml"
    mapping = yaml.safe_load(path.read_text())
    for table in (mapping["inputs"], mapping["outputs"]):
        for row in table.values():
            del row["below"], row["lowest"]
    mapping["content_hash"] = sha256_of_parts([json.dumps({**mapping, "content_hash": ""}, sort_keys=True)])
    path.write_text(yaml.safe_dump(mapping))
    assert Bundle.load(copied_bundle).content_hash == mapping["content_hash"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heads": [{"name": "novelti"}]}, "did you mean 'novelty'"),
        ({"heads": [{"name": "centres"}, {"name": "centres"}]}, "names a head twice"),
        ({"heads": [{"name": "centres"}], "outputs": None}, "'centre' is missing"),
    ],
)
def test_heads_and_outputs_fit_together(tiny_bundle: Bundle, changes: dict[str, Any], expected: str) -> None:
    mapping = to_mapping(tiny_bundle.info)
    mapping.update({key: value for key, value in changes.items() if value is not None})
    if "outputs" not in changes:
        mapping.pop("outputs")
    with pytest.raises(ConfigError, match=expected):
        from_mapping(BundleInfo, mapping, "test")


def test_a_pointer_that_leads_nowhere_is_answered_with_the_command(tmp_path: Path) -> None:
    pointer = tmp_path / "models" / "current"
    with pytest.raises(BundleError, match=r"no bundle is deployed here; deploy one, e\.g\. 'weakseg promote models/street'"):
        find_bundle(pointer)
    pointer.parent.mkdir()
    pointer.symlink_to("versions/gone-1")
    with pytest.raises(BundleError, match="leads to versions/gone-1, which no longer exists; deploy one"):
        find_bundle(pointer)
