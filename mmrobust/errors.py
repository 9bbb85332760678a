"""Mistakes that a user can mend: one exception, and how commands show it."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# What a disk does: to be told with the path, and what to do.
DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or choose another folder with paths.outputs"),
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR),
        "make room, make it writable, or choose another folder with paths.outputs",
    ),
    errno.ENOENT: "was it moved or removed meanwhile? A folder that was moved goes on with resume=<where it is>",
    errno.EEXIST: "is it a link to what is not there? Remove it, or choose another folder with paths.outputs",
    errno.ENAMETOOLONG: "choose a shorter name with paths.run or paths.outputs",
    errno.ELOOP: "it is a link, and none is followed there; remove it",
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "each data worker needs some: allow more open files (ulimit -n 4096), or set data.workers=0",
    ),
}

NO_MEMORY = ("DefaultCPUAllocator: ", "CUDA out of memory", "Invalid buffer size")  # torch's RuntimeErrors

# Packages whose errors are told in a line.
LIBRARIES = (
    *(
        "hydra",
        "omegaconf",
        "antlr4",
        "yaml",
        "lightning",
        "pytorch_lightning",
        "torch",
        "torchmetrics",
        "torchvision",
    ),
    *(
        "timm",
        "numpy",
        "PIL",
        "cv2",
        "soundfile",
        "scipy",
        "h5py",
        "albumentations",
        "matplotlib",
        "optuna",
        "sqlalchemy",
    ),
)
WHOLE = (
    "hydra.errors",
    "omegaconf.errors",
    "lightning.fabric.utilities.exceptions",
)  # whose text says it all

HIDDEN = "MMROBUST_HIDDEN"  # what a configuration hides, for the processes that a command starts: key -> value, as JSON
STARS = "***"

# key=value, or {key: value}
SECRET = re.compile(
    r"(?i)((?:(?:^|[\s._+{,'\"])(?:WORDS)=|[{,]\s*(?:WORDS):\s*))(?!\$\{)[^\s,;}'\"]+".replace(
        "WORDS", "api_?key|token|secret|password|passwd|pwd|credentials?"
    )
)

# What a stream says that nobody reads, or has no room.
UNREAD = (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """A mistake in the command line, the configuration, the data or a file of the user's.

    Its text says what was found, what was expected and what to do next, but no password. Commands print it without
    a traceback and exit with status 2.
    """

    def __init__(self, text: str) -> None:
        text = masked(text)
        marker = f"{__name__}.UserError: "
        if text.startswith("Caught UserError in ") and marker in text:  # torch's wrapping of a worker's error
            super().__init__(text.rpartition(marker)[2].strip())
            self.add_note(text)
        else:
            super().__init__(text)


class DivergenceError(UserError):
    """A loss that is no number: the same settings would end there again."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A signal ended the run after its state was saved."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.status = 128 + number


class Problems(list[str]):
    """What is wrong, collected so that it is said all at once. Its text is the only problem, or a list of them."""

    def add(self, what: str, found: Sequence[str], remedy: str) -> None:
        """Add a problem, if anything was found to have it: how many, and the first few."""
        if found:
            self.append(f"{what}: {summarised(found)}; {remedy}")

    def __str__(self) -> str:
        return self.listed() if len(self) > 1 else "".join(self)

    def listed(self) -> str:
        """A line for each."""
        return "\n".join(f"- {problem}" for problem in self)


def as_user_error(error: BaseException | None) -> UserError | None:
    """What is a user's mistake although another library found it: a configuration that cannot be, a disk."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in DISK:
        return UserError(
            f"{error.filename or 'a file'} cannot be used: {error.strerror}; {DISK[error.errno]}"
        )
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        what = " ".join(str(error).split()).partition(". ")[0]
        return UserError(
            f"there is not enough memory: {what or 'this machine has none left'}; make data.batch_size, the inputs or the "
            "encoders smaller, or their numbers"
        )
    if isinstance(error, RuntimeError | EOFError) and (lost := _lost_worker(error)):
        return lost
    if type(error).__module__ in WHOLE:
        inner = as_user_error(error.__cause__) if error else None  # Hydra wraps what a constructor raises
        lines = (line.strip() for line in str(error).splitlines())
        return inner or UserError("; ".join(line for line in lines if line))
    if isinstance(error, Exception) and (place := _in_library(error)):
        text = " ".join(str(error).split())
        return UserError(f"{type(error).__name__}: {text[:500]} ({place}; --traceback shows all)")
    return None


def _lost_worker(error: BaseException) -> UserError | None:
    """What torch says of a data worker that is no more."""
    text = str(error)
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        why = "killed, as a system does that has no memory left" if "Killed" in text else "lost"
        return UserError(
            f"a data worker was {why}: {text.splitlines()[0]} Set data.workers lower, or to 0, or give the machine more "
            "memory, shared memory (docker run --shm-size=8g) or open files (ulimit -n 4096); the same command goes on"
        )
    if "ancdata" in text or "Too many open files" in text:
        return UserError(f"too many files are open: {DISK[errno.EMFILE]}")
    return None


def _in_library(error: BaseException) -> str | None:
    """Where of ours or the user's an error comes from that one of LIBRARIES raised; none if it is another's."""
    frames = [
        (f.f_globals.get("__name__", ""), f.f_code, n) for f, n in traceback.walk_tb(error.__traceback__)
    ]
    roots = [str(name).partition(".")[0] for name, _, _ in frames]
    foreign = [root not in sys.stdlib_module_names for root in roots]
    last = next((root for root, yes in zip(reversed(roots), reversed(foreign), strict=True) if yes), "")
    if type(error).__module__.partition(".")[0] not in LIBRARIES and last not in LIBRARIES:
        return None
    own = [
        f"{code.co_filename}:{line}"
        for root, yes, (_, code, line) in zip(roots, foreign, frames, strict=True)
        if yes and root not in LIBRARIES
    ]
    return f"at {own[-1]}" if own else None


class _Output:
    """A stream that nobody may read any more: what is written then is lost, and the program goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._going_on():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._going_on():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in UNREAD:
                raise
            with suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def unread_output() -> Iterator[None]:
    """Within, it does not matter whether anybody reads what is printed: a pipe may close, a terminal go away."""
    before = sys.stdout, sys.stderr
    ours: Any = tuple(None if stream is None else _Output(stream) for stream in before)
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:
        for stream in ours:
            if stream is not None:
                stream.flush()
        if (sys.stdout, sys.stderr) == ours:
            sys.stdout, sys.stderr = before


def guarded(command: Callable[[], int]) -> int:
    """Run a command; a user's mistake is one message and status 2 (with MMROBUST_TRACEBACK set, its traceback
    too), Ctrl-C is status 130. A mistake of ours keeps its traceback. Output that nobody reads ends nothing."""
    with unread_output():
        return _guarded(command)


def _guarded(command: Callable[[], int]) -> int:
    try:
        return command()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        if os.environ.get("MMROBUST_TRACEBACK"):
            traceback.print_exc()
        text = printable(str(mistake))
        print(f"errors:\n{text}" if text.startswith("- ") else f"error: {text}", file=sys.stderr)
        return 2


def masked(text: str) -> str:
    """The same without what an address says about who asks, `mysql://***@host/db`, what secret keys are set to, and what
    the configuration hides."""
    text = re.sub(r"(?<=://)[^/\s]+@", "***@", text)
    text = re.sub(r"(?i)(?<=[?&])(password|passwd|pwd|token|key)=[^&\s]+", r"\1=***", text)
    text = SECRET.sub(rf"\1{STARS}", text)
    for value in json.loads(os.environ.get(HIDDEN, "{}")).values():
        text = text.replace(value, STARS) if len(value) > 3 else text
    return text


def printable(text: str) -> str:
    """The same without what a terminal, or a reader of the text, would take to be more than a letter: escapes, control
    characters, marks that turn the direction of writing. Lines stay lines."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else "\ufffd"
        for c in text
    )


def one_of(key: str, value: object, known: Sequence[str]) -> None:
    """Raises: UserError: `key` has a value that is none of the known."""
    if value not in known:
        raise UserError(f"{key}={value!r} is not known; choose {', '.join(known)}")


def summarised(found: Sequence[str]) -> str:
    """How many, and the first three."""
    return f"{len(found)} ({', '.join(found[:3])}{', …' if len(found) > 3 else ''})"
