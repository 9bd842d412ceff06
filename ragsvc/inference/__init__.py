"""Embedding and reranking models behind the ports ``Embedder``, ``TokenSpans`` and ``Reranker``.

Importing these modules loads neither a model nor torch. The entry point is ``factory.open_embedder``.
"""
