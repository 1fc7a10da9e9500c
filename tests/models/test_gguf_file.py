"""A GGUF file is read once while it loads; what is read, and what is refused, is the same as without."""

import contextlib
import hashlib
import struct
import threading

import gguf
import numpy as np
import pytest
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from monadnock.errors import MonadnockError
from monadnock.models import load, loading
from monadnock.models.gguf_file import read_once
from tests.tiny import tiny_model

PLAIN = gguf.GGUFReader
NAME_MAP = gguf.get_tensor_name_map
ARRAY, STRING = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING
MERGES = ["h e", "l l", "he ll", "Ġ w", "Ġ Ġ", "Ã ©"]
SPECIAL = ["<|start|>", "<|end|>"]
TOKENS = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]
TEXT = "hello  world\n\tnaïve café 日本語 🤖 <|start|>he<|end|>\x00"
IDS = torch.tensor([1, 5, 9, 40, 77, 263])

VALUES = {
    "strings": ["", "a", "naïve 日本語", "x" * 300],
    "one string": ["alone"],
    "ints": [-3, 0, 2**31 - 1],
    "floats": [0.5, -1.25e-7, 3e38],
    "bools": [True, False, True],
    "one number": [7],
}


@pytest.fixture
def counted(monkeypatch):
    """Return a list that grows with each file that gguf really reads."""
    read, init = [], PLAIN.__init__

    def counting(self, path, *args):
        read.append(str(path))
        init(self, path, *args)

    monkeypatch.setattr(PLAIN, "__init__", counting)
    return read


@pytest.fixture(scope="module")
def saved():
    return tiny_model("llama", vocab_size=len(TOKENS))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, saved):
    """Write the tiny llama as a GGUF file with a byte-level tokenizer."""
    file, config = tmp_path_factory.mktemp("gguf") / "tiny.gguf", saved.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(TOKENS.index("<|start|>"))
    writer.add_eos_token_id(TOKENS.index("<|end|>"))
    names = NAME_MAP(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in saved.state_dict().items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # GGUF pairs the two halves of a rotation
            weight = weight.reshape(-1, 2, config.head_dim // 2, config.hidden_size).swapaxes(1, 2)
        written = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(written, weight.reshape(saved.state_dict()[name].shape).contiguous().numpy())
    return write(writer, file)


def write(writer, file):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def header_file(folder, order=gguf.GGUFEndian.LITTLE):
    """Write a file with arrays of every kind and two tensors."""
    file = folder / f"{order.name}.gguf"
    writer = gguf.GGUFWriter(file, "llama", endianess=order)
    for key, value in VALUES.items():
        writer.add_array(key, value)
    writer.add_string("behind", "the arrays")
    writer.add_tensor("float", np.arange(96, dtype=np.float32).reshape(3, 32))
    writer.add_tensor("half", np.arange(64, dtype=np.float16))
    return write(writer, file)


def told(reader):
    """Return all that a reader found, for comparison."""
    fields = {
        name: (
            field.offset,
            field.data,
            field.types,
            [(part.dtype.str, part.shape, part.tobytes()) for part in field.parts],
            field.contents(),
        )
        for name, field in reader.fields.items()
    }
    tensors = [
        (t.name, t.tensor_type, t.shape.tolist(), t.n_bytes, t.data_offset, t.data.dtype.str, t.data.tobytes())
        for t in reader.tensors
    ]
    return fields, tensors, reader.data_offset, reader.byte_order, bytes(reader.data)


@pytest.mark.parametrize("order", gguf.GGUFEndian)
def test_a_header_is_what_gguf_itself_reads(tmp_path, order):
    file = header_file(tmp_path, order)
    own = told(PLAIN(file))
    with read_once():
        first, second = gguf.GGUFReader(file), gguf.GGUFReader(str(file))
    assert told(first) == own
    assert told(second) == own
    assert isinstance(first, PLAIN)
    assert {name: own[0][name][4] for name in VALUES if name != "floats"} == {
        name: value for name, value in VALUES.items() if name != "floats"
    }
    assert own[0]["floats"][4] == np.float32(VALUES["floats"]).tolist()


def text(content):
    return struct.pack("<Q", len(content)) + content.encode()


def array(kind, count, *content):
    return struct.pack("<IQ", kind, count) + b"".join(content)


STRINGS = array(STRING, 2, text("a"), text("string" * 20))
NUMBERS = array(gguf.GGUFValueType.UINT16, 4, b"12345678")
NESTED = array(ARRAY, 2, array(STRING, 1, text("in")), array(gguf.GGUFValueType.UINT8, 3, b"abc"))


def raw_file(folder, *last):
    """Write, without gguf's writer, arrays that it does not write; nothing comes behind the last."""
    values = [array(STRING, 0), array(gguf.GGUFValueType.FLOAT32, 0), *last]
    file = folder / "raw.gguf"
    pairs = (text(f"key{i}") + struct.pack("<I", ARRAY) + value for i, value in enumerate(values))
    file.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(values)) + b"".join(pairs))
    return file


@pytest.mark.parametrize("last", [NUMBERS, STRINGS, NESTED], ids=["numbers", "strings", "nested"])
def test_arrays_that_gguf_does_not_write(tmp_path, counted, last):
    file = raw_file(tmp_path, last)
    own = told(PLAIN(file))
    assert own[0]["key0"][1] == own[0]["key1"][1] == []
    assert len(own[0]["key2"][1]) == {NUMBERS: 4, STRINGS: 2, NESTED: 4}[last]
    counted.clear()
    with read_once():
        assert told(gguf.GGUFReader(file)) == own
        assert len(counted) == (2 if last == NESTED else 1), "arrays of arrays are left to gguf's own reader"


def test_a_file_is_read_once_and_anew_when_it_changed(tmp_path, counted):
    file, other = header_file(tmp_path), header_file(tmp_path, gguf.GGUFEndian.BIG)
    with read_once():
        for path in (file, str(file), other, file, other):
            gguf.GGUFReader(path)
        assert sorted(counted) == sorted([str(file), str(other)])
        header_file(tmp_path).replace(file)
        writer = gguf.GGUFWriter(file, "gpt2")
        assert gguf.GGUFReader(write(writer, file)).get_field("general.architecture").contents() == "gpt2"
    assert len(counted) == 3
    with read_once():
        gguf.GGUFReader(file)
    assert len(counted) == 4, "nothing is kept from one load to the next"


@pytest.mark.parametrize("leave", [None, ValueError])
def test_gguf_is_as_before_afterwards(tmp_path, counted, leave):
    file = header_file(tmp_path)
    with pytest.raises(leave) if leave else contextlib.nullcontext(), read_once():
        kept, names = gguf.GGUFReader, gguf.get_tensor_name_map
        assert kept is not PLAIN
        assert names is not NAME_MAP
        with read_once():
            assert names(gguf.MODEL_ARCH.LLAMA, 2) is gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert gguf.GGUFReader is kept
        if leave:
            raise leave
    assert gguf.GGUFReader is PLAIN
    assert gguf.get_tensor_name_map is NAME_MAP
    assert told(kept(file)) == told(kept(file)), "who kept the reader can still read"
    assert len(counted) == 2, "but nothing is held for him"


def test_a_second_thread_waits(tmp_path):
    entered, order = threading.Event(), []

    def second():
        entered.set()
        with read_once():
            order.append("second")

    other = threading.Thread(target=second)
    with read_once():
        other.start()
        assert entered.wait(60)
        other.join(0.05)
        order.append("first")
    other.join(60)
    assert order == ["first", "second"]
    assert gguf.GGUFReader is PLAIN
    assert gguf.get_tensor_name_map is NAME_MAP


def outcome(file):
    """Return what a reader found, or what it failed with."""
    try:
        return told(gguf.GGUFReader(file))
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("make", "step"),
    [
        (header_file, 5),
        (lambda folder: raw_file(folder, STRINGS, NUMBERS), 1),
        (lambda folder: raw_file(folder, NUMBERS, STRINGS), 1),
    ],
    ids=["tensors", "numbers last", "strings last"],
)
def test_a_file_cut_anywhere_is_read_or_refused_as_by_gguf_itself(tmp_path, make, step):
    whole = make(tmp_path).read_bytes()
    lengths = range(0, len(whole), step)
    failed = 0
    for keep in lengths:
        file = tmp_path / "cut.gguf"
        file.write_bytes(whole[:keep])
        own = outcome(file)
        with read_once():
            assert outcome(file) == own, keep
        failed += len(own) == 2
    assert failed > len(lengths) / 2  # not all: a last string may be short


def test_a_header_that_is_not_understood_is_left_to_gguf(tmp_path, counted, monkeypatch):
    file = header_file(tmp_path)
    own = told(PLAIN(file))
    monkeypatch.setattr("monadnock.models.gguf_file._FastReader._get_field_parts", lambda self: None)
    with read_once():
        assert told(gguf.GGUFReader(file)) == own
        assert told(gguf.GGUFReader(file)) == own


def test_files_opened_for_writing_are_not_shared(tmp_path, counted):
    file = header_file(tmp_path)
    with read_once():
        for _ in range(2):
            gguf.GGUFReader(file, "c").get_field("ints").parts[-1][0] = 5
            assert gguf.GGUFReader(file).get_field("ints").contents() == VALUES["ints"]
    assert len(counted) == 3


def test_load_reads_a_file_once_and_gives_the_saved_model(saved, model_file, counted):
    adapter = load(model_file)
    assert counted == [str(model_file)]
    assert gguf.GGUFReader is PLAIN
    assert torch.equal(adapter.forward(IDS, len(IDS)), saved(IDS[None]).logits[0])
    assert adapter.source == loading.Source(
        str(model_file), "gguf", f"sha256:{hashlib.sha256(model_file.read_bytes()).hexdigest()}"
    )


def test_load_gives_the_same_without(model_file, counted, monkeypatch):
    fast = load(model_file)
    counted.clear()
    monkeypatch.setattr(loading, "read_once", contextlib.nullcontext)
    slow = load(model_file)
    assert len(counted) > 1, "transformers reads a file once by now: gguf_file.py is needed no more"
    assert fast.source == slow.source
    assert fast.model.config.to_dict() == slow.model.config.to_dict()
    ids = fast.tokenizer(TEXT)["input_ids"]
    assert ids == slow.tokenizer(TEXT)["input_ids"]
    assert fast.tokenizer.decode(ids) == TEXT
    assert TOKENS.index("hell") in ids
    assert TOKENS.index("<|end|>") in ids
    assert fast.tokenizer.backend_tokenizer.to_str() == slow.tokenizer.backend_tokenizer.to_str()
    assert torch.equal(fast.forward(IDS, len(IDS)), slow.forward(IDS, len(IDS)))


def test_gguf_is_as_before_after_a_file_that_cannot_be_loaded(model_file, tmp_path):
    short = tmp_path / "short.gguf"
    short.write_bytes(model_file.read_bytes()[:-2000])
    with pytest.raises(MonadnockError, match=r"short\.gguf"):
        load(short)
    assert gguf.GGUFReader is PLAIN
    assert gguf.get_tensor_name_map is NAME_MAP


def test_a_packaged_model_that_was_cut_short_is_told_so(model_file, tmp_path, monkeypatch):
    short = tmp_path / "short.gguf"
    short.write_bytes(model_file.read_bytes()[:-2000])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "packaged_path", lambda name: short)
    with pytest.raises(MonadnockError, match=r"short\.gguf is not a readable GGUF file, or was cut short"):
        load("smollm2")
