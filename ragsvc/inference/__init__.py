"""Embedding and reranking models behind the ports ``Embedder``, ``TokenSpans`` and ``Reranker``.

Importing anything here loads no model and no torch; ``factory.open_embedder`` is the way in.
"""
