"""Limits and chunking of the parser, and the tokenizer that the parser and the service use."""

from __future__ import annotations

import msgspec

from ragsvc.config import Settings
from ragsvc.core.gateway.chat import CountTokens
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.ports.parsing import ChunkingOptions, ExtractionLimits, TokenSpans
from ragsvc.extract.child_protocol import ChunkingPlan
from ragsvc.inference.factory import open_token_spans
from ragsvc.inference.model_files import read_model
from ragsvc.inference.tokens import TokenizerSpans
from ragsvc.services.attached_documents import AttachmentLimits

_SPLIT_PAGES = "ragsvc.core.text.chunking:split_pages"
_MAX_CHAT_OCR_PAGES = 20
"""Pages of a file in a chat request whose text is recognised; a page takes seconds."""
_PAGE_TIMEOUT_S = 60.0
_LOAD_TOKENS = "ragsvc.inference.tokens:TokenizerSpans"


def open_tokenizer(settings: Settings) -> TokenizerSpans:
    return open_token_spans(settings.embedding_model, data_dir=settings.data_dir)


def text_counter(tokens: TokenSpans) -> CountTokens:
    """The function that counts the tokens of one text."""
    return lambda text: tokens.count([text])[0]


def extraction_limits(settings: Settings) -> ExtractionLimits:
    return ExtractionLimits(
        timeout_s=settings.parse_timeout_s,
        memory_bytes=settings.parse_memory_bytes,
        max_pages=settings.max_pages,
        ocr=settings.ocr == "auto",
        ocr_max_pages=settings.ocr_max_pages,
        max_attachments=AttachmentLimits().documents if settings.attachments else 0,
    )


def chat_file_limits(settings: Settings) -> ExtractionLimits:
    """The limits of a file in a chat request, for which somebody waits."""
    return msgspec.structs.replace(
        extraction_limits(settings),
        timeout_s=settings.chat_file_timeout_s,
        max_pages=settings.chat_file_pages,
        ocr_max_pages=min(settings.ocr_max_pages, _MAX_CHAT_OCR_PAGES),
        max_attachments=0,
    )


def page_limits(settings: Settings) -> ExtractionLimits:
    """The limits of showing a page, for which somebody waits."""
    return msgspec.structs.replace(
        extraction_limits(settings), timeout_s=min(settings.parse_timeout_s, _PAGE_TIMEOUT_S)
    )


def chunking_plan(settings: Settings, model: EmbeddingModel) -> ChunkingPlan:
    room = model.max_tokens - 2  # the model adds a special token at the start and at the end
    wanted = settings.passage_tokens or ChunkingOptions().max_tokens
    tokenizer = read_model(settings.embedding_model, data_dir=settings.data_dir).tokenizer_file
    return ChunkingPlan(
        split=_SPLIT_PAGES,
        load_tokens=_LOAD_TOKENS,
        tokenizer=str(tokenizer),
        options=ChunkingOptions(max_tokens=min(wanted, room)),
    )
