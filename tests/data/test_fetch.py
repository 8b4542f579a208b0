"""Downloads from a server of our own on this machine: the checksum decides what stays."""

import functools
import hashlib
import http.server
import re
import threading

import pytest

from papernets.data import SOURCES, _fetch, cache_folder, fetch, fetch_unpacked

CONTENT = b"a small archive" * 1009


class Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/short.tar.gz":  # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:100])
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "small.tar.gz").write_bytes(CONTENT)
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("PAPERNETS_DATA", str(folder))
    return folder


@pytest.fixture
def offer(server, cache, monkeypatch):
    """Make ``small`` a source of the server's file; by default with the right checksum."""
    def offered(file="small.tar.gz", checksum=None, port=None):
        checksum = checksum or "md5:" + hashlib.md5(CONTENT).hexdigest()
        url = f"http://127.0.0.1:{port or server.server_port}/{file}"
        monkeypatch.setitem(SOURCES, "small", _fetch.Source(url, checksum, 1))
        return checksum
    return offered


def left(folder):
    return sorted(file.name for file in folder.rglob("*")) if folder.exists() else []


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_that_fits_is_kept(kind, offer, cache):
    offer(checksum=f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}")
    path = fetch("small")
    assert path == cache / "small.tar.gz"
    assert path.read_bytes() == CONTENT
    assert left(cache) == ["small.tar.gz"]


def test_a_file_is_downloaded_once(offer, server):
    offer()
    first = fetch("small")
    assert fetch("small") == first
    assert server.asked == ["/small.tar.gz"]


def test_a_file_put_there_by_hand_is_taken(offer, cache, server):
    offer()
    cache.mkdir()
    (cache / "small.tar.gz").write_bytes(CONTENT)
    assert fetch("small").read_bytes() == CONTENT
    assert server.asked == []


def test_a_wrong_checksum_is_refused_and_nothing_is_left(offer, cache):
    wrong = offer(checksum="md5:" + "0" * 32)
    with pytest.raises(ValueError, match=rf"small\.tar\.gz does not have checksum {wrong} and was thrown away"):
        fetch("small")
    assert left(cache) == []


def test_a_damaged_file_in_the_cache_is_refused(offer, cache, server):
    checksum = offer()
    cache.mkdir()
    path = cache / "small.tar.gz"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is damaged: .*{checksum}; delete it and fetch"):
        fetch("small")
    assert path.read_bytes() == CONTENT[:-1]  # the reader's own file is not touched
    assert server.asked == []


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"no data set 'imagenet' to fetch; choose one of cifar10, cifar100"):
        fetch("imagenet")


@pytest.mark.parametrize("file", ["absent.tar.gz", "short.tar.gz"])
def test_a_download_that_fails_says_what_to_do(file, offer, cache):
    offer(file)
    words = rf"{re.escape(file)} could not be downloaded \(\w+\); put the file into {re.escape(str(cache))}"
    with pytest.raises(ValueError, match=words):
        fetch("small")
    assert left(cache) == []


def test_a_server_that_does_not_answer(offer, cache, server):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    offer(port=port)  # nobody listens there any more
    with pytest.raises(ValueError, match=r"not be downloaded \(ConnectionError\); .* or try again with a network"):
        fetch("small")
    assert left(cache) == []


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERNETS_DATA", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("PAPERNETS_DATA")
        else:
            monkeypatch.setenv("PAPERNETS_DATA", unset)
        assert cache_folder().name
        assert "papernets" in cache_folder().parts
        assert cache_folder().is_absolute()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_published_sources_are_binary_and_have_checksums(name):
    wanted = SOURCES[name]
    assert wanted.url.startswith("https://")
    assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", wanted.checksum)
    assert wanted.file == f"cifar-{name[5:]}-binary.tar.gz"


# archives that are unpacked
@pytest.fixture
def images(server, cache, write_archive, monkeypatch, tmp_path):
    """Two archives of images, each with its checksum; ``images(content)`` changes the second one on the server."""
    def serve(name, members):
        path = write_archive(members, f"served/{name}.tar.gz")
        checksum = "md5:" + hashlib.md5(path.read_bytes()).hexdigest()
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        monkeypatch.setitem(SOURCES, name, _fetch.Source(url, checksum, 1, True))

    serve("first", [("kit/a/1.txt", b"one"), ("kit/list.txt", b"1")])
    serve("second", [("kit/b/2.txt", b"two")])
    return serve


def test_archives_are_unpacked_side_by_side_and_once(images, cache, server):
    folder = fetch_unpacked("first", "second")
    assert folder == cache / "unpacked"
    assert left(folder) == [".first", ".second", "1.txt", "2.txt", "a", "b", "kit", "list.txt"]
    (folder / "kit" / "a" / "1.txt").write_text("changed by its owner")
    assert fetch_unpacked("second", "first") == folder
    assert (folder / "kit" / "a" / "1.txt").read_text() == "changed by its owner"
    assert server.asked == ["/first.tar.gz", "/second.tar.gz"]


def test_an_archive_that_was_not_unpacked_to_its_end_is_unpacked_again(images, cache, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_fetch, "unpack", die)
        with pytest.raises(Killed):
            fetch_unpacked("first")
    assert "kit" not in left(cache)
    assert (fetch_unpacked("first") / "kit" / "a" / "1.txt").read_bytes() == b"one"


def test_an_archive_that_leaves_its_folder_is_refused(images, cache):
    images("second", [("../../evil.txt", b"x")])
    with pytest.raises(ValueError, match=r"refused, '../../evil.txt' leaves .*; delete it and run: .* data fetch second"):
        fetch_unpacked("first", "second")
    assert "evil.txt" not in left(cache) and ".second" not in left(cache) and "1.txt" in left(cache)


def test_what_is_one_file_is_not_unpacked(offer):
    offer()
    with pytest.raises(ValueError, match="small is one file and is not unpacked; fetch it instead"):
        fetch_unpacked("small")
