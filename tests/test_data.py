"""Text becomes tokens and comes back; every window of an epoch appears once; a download survives what networks do."""

import hashlib
import json
import math
import os
import ssl
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from faults_data import FAULTS, HELLO, SHA, TEXT, Loopback, without_waiting
from hypothesis import given, settings
from hypothesis import strategies as st

from minimodels import corpus, data, download
from minimodels.corpus import END, load_corpus, take
from minimodels.data import Batches, prepare, token_bytes, train_tokenizer
from minimodels.download import Source, cache_folder, fetch

torch.set_num_threads(1)
POEM = "Tyger Tyger, burning bright,\n    In the forests of the night;\n" * 40
TOKENIZER = train_tokenizer([TEXT, POEM], 310)


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


# ---- faults

@pytest.mark.parametrize("function, kind, message", [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_every_fault_is_told_in_one_clear_line(tmp_path, function, kind, message):
    with pytest.raises(kind, match=message) as caught:
        function(tmp_path)()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_disk_that_fills_up_leaves_no_half_written_tokens(text_file, tmp_path):
    import resource
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))  # the system itself refuses from here on
    try:
        with pytest.raises(OSError, match="disk full while writing"):
            prepare(text_file, 300, cache=tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [p for p in (tmp_path / "c" / "tokens").iterdir() if p.is_dir()]
    assert len(prepare(text_file, 300, cache=tmp_path / "c").train) > 0


# ---- corpora

def test_the_standard_library_is_a_corpus_that_stays_the_same():
    one, two = load_corpus("stdlib"), load_corpus("stdlib")
    assert one == two and one.name == "stdlib"
    n_train, n_valid = (sum(len(text.encode()) for text in side) for side in (one.train, one.valid))
    assert n_train > 5_000_000 and 0.01 < n_valid / (n_train + n_valid) < 0.15
    assert not set(one.train) & set(one.valid) - {""}
    assert any("class OrderedDict(dict):" in text for text in one.train + one.valid)


def test_a_module_that_cannot_be_decoded_is_left_out_and_declared_encodings_are_heeded(tmp_path):
    for i in range(40):
        (tmp_path / f"m{i}.py").write_text(f"x = {i}\n")
    (tmp_path / "bad.py").write_bytes(b"x = '\xff\xfe'\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = 'caf\xe9'\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_x.py").write_text("never_read = 1\n")
    with patch("sysconfig.get_paths", return_value={"stdlib": str(tmp_path)}):
        found = load_corpus("stdlib")
    text = "".join(found.train + found.valid)
    assert "café" in text and "\ufffd" not in text and "never_read" not in text and "x = 39" in text


def test_a_file_is_split_at_a_line_near_its_last_twentieth(text_file):
    found = load_corpus(text_file)
    assert "".join(found.train + found.valid) == TEXT
    assert found.train[0].endswith("\n") and 0.03 < len(found.valid[0]) / len(TEXT) <= 0.05


def test_a_marker_ends_a_document_and_is_no_part_of_it(tmp_path):
    (tmp_path / "stories.txt").write_text(END.join(f"story {i}\n" for i in range(100)))
    found = load_corpus(tmp_path / "stories.txt")
    assert found.train + found.valid == [f"story {i}\n" for i in range(100)] and len(found.valid) in (4, 5)


def test_a_new_file_moves_no_other_between_training_and_validation(tmp_path):
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    before = load_corpus(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "new.txt").write_text("new text")
    after = load_corpus(tmp_path)
    assert set(after.valid) - {"new text"} == set(before.valid) and 3 <= len(before.valid) <= 40
    assert len(after.train + after.valid) == 301


@pytest.mark.parametrize("n_files, percent", [(1, 5), (2, 5), (3, 5), (5, 0), (5, 100)])
def test_a_small_folder_has_text_on_both_sides(tmp_path, n_files, percent):
    for i in range(n_files):
        (tmp_path / f"{i}.txt").write_text(f"a few words {i}")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    with patch("minimodels.corpus.VALID_PERCENT", percent):
        found = load_corpus(tmp_path)
    assert found.train and found.valid and len("".join(found.train + found.valid)) == 13 * n_files


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.integers(1, 50))
def test_a_part_is_no_larger_than_asked_for_and_always_the_same(texts, max_bytes):
    part = take(texts, max_bytes)
    total = sum(len(text.encode()) for text in texts)
    n_bytes = len("".join(part).encode())
    assert part == take(texts, max_bytes) and n_bytes <= max_bytes and n_bytes > min(total, max_bytes) - 4
    assert all(any(text.startswith(piece) for text in texts) for piece in part)


# ---- tokenizer

@given(st.text(st.characters(codec="utf-8")) | st.text(st.sampled_from(" \n\t\r\x00ab_1(:\u00a0\u0301\ufeff")))
@settings(max_examples=300)
def test_every_text_comes_back_as_it_was(text):
    ids = TOKENIZER.encode(text).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text
    assert token_bytes(TOKENIZER)[ids].sum() == len(text.replace(END, "").encode())


def test_token_zero_ends_documents_and_every_byte_has_a_token():
    assert TOKENIZER.token_to_id(END) == 0
    assert sorted(np.flatnonzero(token_bytes(TOKENIZER) == 1)) == list(range(1, 257))
    assert TOKENIZER.get_vocab_size() == 310


def test_a_text_with_few_pairs_gives_fewer_tokens_than_asked_for():
    tokenizer = train_tokenizer(["abab"], 1000)
    assert tokenizer.get_vocab_size() == 258  # bytes, end, and ab: nothing else occurs twice
    assert len(tokenizer.encode("abab").ids) == 2


def test_training_gives_the_same_tokenizer_on_one_core_and_on_two():
    code = ("from minimodels.data import *; import hashlib; t = load_corpus('stdlib', max_bytes=400_000).train;"
            "print(hashlib.sha256(train_tokenizer(t, 1024).to_str().encode()).hexdigest())")
    runs = [subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"RAYON_NUM_THREADS": n, "PYTHONHASHSEED": n},
                             cwd=Path(data.__file__).parents[1], stdout=subprocess.PIPE, text=True) for n in "12"]
    said = [run.communicate()[0] for run in runs]
    assert said[0] == said[1] and len(said[0]) == 65


def test_pieces_of_a_long_text_are_the_text():
    for text in ("", "abc", "line\n" * 50_000, "x" * 200_000):
        pieces = list(data._pieces(text))
        assert "".join(p for p, _ in pieces) == text and [is_last for _, is_last in pieces] == [False] * (len(pieces) - 1) + [True]


# ---- token files

def test_prepared_tokens_are_the_text_and_are_made_once(text_file, tmp_path):
    one = prepare(text_file, 300, cache=tmp_path / "c")
    with patch("minimodels.data._make", side_effect=AssertionError("made twice")):
        two = prepare(text_file, 300, cache=tmp_path / "c")
    train, valid = (two.tokenizer.decode(side.tolist(), skip_special_tokens=False) for side in (two.train, two.valid))
    assert train.removesuffix(END) + valid.removesuffix(END) == TEXT
    assert two.valid_text() == valid.removesuffix(END) and two.valid_bytes == len(two.valid_text().encode())
    assert isinstance(two.train, np.memmap) and two.train.dtype == np.uint16 and (one.train == two.train).all()
    assert token_bytes(two.tokenizer)[two.valid].sum() == two.valid_bytes


def test_other_text_and_other_vocabularies_have_files_of_their_own(text_file, tmp_path):
    folders = {prepare(text_file, size, cache=tmp_path / "c").folder for size in (300, 310)}
    text_file.write_text(TEXT + "one more line\n")
    folders.add(prepare(text_file, 300, cache=tmp_path / "c").folder)
    assert len(folders) == 3


def test_a_text_is_encoded_with_the_tokenizer_that_is_given(text_file, tmp_path):
    own, given, again = (prepare(text_file, 310, cache=tmp_path / "c", tokenizer=t) for t in (None, TOKENIZER, TOKENIZER))
    assert given.tokenizer.to_str() == TOKENIZER.to_str() != own.tokenizer.to_str() and given.folder == again.folder != own.folder
    assert given.valid.tolist() == TOKENIZER.encode(given.valid_text()).ids + [0]
    texts = [part.tokenizer.decode(part.train.tolist(), skip_special_tokens=False) for part in (own, given)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["train.bin", "valid.bin", "valid.txt", "tokenizer.json", "meta.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "remove"])
def test_damaged_files_are_named_and_made_again(text_file, tmp_path, capsys, name, harm):
    one = prepare(text_file, 300, cache=tmp_path / "c")
    good, path = np.array(one.train), one.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.unlink() if harm == "remove" else path.write_bytes(content if harm == "flip" else content[:len(content) // 2])
    two = prepare(text_file, 300, cache=tmp_path / "c")
    said = capsys.readouterr().err
    is_harmless = (name, harm) == ("meta.json", "flip") and not said  # the flipped byte may lie where nothing is read
    assert is_harmless or (said.count("\n") == 1 and name in said and "again" in said)
    assert (two.train == good).all()


def test_a_process_killed_while_it_makes_tokens_leaves_nothing_that_counts(text_file, tmp_path):
    code = ("import os, signal, sys; from minimodels import data\n"
            "data._problem = lambda folder: 'nothing yet'\n"
            "data.json.dumps = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"  # all files are written but meta.json
            "data.prepare(sys.argv[1], 300, cache=sys.argv[2])")
    run = subprocess.run([sys.executable, "-c", code, text_file, tmp_path / "c"], cwd=Path(data.__file__).parents[1])
    left = [p for p in (tmp_path / "c" / "tokens").iterdir() if p.is_dir()]
    assert run.returncode != 0 and [p.suffix for p in left] == [".tmp"] and (left[0] / "train.bin").exists()
    assert len(prepare(text_file, 300, cache=tmp_path / "c").train) > 0 and not left[0].exists()


def test_a_cache_that_may_only_be_read_serves_what_it_has(text_file, tmp_path):
    prepare(text_file, 300, cache=tmp_path / "c")
    with patch("minimodels.data.only_one", side_effect=PermissionError("read only")):
        assert len(prepare(text_file, 300, cache=tmp_path / "c").train) > 0


def test_two_processes_make_the_tokens_once(text_file, tmp_path):
    code = ("import sys; from minimodels import data; make = data._make\n"
            "data._make = lambda *a: (print('made'), make(*a))\n"
            "print(len(data.prepare(sys.argv[1], 300, cache=sys.argv[2]).train))")
    runs = [subprocess.Popen([sys.executable, "-c", code, text_file, tmp_path / "c"], stdout=subprocess.PIPE, text=True,
                             cwd=Path(data.__file__).parents[1]) for _ in range(2)]
    said = sorted(run.communicate()[0] for run in runs)
    assert all(run.returncode == 0 for run in runs) and "".join(said).count("made") == 1


def test_a_vocabulary_beyond_16_bits_is_stored_in_32(tmp_path):
    class Large:
        get_vocab_size = staticmethod(lambda: 70_000)
        encode_batch_fast = staticmethod(lambda texts: [type("E", (), {"ids": [69_999]}) for _ in texts])
    tokens = data.encode_documents(Large(), ["a", "b"])
    assert tokens.dtype == np.uint32 and tokens.tolist() == [69_999, 0, 69_999, 0]


def test_a_small_part_of_the_library_is_a_small_data_set(tmp_path):
    part = prepare("stdlib", 512, cache=tmp_path, max_bytes=200_000)
    assert sum(token_bytes(part.tokenizer)[part.train]) <= 200_000 and 9_000 < part.valid_bytes <= 10_000


# ---- batches

@given(n=st.integers(8, 400), batch_size=st.integers(1, 7), seq_len=st.integers(2, 13), seed=st.integers(0, 5))
def test_every_window_of_an_epoch_appears_exactly_once(n, batch_size, seq_len, seed):
    if n < (batch_size + 1) * seq_len - 1:
        with pytest.raises(ValueError):
            Batches(np.arange(n), batch_size=batch_size, seq_len=seq_len, seed=seed)
        return
    batches = Batches(np.arange(n), batch_size=batch_size, seq_len=seq_len, seed=seed)
    N = batches.n_windows
    rows = torch.cat([batches.at(step) for step in range(-(-3 * N // batch_size))])
    assert (rows == rows[:, :1] + torch.arange(seq_len)).all()  # each is a window of neighbours
    for epoch in range(3):
        tokens = rows[epoch * N:(epoch + 1) * N].flatten().tolist()
        first = min(tokens)
        # by brute force: side by side from the offset, each token once, and what is left out is less than two windows
        assert sorted(tokens) == list(range(first, first + N * seq_len)) and first < seq_len and n - len(tokens) < 2 * seq_len
    assert len(batches) == -(-N // batch_size) and len(batches._starts) <= 2


def test_a_batch_depends_on_seed_and_step_alone():
    def make(seed):
        return Batches(np.arange(997, dtype=np.uint16), batch_size=5, seq_len=7, seed=seed)
    straight = [batch for _, batch in zip(range(100), make(3))]
    resumed = make(3)
    for step in (99, 0, 57, 28, 56, 3):  # epochs end near 28, 56 and 85
        assert torch.equal(resumed.at(step), straight[step])
    assert straight[0].dtype == torch.int64 and straight[0].shape == (5, 7)
    assert not torch.equal(make(4).at(0), straight[0])
    assert {int(batch[0, 0]) % 7 for batch in straight[::29]} != {int(straight[0][0, 0]) % 7}  # another offset each epoch


# ---- bits per byte

def test_a_uniform_guess_costs_eight_bits_a_byte():
    assert math.isclose(data.bits_per_byte(1000 * math.log(256), 1000), 8)
    assert math.isclose(data.bits_per_byte(math.log(2), 4), 0.25)


def test_compressors_are_measured_in_bits_per_byte():
    noise = np.random.default_rng(0).integers(0, 128, 20_000, dtype=np.uint8).tobytes().decode()
    for method in ("zlib", "lzma"):
        assert 7 <= data.compressed_bits_per_byte(noise, method) < 7.6  # seven random bits a byte and no less
        assert data.compressed_bits_per_byte(TEXT, method) < 1
    assert data.compressed_bits_per_byte("é" * 1000, "zlib") < 0.2


# ---- downloads

def test_a_cut_download_continues_at_the_byte_where_it_stopped(tmp_path):
    body = bytes(range(256)) * 1000
    source_of = {"n_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    with Loopback({"/f": body}, {"/f": [("cut", 100_000), ("cut", 50_000)]}) as server, without_waiting():
        path = fetch(Source("f", server.url + "/f", **source_of), tmp_path)
        assert path.read_bytes() == body
        assert [r[1:] for r in server.requests] == [(None, None), ("bytes=100000-", '"one"'), ("bytes=150000-", '"one"')]
        fetch(Source("f", server.url + "/f", **source_of), tmp_path)
        assert len(server.requests) == 3 and sorted(p.name for p in tmp_path.iterdir()) == ["f", "f.lock"]


def test_the_next_run_continues_what_this_one_could_not_finish(tmp_path):
    with Loopback(HELLO, {"/file": [("cut", 5)]}) as server:
        source = Source("f", server.url + "/file", sha256=SHA)
        with pytest.raises(ConnectionError, match="run again to continue"):
            fetch(source, tmp_path, tries=1)
        assert (tmp_path / "f.part").read_bytes() == b"hello" and not (tmp_path / "f").exists()
        assert fetch(source, tmp_path).read_bytes() == HELLO["/file"] and server.requests[-1][1] == "bytes=5-"


def test_a_file_that_changed_in_between_is_fetched_whole(tmp_path):
    with Loopback(HELLO, {"/file": [("cut", 5)]}) as server:
        source = Source("f", server.url + "/file")
        with pytest.raises(ConnectionError):
            fetch(source, tmp_path, tries=1)
        server.files, server.etag = {"/file": b"HELLO, WORLD, once more!"}, '"two"'
        assert fetch(source, tmp_path).read_bytes() == b"HELLO, WORLD, once more!"


@pytest.mark.parametrize("fault", [("whole",), ("status", 503), ("drop",), ("status", 416)])
def test_servers_that_cannot_continue_are_asked_from_the_start(tmp_path, fault):
    with Loopback(HELLO, {"/file": [("cut", 5), fault]}) as server, without_waiting():
        assert fetch(Source("f", server.url + "/file", sha256=SHA), tmp_path).read_bytes() == HELLO["/file"]


@pytest.mark.parametrize("error", [ssl.SSLEOFError("EOF"), TimeoutError("timed out"), ConnectionResetError("reset")])
def test_connections_that_break_in_other_ways_are_tried_again(tmp_path, error):
    ends = [error, error, None]
    def step():
        end = ends.pop(0)
        if end:
            raise end
    with without_waiting():
        download._persist(step, Source("f", "https://host/f"), tmp_path / "f", 3, 1.0)
    assert ends == []


def test_a_redirect_is_followed_also_when_continuing(tmp_path):
    with Loopback(HELLO, {"/old": [("redirect", "/file")] * 2, "/file": [("cut", 5)]}) as server, without_waiting():
        assert fetch(Source("f", server.url + "/old", sha256=SHA), tmp_path).read_bytes() == HELLO["/file"]
        assert server.requests[-1][:2] == ("/file", "bytes=5-")


@pytest.mark.parametrize("fault", [(None,), ("whole",)])
def test_a_prefix_takes_its_bytes_and_no_more(tmp_path, fault):
    with Loopback(HELLO, {"/file": [fault]}) as server:
        path = fetch(Source("f", server.url + "/file", n_bytes=5, is_prefix=True), tmp_path)
        assert path.read_bytes() == b"hello" and server.requests[0][1] == "bytes=0-4"


def test_an_unknown_hash_is_recorded_at_the_first_download(tmp_path):
    with Loopback(HELLO) as server:
        fetch(Source("f", server.url + "/file"), tmp_path)
    assert (tmp_path / "f.sha256").read_text() == f"{SHA}  f\n"


def test_a_refused_download_leaves_nothing_behind(tmp_path):
    with Loopback({"/file": b"hello, w0rld!"}) as server:
        with pytest.raises(ValueError, match="altered"):
            fetch(Source("f", server.url + "/file", sha256=SHA), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["f.lock"]


def test_progress_counts_bytes_up_to_the_size(tmp_path):
    seen = []
    with Loopback({"/f": bytes(3_000_000)}) as server:
        fetch(Source("f", server.url + "/f"), tmp_path, progress=lambda *a: seen.append(a))
    done = [n for _, n, _ in seen]
    assert done == sorted(done) and seen[-1] == ("f", 3_000_000, 3_000_000) and len(seen) >= 3


def test_a_table_is_fetched_in_pages_and_continued_after_a_cut(tmp_path):
    with Loopback(rows=250, faults={"/rows": [(None,), ("cut", 40), ("status", 429)]}) as server, without_waiting():
        source = Source("t.jsonl", server.url + "/rows?dataset=d", n_rows=230)
        rows = [json.loads(line) for line in fetch(source, tmp_path).read_text().splitlines()]
        assert [row["row"] for row in rows] == list(range(230)) and rows[7]["text"] == "document 7: café\n"
        assert [r[0].partition("&")[2] for r in server.requests] == [
            "offset=0&length=100", "offset=100&length=100", "offset=100&length=100", "offset=100&length=100", "offset=200&length=30"]


def test_the_downloading_corpora_read_what_they_fetch(tmp_path):
    stories = END.join(f"Story {i}.\n" for i in range(50)).encode()
    files = {"/input.txt": TEXT.encode(), "/train.txt": stories + b" and more", "/valid.txt": stories}
    with Loopback(files, rows=300) as server:
        sources = {
            "tinyshakespeare": (Source("s.txt", server.url + "/input.txt", sha256=hashlib.sha256(TEXT.encode()).hexdigest()),),
            "tinystories": (Source("t.txt", server.url + "/train.txt", n_bytes=300, is_prefix=True),
                            Source("v.txt", server.url + "/valid.txt")),
            "fineweb-edu": (Source("f.jsonl", server.url + "/rows?dataset=d", n_rows=300),),
        }
        with patch.dict(corpus.SOURCES, sources):
            found = {name: load_corpus(name, cache=tmp_path) for name in sources}
    assert "".join(found["tinyshakespeare"].train + found["tinyshakespeare"].valid) == TEXT
    assert found["tinystories"].train == [f"Story {i}.\n" for i in range(len(found["tinystories"].train))]
    assert sorted(found["tinystories"].valid) == sorted(f"Story {i}.\n" for i in range(50))
    assert len(found["fineweb-edu"].train) + len(found["fineweb-edu"].valid) == 300 and len(found["fineweb-edu"].valid) >= 3


def test_published_sizes_and_hashes_are_given_where_they_exist():
    known = [s for group in corpus.SOURCES.values() for s in group if s.sha256]
    assert len(known) == 2 and all(len(s.sha256) == 64 and s.n_bytes and s.url.startswith("https://") for s in known)


def test_the_cache_is_where_the_reader_wants_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMODELS_CACHE", str(tmp_path / "a b"))
    assert cache_folder() == tmp_path / "a b" and cache_folder(tmp_path / "c") == tmp_path / "c"
    monkeypatch.delenv("MINIMODELS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(download.sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "minimodels"
