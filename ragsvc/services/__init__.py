"""Use cases: ingest, documents, search, answers, access. They know ports and the store, never HTTP."""
