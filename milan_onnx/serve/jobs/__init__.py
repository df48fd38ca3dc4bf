"""Whole-model runs over HTTP: a job is described by a process of its own.

The server process opens no graph. It takes a request (`request`, `uploads`, `places`), keeps it
(`store`, `folders`), and starts a worker for it (`runner`, `child`, `worker`) that limits itself
(`confine`) and tells what it does as lines of JSON (`telling`), which become the job's events
(`events`). What a run found is read back by `browsing`; `desk` makes answers of all this, and
`routes` is their HTTP.

    STORE/index.sqlite               the index: what is asked of all jobs at once
    STORE/runs/ID/request.json       what was asked for
    STORE/runs/ID/upload/NAME.onnx   the model, where it was uploaded
    STORE/runs/ID/photos.zip         the photos, where they were uploaded
    STORE/runs/ID/events.jsonl       what was told, a line an event
    STORE/runs/ID/log.txt            stderr of the workers
    STORE/runs/ID/run/               the run itself
    STORE/runs/ID/outcome.json       how it ended

The folders are the truth: an index that is lost is made again from them.
"""
