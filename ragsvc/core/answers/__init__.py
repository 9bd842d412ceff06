"""Answers: the RAG prompt, citations, and the built-in extractive answerer."""
