"""The documentation site: `pages` collects what it is built of, `api` writes the reference, `__main__` builds it."""
