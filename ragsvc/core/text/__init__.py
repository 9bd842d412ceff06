"""Text: sentences, languages, stop words, word prefixes, chunking, and the text that is embedded."""
