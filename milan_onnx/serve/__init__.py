"""HTTP: describing and scoring on demand, batched across requests; runs as jobs and to browse.

The only place outside the inside of the command `serve` that imports FastAPI (extra `serve`), so it
is never imported by the rest of the package.
"""
