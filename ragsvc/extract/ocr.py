"""Text recognition on page images: PP-OCRv6 through rapidocr, with the models of its wheel, on this machine only.

Owns the engine. A child loads it for its first page without text; it uses one thread and never the network (model files
are named by path; a missing file is an error, not a download). The work per page is limited by pixels and by the total
width of the recognised lines, not by time, so that a file always gives the same text. Knows nothing of PDFs
(``page_image``) and of how lines become text (``ocr_layout``).
"""

from __future__ import annotations

import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.extract.page_image import PixelArray

_MODELS = {
    "Det.model_path": "PP-OCRv6_det_small.onnx",
    "Rec.model_path": "PP-OCRv6_rec_small.onnx",
    "Cls.model_path": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}
_MODEL_SHA256 = {
    "PP-OCRv6_det_small.onnx": "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    "PP-OCRv6_rec_small.onnx": "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    "ch_ppocr_mobile_v2.0_cls_mobile.onnx": "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
}
"""The models of the wheel rapidocr 3.10.0. Comparing them takes 0.08 s, loading them 0.7 s."""

_SETTINGS: dict[str, Any] = {
    "Global.log_level": "critical",
    "Global.use_vertical_padding": False,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "Det.limit_type": "max",
    "Det.limit_side_len": 1280,
    # batches of one avoid padding to the widest line: 1.2 times the speed and half the memory of six, on one thread
    "Rec.rec_batch_num": 1,
    "Rec.rec_img_shape": [3, 48, 160],
}
_MIN_SCORE = 0.6
_MIN_HEIGHT = 5
_MAX_LINE_WIDTH = 60
_MAX_PAGE_WIDTH = 12_000
_SAMPLED_LINES = 12
_SAMPLED_WIDTH = 5
_TALL = 1.5

Points = npt.NDArray[np.float32]
"""``(4, 2)`` float32, pixels: top left, top right, bottom right and bottom left of the line in the image."""


class OcrUnavailable(Exception):
    """Text recognition is not installed or does not start; the message has the reason."""


class OcrLine(msgspec.Struct, frozen=True):
    """A recognised line with its corners, clockwise from the top left in the image. ``score`` is from 0 to 1.

    ``middles`` are the middles of its characters without spaces, as fractions of its length; empty if not asked for.
    """

    text: str
    corners: Points
    score: float = 1.0
    middles: tuple[float, ...] = ()


class Recognised(msgspec.Struct, frozen=True):
    """The lines of an image. ``turns`` is the number of clockwise quarter turns that make the text upright."""

    lines: list[OcrLine] = []
    turns: int = 0
    truncated: bool = False


class Recogniser:
    """The engine, one for each process (``open_recogniser``). Not thread-safe."""

    def __init__(self) -> None:
        """Load the engine.

        Raises:
            OcrUnavailable: rapidocr or a model is missing or broken.
        """
        try:
            self._engine = _start_engine()
        except (OcrUnavailable, MemoryError):
            raise
        except Exception as error:
            raise OcrUnavailable(f"rapidocr cannot be used ({type(error).__name__}: {error})") from error
        logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)

    def read(self, image: PixelArray, *, positions: bool = False) -> Recognised:
        """Detect and recognise the lines of an image, ``(height, width, 3)`` uint8 BGR, in no particular order.

        ``positions``: also where the characters of the lines are.
        """
        try:
            crops, found = self._engine.detect_and_crop(image, {})
        except Exception as error:
            if type(error).__name__ == "RapidOCRError":  # rapidocr raises it if it detects no text
                return Recognised()
            raise
        boxes = [
            (crop, corners)
            for crop, corners in zip(crops, np.asarray(found.boxes, np.float32), strict=True)
            if min(crop.shape[:2]) >= _MIN_HEIGHT
        ]
        kept, truncated = _affordable(boxes)
        if not kept:
            return Recognised(truncated=truncated)
        crops = [crop for crop, _ in kept]
        turned = self._upside_down(crops)
        if turned:
            crops = [np.ascontiguousarray(crop[::-1, ::-1]) for crop in crops]
        self._engine.return_word_box = positions
        texts = self._engine.recognize_txt(crops)
        words = texts.word_results if positions else [None] * len(kept)
        lines = [
            OcrLine(text, corners, float(score), _middles(word))
            for (_, corners), text, score, word in zip(kept, texts.txts, texts.scores, words, strict=True)
            if score >= _MIN_SCORE and text.strip()
        ]
        return Recognised(lines, _turns(lines, upside_down=turned), truncated)

    def read_line(self, image: PixelArray) -> str:
        """Recognise an image of a single line, without detection."""
        texts = self._engine.recognize_txt([image])
        return str(texts.txts[0]) if texts.txts else ""

    def _upside_down(self, crops: list[PixelArray]) -> bool:
        """Whether the text is upside down, judged by the longest lines; short lines often mislead the classifier.

        The classifier scales its input to 192 x 48 pixels, so it gets only the first words of long lines.
        """
        longest = sorted(crops, key=_relative_width, reverse=True)[:_SAMPLED_LINES]
        _, found = self._engine.cls_and_rotate([crop[:, : _SAMPLED_WIDTH * crop.shape[0]] for crop in longest])
        votes = sum(score if "180" in label else -score for label, score in found.cls_res)
        return bool(votes > 0)


def _start_engine() -> Any:  # noqa: ANN401 - rapidocr has no types
    import cv2  # noqa: PLC0415 - 0.7 s and 70 MB, only if a page needs it
    import rapidocr  # noqa: PLC0415 - as above

    models = Path(rapidocr.__file__).parent / "models"
    paths = {setting: models / name for setting, name in _MODELS.items()}
    for path in paths.values():
        _check_model(path)
    cv2.setNumThreads(1)
    return rapidocr.RapidOCR(params=_SETTINGS | {key: str(path) for key, path in paths.items()})


def _check_model(path: Path) -> None:
    """Raise ``OcrUnavailable`` if the file is missing or not the model of this name."""
    if not path.is_file():
        raise OcrUnavailable(f"the rapidocr package lacks the model {path.name}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _MODEL_SHA256[path.name]:
        raise OcrUnavailable(
            f"the model {path.name} of the rapidocr package has the wrong SHA-256: it was changed, or belongs to a "
            "version of rapidocr that this release does not know"
        )


def _middles(words: Any) -> tuple[float, ...]:  # noqa: ANN401 - rapidocr has no types
    """The middles of characters as fractions of a line, from the columns in which the network saw them."""
    if words is None or not words.line_txt_len:
        return ()
    columns = [column for word in words.word_cols for column in word]
    return tuple(min(1.0, (column + 0.5) / words.line_txt_len) for column in columns)


@cache
def open_recogniser() -> Recogniser:
    """The engine, loaded once in each process. Raises ``OcrUnavailable`` (every call tries again)."""
    return Recogniser()


def _relative_width(crop: PixelArray) -> float:
    return float(crop.shape[1] / crop.shape[0])


def _affordable(boxes: list[tuple[PixelArray, Points]]) -> tuple[list[tuple[PixelArray, Points]], bool]:
    """The lines within the page's width budget, without frames and rules; ``True`` if lines were left out."""
    kept: list[tuple[PixelArray, Points]] = []
    width = 0.0
    for crop, corners in boxes:
        relative = _relative_width(crop)
        if relative > _MAX_LINE_WIDTH:
            continue
        width += max(relative, 160 / 48)
        if width > _MAX_PAGE_WIDTH:
            return kept, True
        kept.append((crop, corners))
    return kept, False


def _turns(lines: list[OcrLine], *, upside_down: bool) -> int:
    """Clockwise quarter turns that make the text upright; rapidocr turns tall boxes counter-clockwise."""
    tall = sum(len(line.text) * (1 if _is_tall(line.corners) else -1) for line in lines) > 0
    if tall:
        return 1 if upside_down else 3
    return 2 if upside_down else 0


def _is_tall(corners: Points) -> bool:
    width = max(np.linalg.norm(corners[0] - corners[1]), np.linalg.norm(corners[2] - corners[3]))
    height = max(np.linalg.norm(corners[0] - corners[3]), np.linalg.norm(corners[1] - corners[2]))
    return bool(height >= _TALL * width)
