"""Readers of files that are not PDFs: Office documents, web pages, books, tables, messages and pictures."""
