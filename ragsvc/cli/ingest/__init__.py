"""``ragsvc ingest``: folders of files become documents."""
