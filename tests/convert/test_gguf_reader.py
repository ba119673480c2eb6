"""What a GGUF file must be, and what is refused with the way out."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from llmstages.convert.gguf_reader import gguf_facts, read_gguf
from llmstages.convert.gguf_writer import write_gguf
from llmstages.core.errors import StageError
from tests.convert.models import write_model

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(write_model(folder / "model"), folder / "model.gguf", "float16")
    return folder / "model.gguf"


def rewritten(source: Path, target: Path, changes: dict, without: tuple[str, ...] = ()) -> Path:
    """The file with other metadata: key -> value; None leaves the key out."""
    reader = gguf.GGUFReader(source)
    architecture = changes.get("general.architecture") or "llama"
    writer = gguf.GGUFWriter(target, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in changes:
            continue
        kind = field.types[0]
        sub_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=sub_kind)
    for key, value in changes.items():
        if value is None or key == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for tensor in reader.tensors:
        if tensor.name not in without:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize("read", [gguf_facts, lambda file: read_gguf(file, file.parent, print)])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "truncated"),
        (b"PK\3\4 a zip file", "is not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(64), "GGUF version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(64), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + bytes(4), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 60) + bytes(64), "damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "does not say its architecture"),
    ],
)
def test_a_damaged_header_is_named(content, message, read, tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(StageError, match=message):
        read(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StageError, match="there is no file"):
        gguf_facts(tmp_path / "x.gguf")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_every_truncation_is_found(share, good, tmp_path):
    content = good.read_bytes()
    file = tmp_path / "x.gguf"
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(StageError, match="truncated"):
        read_gguf(file, tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"split.count": 3}, "one of 3 files .* llama-gguf-split --merge"),
        ({"general.architecture": "clip"}, "architecture 'clip', which transformers cannot read"),
        ({"tokenizer.ggml.pre": "default"}, "pre-tokenizer 'default', which is not known"),
        ({"tokenizer.ggml.pre": None}, "does not name its pre-tokenizer"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn', which is not converted"),
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer of kind 'rwkv'"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(changes, message, good, tmp_path):
    file = rewritten(good, tmp_path / "x.gguf", changes)
    with pytest.raises(StageError, match=message):
        read_gguf(file, tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


def test_a_missing_weight_is_named(good, tmp_path):
    file = rewritten(good, tmp_path / "x.gguf", {}, without=("blk.1.ffn_up.weight",))
    with pytest.raises(StageError, match=r"lacks 1 weights .*layers.1.mlp.up_proj.weight"):
        read_gguf(file, tmp_path / "out", print)


def test_settings_that_are_not_used_are_named(good, tmp_path):
    file = rewritten(good, tmp_path / "x.gguf", {"llama.attention.clamp_kqv": 3.0})
    lines: list[str] = []
    read_gguf(file, tmp_path / "out", lines.append)
    assert "model.gguf" not in "".join(lines)
    assert any("1 settings not used: llama.attention.clamp_kqv" in line for line in lines)


def test_every_stop_token_ends_generation(good, tmp_path):
    from transformers import GenerationConfig

    file = rewritten(good, tmp_path / "x.gguf", {"tokenizer.ggml.eot_token_id": 1})
    read_gguf(file, tmp_path / "out", print)
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [2, 1]


def test_reading_facts_needs_neither_gguf_nor_torch(good):
    code = (
        "import sys; sys.modules['gguf'] = None; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from llmstages.convert.gguf_reader import gguf_facts\n"
        f"print(gguf_facts(Path({str(good)!r}))['architecture'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "llama", done.stderr


def test_the_missing_package_is_named(good, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(StageError, match=r"pip install 'llmstages\[gguf\]'"):
        read_gguf(good, tmp_path / "out", print)
