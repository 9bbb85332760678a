"""A Slurm of one machine, for tests: `with cluster(folder) as environment:`; `python -m tests.slurm <folder>`.

Debian: `apt-get install --no-install-recommends slurm-wlm munge`, as root. Everything lies in the folder; two
partitions, `low` and `high`, of which jobs in the second push out those of the first, which are queued again.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NEEDED = (
    "munged",
    "mungekey",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "scontrol",
    "sinfo",
    "squeue",
    "scancel",
)

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port_of_node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MpiDefault=none
ReturnToService=2
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} PriorityTier=1 Default=YES MaxTime=60 GraceTime=10 State=UP
PartitionName=high Nodes={host} PriorityTier=10 MaxTime=60 State=UP
"""


def absent() -> str:
    """Why there can be no Slurm here; empty if there can."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    if missing := [name for name in NEEDED if not shutil.which(name, path=path)]:
        return f"no {', '.join(missing)}: apt-get install --no-install-recommends slurm-wlm munge"
    return "" if os.getuid() == 0 else "slurmd is started as root here"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start Slurm with its files in a folder, which must be new; stop it with all its jobs.

    Yields:
        The environment for its commands.
    """
    host = socket.gethostname().partition(".")[0]
    port, port_of_node = _free_ports()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    cores = len(os.sched_getaffinity(0))
    conf = CONF.format(host=host, folder=folder, cores=cores, port=port, port_of_node=port_of_node)
    (folder / "slurm.conf").write_text(conf)
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    subprocess.run(["mungekey", "--create", f"--keyfile={folder}/munge.key"], env=environment, check=True)
    munged = ["munged", "--foreground", "--force"]
    munged += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "seed")]
    commands = [
        [*munged, f"--socket={folder}/munge.socket"],
        ["slurmctld", "-D", "-i"],
        ["slurmd", "-D", "-N", host],
    ]
    with ExitStack() as stack, (folder / "daemons.log").open("w") as log:
        for command in commands:
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(_stop, daemon)
            time.sleep(0.5)
        _wait_until_idle(environment, folder)
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--user=root"], env=environment, check=False)
            for _ in range(30):
                if not call(environment, "squeue", "--noheader"):
                    break
                time.sleep(0.5)


def call(environment: dict[str, str], *command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        state = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
        if "idle" in state.stdout.split():
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text() for path in folder.glob("*.log"))
    raise RuntimeError(f"Slurm did not start:\n{logs}")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        return a.getsockname()[1], b.getsockname()[1]


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


if __name__ == "__main__":
    with cluster(Path(sys.argv[1]).resolve()) as variables:
        print(f"export SLURM_CONF={variables['SLURM_CONF']}; Ctrl-C stops it", flush=True)
        subprocess.run(["sleep", "infinity"], check=False)
