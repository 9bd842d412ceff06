"""Derived indexes: FAISS for vectors, tantivy for words. Caches that can be rebuilt from the rows at any time."""
