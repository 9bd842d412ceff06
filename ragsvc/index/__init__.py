"""Derived indexes: FAISS for vectors, tantivy for words. Caches of the rows; never the truth."""
