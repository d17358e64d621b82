"""Accounting for a test cluster: slurmdbd, and its own MariaDB, reachable only through a socket.

MariaDB starts on an empty folder, without users, and need not survive a power cut: that is one start of half a second,
where `mariadb-install-db` and a start would take several. Its folder is in memory where there is room, because slurmdbd
makes some sixty tables, and MariaDB waits for the disk a dozen times for each.
"""

from __future__ import annotations

import shutil
from pathlib import Path

PROGRAMS = ("mariadbd", "slurmdbd", "sacctmgr", "sacct")
TABLES = "m*/m*_system_tables.sql"
"""MariaDB's own tables, below /usr/share: older ones call them mysql's. slurmdbd keeps procedures in one of them."""
TUNING = ("performance-schema=0", "sync-frm=0", "innodb-flush-method=nosync", "innodb-flush-log-at-trx-commit=0",
          "innodb-doublewrite=0", "innodb-log-file-size=4M", "innodb-buffer-pool-size=16M", "innodb-file-per-table=0",
          "innodb-autoextend-increment=1", "innodb-temp-data-file-path=ibtmp1:1M:autoextend")
"""Options for a small database that does not wait for the disk. A newer MariaDB ignores options it does not know."""
MEMORY = Path("/dev/shm")
ROOM = 100 * 2**20
"""Bytes that must be free there; about 25 MB are used."""


def database_folder(scratch: Path) -> Path:
    """The folder of the database of the cluster with this scratch folder."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY / scratch.name if roomy else scratch / "database"


def mariadbd(folder: Path) -> list[str]:
    """Creates the database's folder. Returns the command that starts it there."""
    folder.mkdir(mode=0o700)  # in a folder of everybody: not one that exists
    (folder / "data").mkdir()
    tables = folder / "tables.sql"
    tables.write_text("CREATE DATABASE mysql;\nUSE mysql;\n" + next(Path("/usr/share").glob(TABLES)).read_text())
    (folder / "temporary").mkdir()  # not /tmp: each MariaDB that starts deletes the temporary tables it finds
    return ["mariadbd", "--no-defaults", "--user=root", f"--datadir={folder}/data", f"--tmpdir={folder}/temporary",
            f"--socket={folder}/socket", f"--pid-file={folder}/pid", f"--init-file={tables}", "--skip-networking",
            "--skip-grant-tables", *(f"--loose-{option}" for option in TUNING)]


def slurmdbd(database: Path, slurm_conf: Path) -> list[str]:
    """The command that starts slurmdbd with the slurmdbd.conf beside this slurm.conf."""
    return ["env", f"SLURM_CONF={slurm_conf}", f"MYSQL_UNIX_PORT={database}/socket", "slurmdbd", "-D"]


def slurmdbd_conf(*, folder: Path, scratch: Path, port: int, munge_socket: Path) -> str:
    return f"""\
AuthType=auth/munge
AuthInfo=socket={munge_socket}
DbdHost=localhost
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={scratch}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""


def slurm_conf(*, port: int, munge_socket: Path, gather: str) -> str:
    """The lines of slurm.conf about accounting; `gather` is the plugin that measures the resources of jobs."""
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStoragePass={munge_socket}
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/{gather}
JobAcctGatherFrequency=10
"""
