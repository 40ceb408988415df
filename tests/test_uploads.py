from __future__ import annotations

import io
import tempfile
import threading

import pytest
import trio

from keryx_trio.uploads import CHUNK_SIZE, UploadFile


def spooled(content: bytes, max_size: int) -> UploadFile:
    file = tempfile.SpooledTemporaryFile(max_size=max_size)  # noqa: SIM115 - the upload closes it
    file.write(content)
    file.seek(0)
    return UploadFile(file, "a.txt", "text/plain", len(content), {"x-part": "1"})


@pytest.fixture(params=["in memory", "on disk"])
def upload(request):
    content = bytes(range(256)) * 300
    upload = spooled(content, 10 * len(content) if request.param == "in memory" else 10)
    yield upload
    upload.close()


async def test_an_upload_is_read_in_parts_and_again_after_seek(upload):
    assert await upload.read(3) == b"\x00\x01\x02"
    await upload.seek(255)
    assert await upload.read(2) == b"\xff\x00"
    await upload.seek(0)
    assert len(await upload.read()) == upload.size
    assert await upload.read() == b""


async def test_iteration_gives_pieces_of_bounded_size(upload):
    sizes = [len(chunk) async for chunk in upload]
    assert sizes == [CHUNK_SIZE, upload.size - CHUNK_SIZE]


async def test_save_writes_the_content_to_a_file(upload, tmp_path):
    await upload.save(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(range(256)) * 300


async def test_every_use_after_close_raises_and_closing_twice_is_harmless(upload, tmp_path):
    upload.close()
    upload.close()
    with pytest.raises(trio.ClosedResourceError):
        await upload.read()
    with pytest.raises(trio.ClosedResourceError):
        await upload.seek(0)
    with pytest.raises(trio.ClosedResourceError):
        await upload.save(tmp_path / "copy")


class Threads(io.BytesIO):
    _rolled = False

    def read(self, size=-1):
        self.thread = threading.current_thread()
        return super().read(size)


async def test_only_what_may_be_on_the_disk_is_read_in_a_thread():
    file = Threads(b"abc")
    await UploadFile(file).read()
    assert file.thread is threading.current_thread()
    file._rolled = True
    await UploadFile(file).read()
    assert file.thread is not threading.current_thread()


async def test_reading_from_memory_is_a_checkpoint():
    upload = spooled(b"abc", 100)
    with trio.CancelScope() as scope:
        scope.cancel()
        await upload.read()
    upload.close()
    assert scope.cancelled_caught


def test_the_repr_shows_no_content():
    upload = UploadFile(io.BytesIO(b"abc"), "a.txt", "text/plain", 3)
    assert repr(upload) == "UploadFile(filename='a.txt', content_type='text/plain', size=3)"
