"""What is known of jobs: an index in SQLite, and the folders that it is made from.

One process writes (a lock on the store names it). Where the index and a folder disagree the folder
is right: `Store` makes the index again when it cannot be read, and takes in what it lacks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from milan_onnx.errors import EnvironmentUnfit, OutputUnwritable, UsageError
from milan_onnx.files import unwritable, write_json
from milan_onnx.serve.jobs.folders import OUTCOME, REQUEST, drop_leftovers, is_run

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})

INDEX = "index.sqlite"
LOCK = "lock"
RUNS = "runs"
INCOMING = ".incoming-"
VERSION = 1
OUTCOME_KEYS = ("state", "started", "finished", "error", "summary")

SCHEMA = """
create table if not exists jobs (
    id text primary key,
    created real not null,
    state text not null,
    record text not null
);
create index if not exists jobs_by_age on jobs (created, id);
create index if not exists jobs_by_state on jobs (state, created, id);
"""


@dataclass(frozen=True)
class Job:
    """One job."""

    id: str
    """Its name in addresses and in the store."""

    name: str
    """What people call it."""

    created: float
    """When it was asked for, Unix seconds."""

    request: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for (`milan_onnx.serve.jobs.request.RunRequest`), paths resolved."""

    state: State = "queued"
    """queued, running, done, failed or cancelled."""

    started: float | None = None
    """When its last worker was started."""

    finished: float | None = None
    """When it ended."""

    starts: int = 0
    """How many workers were started for it: more than one where it was interrupted."""

    crashes: int = 0
    """How many of them died of something that was not the service's doing."""

    worker: tuple[int, int] | None = None
    """Process id of its worker and when that began (in the kernel's count); None: it has none."""

    progress: Mapping[str, Any] | None = None
    """The last that was told of it: stage, done, total, unit, rate, left."""

    error: Mapping[str, str] | None = None
    """``error`` and ``hint`` where it failed."""

    summary: Mapping[str, int] | None = None
    """layers, units, described and abstained, where it is done."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


class Store:
    """The jobs of a service."""

    def __init__(self, root: Path) -> None:
        """Open a store; it is made where there is none.

        Raises EnvironmentUnfit where another service uses it, OutputUnwritable.
        """
        self.root = root.absolute()
        self.runs = self.root / RUNS
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            self._lock_file = _locked(self.root / LOCK)
        except OSError as error:
            raise unwritable(self.root, error) from error
        self._lock = threading.Lock()
        self._index = self._opened()
        self._take_in()

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._index.close()
        os.close(self._lock_file)

    def folder(self, job: str) -> Path:
        """Where a job's data are."""
        return self.runs / job

    def incoming(self) -> Path:
        """A folder for what a request brings, until `add`. Raises OutputUnwritable."""
        place = self.runs / f"{INCOMING}{secrets.token_hex(8)}"
        try:
            place.mkdir()
        except OSError as error:
            raise unwritable(place, error) from error
        return place

    def add(self, name: str, request: Mapping[str, Any], incoming: Path) -> Job:
        """Take in a job whose files are complete. Raises OutputUnwritable."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        job = Job(f"{stamp}-{secrets.token_hex(4)}", name, now, dict(request))
        facts = {"version": VERSION, "id": job.id, "name": name, "created": now}
        write_json(incoming / REQUEST, facts | {"request": dict(request)})
        try:
            incoming.rename(self.folder(job.id))
        except OSError as error:
            raise unwritable(self.folder(job.id), error) from error
        self._put(job)
        return job

    def get(self, job: str) -> Job | None:
        """A job; None where there is none of that id."""
        with self._lock:
            row = self._index.execute("select record from jobs where id = ?", (job,)).fetchone()
        return None if row is None else _read_record(row[0])

    def update(self, job: Job, **changes: Any) -> Job:
        """Change what is known of a job; one that ends leaves an outcome in its folder."""
        changed = replace(job, **changes)
        if changed.ended:
            outcome = {key: getattr(changed, key) for key in OUTCOME_KEYS}
            # The outcome is a line of the record too: a full disk must not keep a job from ending.
            with contextlib.suppress(EnvironmentUnfit):
                write_json(self.folder(job.id) / OUTCOME, outcome)
        self._put(changed)
        return changed

    def remove(self, job: Job) -> None:
        """Forget a job and delete its folder."""
        grave = self.runs / f"{INCOMING}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            self.folder(job.id).rename(grave)
        with self._lock, self._index:
            self._index.execute("delete from jobs where id = ?", (job.id,))
        shutil.rmtree(grave, ignore_errors=True)

    def in_state(self, *states: State) -> list[Job]:
        """Jobs in one of some states, oldest first."""
        marks = ",".join("?" * len(states))
        query = f"select record from jobs where state in ({marks}) order by created, id"
        with self._lock:
            rows = self._index.execute(query, states).fetchall()
        return [_read_record(row[0]) for row in rows]

    def ages(self, state: str | None = None) -> list[tuple[float, str]]:
        """When each job (in a state) was asked for, and its id."""
        where = "" if state is None else " where state = ?"
        with self._lock:
            rows = self._index.execute(
                f"select created, id from jobs{where}", () if state is None else (state,)
            )
            return [(float(created), str(job)) for created, job in rows.fetchall()]

    def before(self, job: Job) -> int:
        """How many queued jobs are older."""
        query = "select count(*) from jobs where state = 'queued' and (created, id) < (?, ?)"
        with self._lock:
            return int(self._index.execute(query, (job.created, job.id)).fetchone()[0])

    def count(self, state: State) -> int:
        """How many jobs are in a state."""
        with self._lock:
            query = "select count(*) from jobs where state = ?"
            return int(self._index.execute(query, (state,)).fetchone()[0])

    def _put(self, job: Job) -> None:
        record = json.dumps(vars(job), sort_keys=True)
        try:
            with self._lock, self._index:
                self._index.execute(
                    "insert into jobs values (?, ?, ?, ?) on conflict (id) do update set "
                    "state = excluded.state, record = excluded.record",
                    (job.id, job.created, job.state, record),
                )
        except sqlite3.OperationalError as error:
            raise OutputUnwritable(
                f"cannot write the index of jobs: {error}", hint="free space on the service's disk"
            ) from error

    # --- the index and the folders --------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        path = self.root / INDEX
        try:
            return _connected(path)
        except sqlite3.DatabaseError:
            for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm"):
                (self.root / name).unlink(missing_ok=True)
            return _connected(path)

    def _take_in(self) -> None:
        """Make the index agree with the folders."""
        kept = set()
        for folder in sorted(self.runs.iterdir()):
            if folder.name.startswith(INCOMING):
                shutil.rmtree(folder, ignore_errors=True)
            elif (folder / REQUEST).is_file():
                kept.add(folder.name)
                known = self.get(folder.name)
                found = known if known and not _outdated(known, folder) else _from_folder(folder)
                if found is not None and found != known:
                    self.update(found)
        for _, job in self.ages():
            if job not in kept:
                with self._lock, self._index:
                    self._index.execute("delete from jobs where id = ?", (job,))


def _connected(path: Path) -> sqlite3.Connection:
    index = sqlite3.connect(path, check_same_thread=False)
    try:
        index.execute("pragma journal_mode = wal")
        index.execute("pragma synchronous = normal")
        index.executescript(SCHEMA)
        if index.execute("pragma quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged")
        if index.execute("pragma user_version").fetchone()[0] not in (0, VERSION):
            raise sqlite3.DatabaseError("of another version")
        index.execute(f"pragma user_version = {VERSION}")
    except BaseException:
        index.close()
        raise
    return index


def _locked(path: Path) -> int:
    """A lock that lasts as long as this process."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise EnvironmentUnfit(
            f"the store {path.parent} is used by another service (process {owner})",
            hint="stop that one, or give another --store",
        ) from error
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _outdated(job: Job, folder: Path) -> bool:
    """Whether a folder says that a job has ended, and the index does not know it."""
    return not job.ended and ((folder / OUTCOME).is_file() or is_run(folder))


def _from_folder(folder: Path) -> Job | None:
    """A job as its folder tells it; None where the folder is not a job's."""
    request = _json(folder / REQUEST)
    try:
        job = Job(folder.name, str(request["name"]), float(request["created"]), request["request"])
    except (KeyError, TypeError, ValueError):
        return None
    outcome = _json(folder / OUTCOME)
    if outcome.get("state") in ENDED:
        return Job(**{**vars(job), **{key: outcome.get(key) for key in OUTCOME_KEYS}})
    if is_run(folder):
        drop_leftovers(folder)
        return replace(job, state="done", finished=folder.stat().st_mtime)
    return job


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_record(text: str) -> Job:
    value = json.loads(text)
    if value.get("worker"):
        value["worker"] = tuple(value["worker"])
    return Job(**value)


@contextlib.contextmanager
def taken_in(store: Store) -> Iterator[Path]:
    """A folder for what a request brings, which is gone unless `Store.add` took it."""
    place = store.incoming()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_place(store: Path, allow: tuple[Path, ...]) -> None:
    """Raise UsageError where an allowed folder holds the store: its uploads would be readable."""
    for folder in allow:
        if not folder.is_dir():
            raise UsageError(
                f"the allowed folder {folder} is not there", hint="make it, or mend it"
            )
        if store.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"the store {store} lies inside the allowed folder {folder}",
                hint="give a --store outside of it",
            )
