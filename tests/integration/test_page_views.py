"""Pages over HTTP: pictures, rectangles of stretches of text, outlines; who may see them, and what is kept on disk."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import httpx
import pypdf
import pytest
from PIL import Image

from ragsvc.core.documents import Document, DocumentStatus, Stage
from ragsvc.core.errors import Overloaded
from ragsvc.core.ids import CollectionId, DocumentId, TenantId
from ragsvc.core.page_views import OutlineEntry, PageBoxes, PagePicture, RecognisedLines, TextStretch
from ragsvc.core.ports.page_reading import PageReader
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.crypto.at_rest import MasterKey, MasterKeys
from ragsvc.extract.parser import ChildParser
from ragsvc.services.file_locks import FileLocks
from ragsvc.services.page_views import PageViews
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import DataKeys
from ragsvc.store.page_renditions import PageRenditions
from ragsvc.testing.pdf_builder import Text, lines, make_pdf, make_scan
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.file_places import StoredFiles

pytestmark = pytest.mark.model

QUOTE = "The harbour handled 4,711 containers in 2023."
REPORT = make_pdf(
    [[Text(72, 700, QUOTE), Text(72, 600, "Outlook follows.")], [Text(72, 700, "The company expects more.")]],
    outline=[("Figures", 1), ("Outlook", 2)],
)


def error_of(reply: httpx.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def add(tenant, content: bytes = REPORT, **options: object) -> str:
    reply = tenant.upload(content, wait_s=60, **options)
    assert reply.status_code == 201, reply.text
    return f"/v1/rag/documents/{reply.json()['id']}"


def picture_of(reply: httpx.Response) -> Image.Image:
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png"), reply.text
    return Image.open(io.BytesIO(reply.content)).convert("L")


def ink(picture: Image.Image) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of all that is not white, as fractions of the picture."""
    left, top, right, bottom = picture.point(lambda level: 255 if level < 160 else 0).getbbox()
    return left / picture.width, top / picture.height, right / picture.width, bottom / picture.height


def test_a_page_has_a_picture_of_the_wanted_width_or_somewhat_wider(tenant) -> None:
    path = add(tenant)
    for width, drawn in ((None, 1000), (1000, 1000), (700, 1000), (100, 160), (4000, 2912)):
        parameters = {} if width is None else {"width": width}
        picture = picture_of(tenant.http.get(f"{path}/pages/1/image", params=parameters))
        assert picture.width == drawn
        assert picture.width * picture.height <= 12_000_000
        assert picture.height / picture.width == pytest.approx(842 / 595, abs=0.01)
    first, second = (picture_of(tenant.http.get(f"{path}/pages/{number}/image")) for number in (1, 2))
    assert ink(first)[3] > ink(second)[3] + 0.05  # page 1 has a second line


def test_a_picture_is_revalidated_and_not_sent_again(tenant) -> None:
    path = add(tenant)
    first = tenant.http.get(f"{path}/pages/1/image", params={"width": 900})
    assert first.headers["cache-control"] == "private, no-cache"
    assert first.headers["x-content-type-options"] == "nosniff"
    known = {"if-none-match": first.headers["etag"]}
    again = tenant.http.get(f"{path}/pages/1/image", params={"width": 1000}, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    wider = tenant.http.get(f"{path}/pages/1/image", params={"width": 1100}, headers=known)
    other = tenant.http.get(f"{path}/pages/2/image", headers=known)
    assert [reply.status_code for reply in (wider, other)] == [200, 200]
    assert len({reply.headers["etag"] for reply in (first, wider, other)}) == 3


def test_the_rectangles_of_a_stretch_are_where_the_picture_has_its_ink(tenant) -> None:
    path = add(tenant, make_pdf([[Text(72, 700, QUOTE)]]))
    seen = ink(picture_of(tenant.http.get(f"{path}/pages/1/image", params={"width": 2000})))
    text = tenant.http.get(f"{path}/pages/1").json()["text"]
    start = text.index(QUOTE)
    (passage,) = tenant.http.get(f"{path}/passages").json()["data"]
    ways = (
        {"start": start, "end": start + len(QUOTE)},
        {"quote": QUOTE},
        {"passage_id": passage["id"]},
        {"passage_id": passage["id"], "quote": "The  harbour\nhandled 4,711 containers in 2023."},
    )
    for way in ways:
        found = tenant.http.get(f"{path}/pages/1/boxes", params=way).json()
        assert (found["object"], found["page"], found["recognised"]) == ("document.page.boxes", 1, False)
        assert (found["width"], found["height"]) == (595, 842)
        assert text[found["start"] : found["end"]] == QUOTE
        (box,) = found["boxes"]
        rectangle = (box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"])
        assert rectangle == pytest.approx(seen, abs=0.004)
    part = tenant.http.get(f"{path}/pages/1/boxes", params={"quote": "4,711 containers"}).json()["boxes"][0]
    assert seen[0] < part["left"] < part["left"] + part["width"] < seen[2]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("cropped", [False, True])
def test_rectangles_follow_the_rotation_and_the_crop_box(tenant, turns: int, *, cropped: bool) -> None:
    extra = b" /Rotate %d" % (90 * turns) + b" /CropBox [50 400 400 750]" * cropped
    path = add(tenant, make_pdf([[Text(72, 700, QUOTE)]], page_extra=extra))
    picture = picture_of(tenant.http.get(f"{path}/pages/1/image", params={"width": 1400}))
    found = tenant.http.get(f"{path}/pages/1/boxes", params={"quote": QUOTE}).json()
    sides = (350, 350) if cropped else (595, 842) if turns % 2 == 0 else (842, 595)
    assert (found["width"], found["height"]) == sides
    assert picture.width / picture.height == pytest.approx(sides[0] / sides[1], abs=0.01)
    (box,) = found["boxes"]
    rectangle = (box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"])
    assert rectangle == pytest.approx(ink(picture), abs=0.006)


def test_a_line_has_one_rectangle_also_over_wide_gaps(tenant) -> None:
    row = [Text(72, 700, "Net sales"), Text(300, 700, "4,711"), Text(500, 700, "8,150")]
    below = [Text(72, 680, "Costs of sales"), Text(300, 680, "1,200"), Text(500, 680, "1,300")]
    path = add(tenant, make_pdf([[*row, *below]]))
    text = tenant.http.get(f"{path}/pages/1").json()["text"]
    found = tenant.http.get(f"{path}/pages/1/boxes", params={"start": 0, "end": len(text)}).json()
    assert len(found["boxes"]) == 2
    assert all(box["width"] > 0.7 for box in found["boxes"])


def test_a_scanned_page_has_rectangles_from_text_recognition(tenant, tmp_path: Path) -> None:
    source = tmp_path / "source.pdf"
    words = ["The lighthouse of Norderney was lit in 1874.", "Its lamp is seen from 23 nautical miles away."]
    source.write_bytes(make_pdf([lines(words, x=20, top=60)], size=(300, 90)))
    path = add(tenant, make_scan(source, 1))
    quote = "seen from 23 nautical miles"
    found = tenant.http.get(f"{path}/pages/1/boxes", params={"quote": quote}).json()
    typed = add(tenant, source.read_bytes())
    expected = tenant.http.get(f"{typed}/pages/1/boxes", params={"quote": quote}).json()
    assert (found["recognised"], expected["recognised"]) == (True, False)
    (box,), (there,) = found["boxes"], expected["boxes"]
    for name in ("left", "top", "width", "height"):
        assert box[name] == pytest.approx(there[name], abs=0.06)
    assert box["left"] < there["left"] + 0.005
    assert box["left"] + box["width"] > there["left"] + there["width"] - 0.005
    again = tenant.http.get(f"{path}/pages/1/boxes", params={"quote": quote}).json()
    assert again == found


def test_a_picture_that_is_a_document_has_pages_and_rectangles(tenant) -> None:
    drawn = picture_of(tenant.http.get(f"{add(tenant)}/pages/1/image", params={"width": 1400}))
    file = io.BytesIO()
    drawn.save(file, "JPEG")
    path = add(tenant, file.getvalue(), filename="photo.jpg", kind="image/jpeg")
    assert picture_of(tenant.http.get(f"{path}/pages/1/image", params={"width": 640})).width == 640
    found = tenant.http.get(f"{path}/pages/1/boxes", params={"quote": "4,711 containers"}).json()
    (box,) = found["boxes"]
    assert found["recognised"]
    assert 0.2 < box["left"] < 0.4
    assert box["top"] == pytest.approx((842 - 711) / 842, abs=0.02)


def test_the_outline_has_bookmarks_with_pages(tenant) -> None:
    path = add(tenant)
    entries = tenant.http.get(f"{path}/outline").json()
    assert entries == {
        "object": "list",
        "data": [{"title": "Figures", "level": 1, "page": 1}, {"title": "Outlook", "level": 1, "page": 2}],
    }
    notes = tenant.add_text("Nothing to see.")
    assert tenant.http.get(f"/v1/rag/documents/{notes}/outline").json() == {"object": "list", "data": []}


def test_documents_without_pictures_say_so_with_a_code(tenant) -> None:
    notes = f"/v1/rag/documents/{tenant.add_text('Some notes on harbours.')}"
    page = add(tenant, b"<html><body><p>Hello harbour</p></body></html>", filename="a.html", kind="text/html")
    for path in (notes, page):
        for route in ("image", "boxes?start=0&end=3"):
            assert error_of(tenant.http.get(f"{path}/pages/1/{route}")) == (404, "page_has_no_picture", None)


def test_what_is_outside_a_document_is_refused(tenant) -> None:
    path = add(tenant)
    for number in (0, 3, 999_999_999_999):
        for route in ("image", "boxes?quote=harbour"):
            assert error_of(tenant.http.get(f"{path}/pages/{number}/{route}"))[:2] == (404, "document_not_found")
    broken = tenant.upload(b"%PDF-1.7 nothing else", filename="broken.pdf").headers["location"]
    for number in (0, 10**15, 10**25):
        for route in ("image", "boxes?quote=harbour"):
            reply = tenant.http.get(f"{broken}/pages/{number}/{route}")
            assert error_of(reply)[1] in {"document_not_found", "damaged"}, reply.text
    refused = {
        "image?width=0": "width",
        "image?width=4001": "width",
        "image?width=x": "width",
        "boxes": "start",
        "boxes?start=3": "end",
        "boxes?start=5&end=5": "end",
        "boxes?start=0&end=100000": "end",
        "boxes?start=0&end=5&quote=The": "start",
        "boxes?quote=submarine": "quote",
        "boxes?passage_id=chunk_000000000000000000000000_0": "passage_id",
        "boxes?passage_id=nonsense": "passage_id",
    }
    for route, param in refused.items():
        assert error_of(tenant.http.get(f"{path}/pages/1/{route}")) == (400, "invalid_request", param), route
    (_, second) = tenant.http.get(f"{path}/passages").json()["data"]
    elsewhere = tenant.http.get(f"{path}/pages/1/boxes", params={"passage_id": second["id"]})
    assert error_of(elsewhere) == (400, "invalid_request", "passage_id")


def test_a_huge_page_stays_within_the_memory_of_its_process(tenant) -> None:
    path = add(tenant, make_pdf([[Text(500, 5000, "Wide harbour", 400)]], size=(10_000, 10_000)))
    picture = picture_of(tenant.http.get(f"{path}/pages/1/image", params={"width": 4000}))
    assert 3000 < picture.width == picture.height
    assert picture.width * picture.height <= 12_000_000
    (box,) = tenant.http.get(f"{path}/pages/1/boxes", params={"quote": "Wide harbour"}).json()["boxes"]
    assert ink(picture)[0] == pytest.approx(box["left"], abs=0.01)


def test_a_protected_pdf_needs_its_password_and_leaves_no_picture(tenant, service) -> None:
    writer = pypdf.PdfWriter(io.BytesIO(REPORT))
    writer.encrypt("geheim", algorithm="AES-256")
    file = io.BytesIO()
    writer.write(file)
    reply = tenant.http.post(
        "/v1/rag/documents",
        params={"wait_s": 60, "filename": "protected.pdf"},
        content=file.getvalue(),
        headers={"content-type": "application/pdf", "x-document-password": "geheim"},
    )
    assert reply.status_code == 201, reply.text
    path = f"/v1/rag/documents/{reply.json()['id']}"
    for route in ("pages/1/image", "pages/1/boxes?quote=harbour", "outline"):
        assert error_of(tenant.http.get(f"{path}/{route}")) == (422, "password_required", None)
        wrong = tenant.http.get(f"{path}/{route}", headers={"x-document-password": "falsch"})
        assert error_of(wrong) == (422, "password_wrong", None)
        right = tenant.http.get(f"{path}/{route}", headers={"x-document-password": "geheim"})
        assert right.status_code == 200
        if route == "pages/1/image":
            assert right.headers["cache-control"] == "private, no-store", (
                "no browser shows it again without the password"
            )
            assert "etag" not in right.headers
    assert kept_files(service.data_dir, reply.json()["sha256"]) == []
    assert error_of(tenant.http.get(f"{path}/pages/1/image")) == (422, "password_required", None)


def kept_files(data_dir: Path, sha256: str) -> list[Path]:
    return [path for path in (data_dir / "page_renditions").rglob(f"{sha256}/*") if path.is_file()]


def test_other_tenants_and_collections_see_nothing(tenant, new_tenant, service) -> None:
    path = add(tenant, collection="private")
    assert tenant.http.get(f"{path}/pages/1/image").status_code == 200
    other = new_tenant()
    with service.client(service.admin_key) as admin:
        body = {"tenant": tenant.name, "label": "narrow", "scopes": ["documents.read"], "allowed_collections": ["open"]}
        narrow = admin.post("/v1/keys", json=body).json()["key"]
        body = {"tenant": tenant.name, "label": "chats only", "scopes": ["chat"]}
        chats = admin.post("/v1/keys", json=body).json()["key"]
    for route in ("pages/1/image", "pages/1/boxes?quote=harbour", "outline"):
        assert error_of(other.http.get(f"{path}/{route}"))[:2] == (404, "document_not_found")
        with service.client(narrow) as client:
            assert error_of(client.get(f"{path}/{route}"))[:2] == (404, "document_not_found")
        with service.client(chats) as client:
            assert client.get(f"{path}/{route}").status_code == 403
        assert httpx.get(f"{service.url}{path}/{route}").status_code == 401


def test_pictures_go_with_their_document(tenant, service) -> None:
    reply = tenant.upload(REPORT, wait_s=60)
    path = f"/v1/rag/documents/{reply.json()['id']}"
    tenant.http.get(f"{path}/pages/1/image")
    folder = service.data_dir / "page_renditions" / tenant.name / reply.json()["sha256"]
    assert [file.name for file in folder.iterdir()] == ["1-picture-1-1000"]
    assert tenant.http.delete(path).status_code == 200
    assert not folder.exists()
    assert error_of(tenant.http.get(f"{path}/pages/1/image"))[:2] == (404, "document_not_found")
    add(tenant)
    with service.client(service.admin_key) as admin:
        assert admin.delete(f"/v1/tenants/{tenant.name}").status_code in (200, 202)
    assert not folder.parent.exists()


def test_a_stored_file_that_is_missing_is_an_error_of_the_service(tenant, service) -> None:
    reply = tenant.upload(REPORT, wait_s=60)
    stored = StoredFiles(service.data_dir)
    (file,) = stored.names(f"blobs/{tenant.name}")
    kept = stored.read(file)
    stored.delete(file)
    path = f"/v1/rag/documents/{reply.json()['id']}"
    assert error_of(tenant.http.get(f"{path}/pages/1/image")) == (500, "stored_data_damaged", None)
    stored.write(file, kept)
    assert tenant.http.get(f"{path}/pages/1/image").status_code == 200


def test_a_pdf_can_be_opened_in_the_browser_and_a_web_page_cannot(tenant) -> None:
    path = add(tenant)
    shown = tenant.http.get(f"{path}/content", params={"inline": True})
    assert shown.content == REPORT
    assert shown.headers["content-disposition"].startswith("inline;")
    assert tenant.http.get(f"{path}/content").headers["content-disposition"].startswith("attachment;")
    page = add(
        tenant, b"<html><body><p>Hi harbour</p><script>1</script></body></html>", filename="a.html", kind="text/html"
    )
    stored = tenant.http.get(f"{page}/content", params={"inline": True})
    assert stored.headers["content-disposition"].startswith("attachment;")
    assert stored.headers["content-security-policy"] == "sandbox"


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[tuple[RunningService, httpx.Client]]:
    """A service whose data directory is encrypted."""
    key_file, memory = tmp_path / "master.key", tmp_path / "memory"
    key_file.write_text("11" * 32)
    key_file.chmod(0o600)
    memory.mkdir()
    environment = {"RAGSVC_MASTER_KEY_FILE": str(key_file), "RAGSVC_MEMORY_DIR": str(memory)}
    data_dir = tmp_path / "data"
    key = create_key(data_dir, settings=environment)
    running = RunningService(data_dir, env=environment)
    try:
        with running.client(key) as client:
            yield running, client
    finally:
        assert running.stop() == 0


def test_pictures_are_encrypted_in_an_encrypted_directory(sealed) -> None:
    running, http = sealed
    reply = http.post(
        "/v1/rag/documents", params={"wait_s": 60}, content=REPORT, headers={"content-type": "application/pdf"}
    )
    path = f"/v1/rag/documents/{reply.json()['id']}"
    first = http.get(f"{path}/pages/1/image")
    assert first.content.startswith(b"\x89PNG")
    (file,) = [file for file in (running.data_dir / "page_renditions").rglob("*") if file.is_file()]
    assert file.read_bytes().startswith(b"RAGSVCE1")
    assert reply.json()["sha256"] not in str(file)
    assert http.get(f"{path}/pages/1/image").content == first.content
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")  # altered: drawn again
    assert http.get(f"{path}/pages/1/image").content == first.content
    assert http.get(f"{path}/pages/1/boxes", params={"quote": QUOTE}).json()["boxes"]
    assert http.delete(path).status_code == 200
    assert not [file for file in (running.data_dir / "page_renditions").rglob("*") if file.is_file()]


class CountingReader:
    """Counts the pages that a parser draws."""

    def __init__(self, parser: ChildParser) -> None:
        self._parser = parser
        self.drawn = 0

    async def draw_page(self, path: Path, page: int, *, width: int, password: str | None = None) -> PagePicture:
        self.drawn += 1
        return await self._parser.draw_page(path, page, width=width, password=password)

    async def page_boxes(
        self,
        path: Path,
        page: int,
        stretch: TextStretch,
        *,
        password: str | None = None,
        known: RecognisedLines | None = None,
    ) -> tuple[PageBoxes, RecognisedLines | None]:
        return await self._parser.page_boxes(path, page, stretch, password=password, known=known)

    async def outline(self, path: Path, *, password: str | None = None) -> list[OutlineEntry]:
        return await self._parser.outline(path, password=password)


def stored(blobs: BlobStore, content: bytes) -> Document:
    """A document whose bytes are in the store."""
    tenant = TenantId("acme")
    incoming = blobs.incoming(limit_bytes=1_000_000)
    incoming.write(content)
    sha256 = incoming.finish()
    blobs.publish(incoming, tenant, sha256)
    return Document(
        id=DocumentId(1),
        public_id="doc_1",
        tenant=tenant,
        collection_id=CollectionId(1),
        collection="default",
        filename="file.pdf",
        media_type="application/pdf",
        size_bytes=len(content),
        sha256=sha256,
        status=DocumentStatus.READY,
        stage=Stage.READY,
        metadata={},
        problems=[],
        created_at=0,
        updated_at=0,
        pages_total=40,
    )


def with_views(tmp_path: Path, max_bytes: int, check) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        parser = ChildParser(ExtractionLimits(), chunk=None, workers=2)
        reader = CountingReader(parser)
        renditions = PageRenditions(blobs, None, max_bytes=max_bytes)
        views = PageViews(blobs=blobs, reader=reader, renditions=renditions, locks=FileLocks())
        document = stored(blobs, text_pdf([[f"Page {number} of harbours"] for number in range(1, 41)]))
        try:
            await check(views, reader, document, blobs)
        finally:
            await parser.close()

    anyio.run(run)


def test_requests_for_the_same_picture_draw_it_once(tmp_path: Path) -> None:
    async def check(views: PageViews, reader: CountingReader, document: Document, _: BlobStore) -> None:
        found: list[bytes] = []

        async def ask(number: int, width: int) -> None:
            found.append(await views.picture(document, number, width=width))

        async with anyio.create_task_group() as tasks:
            for width in (700, 800, 900, 1000) * 4:
                tasks.start_soon(ask, 1, width)
        assert (reader.drawn, len(found), len(set(found))) == (1, 16, 1)
        await ask(2, 1000)
        await ask(1, 1000)
        assert reader.drawn == 2

    with_views(tmp_path, 100_000_000, check)


def test_the_longest_unused_pictures_are_removed_first(tmp_path: Path) -> None:
    async def check(views: PageViews, reader: CountingReader, document: Document, blobs: BlobStore) -> None:
        folder = blobs.rendition_folder(document.tenant, document.sha256)
        for number in range(1, 41):
            await views.picture(document, number, width=160)
            await views.picture(document, 1, width=160)  # stays in use
            assert sum(path.stat().st_size for path in folder.iterdir()) <= 20_000
        kept = {path.name for path in folder.iterdir()}
        assert {"1-picture-1-160", "1-picture-40-160"} <= kept
        assert len(kept) < 40
        assert reader.drawn == 40

    with_views(tmp_path, 20_000, check)


@pytest.mark.parametrize("left", [0, 3, -1])
def test_what_a_power_failure_left_of_a_picture_or_an_outline_is_made_again(tmp_path: Path, left: int) -> None:
    async def check(views: PageViews, reader: CountingReader, document: Document, blobs: BlobStore) -> None:
        picture, outline = await views.picture(document, 1, width=160), await views.outline(document)
        for file in blobs.rendition_folder(document.tenant, document.sha256).iterdir():
            file.write_bytes(file.read_bytes()[:left])
        assert await views.picture(document, 1, width=160) == picture
        assert await views.outline(document) == outline
        assert await views.picture(document, 1, width=160) == picture
        assert reader.drawn == 2

    with_views(tmp_path, 100_000_000, check)


def test_a_picture_that_is_ready_after_its_file_was_removed_is_not_kept(tmp_path: Path) -> None:
    async def check(views: PageViews, _: CountingReader, document: Document, blobs: BlobStore) -> None:
        renditions = PageRenditions(blobs, None, max_bytes=100_000_000)
        blobs.remove(document.tenant, document.sha256)
        renditions.write(document.tenant, document.sha256, "1-picture-1-1000", b"late")
        assert not blobs.rendition_folder(document.tenant, document.sha256).exists()

    with_views(tmp_path, 100_000_000, check)


def test_pictures_of_removed_files_are_forgotten_at_a_start(tmp_path: Path) -> None:
    async def check(views: PageViews, _: CountingReader, document: Document, blobs: BlobStore) -> None:
        await views.picture(document, 1, width=160)
        blobs.path(document.tenant, document.sha256).unlink()
        renditions = PageRenditions(blobs, None, max_bytes=100_000_000)
        renditions.read(document.tenant, document.sha256, "1-picture-1-160")
        assert not blobs.rendition_folder(document.tenant, document.sha256).exists()

    with_views(tmp_path, 100_000_000, check)


class WaitingReader(PageReader):
    """Draws nothing until it may; knows how many files were readable at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.most_files = 0
        self.may_draw = anyio.Event()

    async def draw_page(self, path: Path, page: int, *, width: int, password: str | None = None) -> PagePicture:
        assert path.read_bytes().startswith(b"%PDF")
        await self.may_draw.wait()
        self.most_files = max(self.most_files, len(list(self._folder.iterdir())))
        return PagePicture(b"png", 1, page)


def test_few_files_of_an_encrypted_store_are_in_memory_while_many_pages_wait(tmp_path: Path) -> None:
    async def run() -> None:
        memory = tmp_path / "memory"
        memory.mkdir()
        keys = DataKeys(MasterKeys(MasterKey(b"m" * 32)), b"d" * 32)
        blobs = BlobStore(tmp_path, keys, memory_folder=memory)
        document = stored(blobs, REPORT)
        reader = WaitingReader(memory)
        renditions = PageRenditions(blobs, keys, max_bytes=0)
        views = PageViews(blobs=blobs, reader=reader, renditions=renditions, locks=FileLocks())
        outcomes: list[str] = []

        async def ask(number: int, width: int) -> None:
            try:
                outcomes.append(str(len(await views.picture(document, number, width=width))))
            except Overloaded:
                outcomes.append("overloaded")

        async with anyio.create_task_group() as tasks:
            for number in range(1, 41):
                for width in (160, 320):
                    tasks.start_soon(ask, number, width)
            await anyio.sleep(0.5)
            reader.may_draw.set()
        assert Counter(outcomes) == {"3": 68, "overloaded": 12}
        assert 1 <= reader.most_files <= 4
        assert not list(memory.iterdir())

    anyio.run(run)


def test_many_readers_at_once_get_their_pages(tenant) -> None:
    path = add(tenant, text_pdf([[f"Page {number} of harbours"] for number in range(1, 13)]))
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda number: tenant.http.get(f"{path}/pages/{number}/image"), range(1, 13)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 12
