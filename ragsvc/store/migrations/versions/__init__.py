"""Alembic loads the files of this folder by path; it is a package so that wheels contain them."""
