"""What the test cluster and the test daemon share: processes that outlive the command, and what a host has to show afterwards."""

import contextlib
import fcntl
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HERE = pathlib.Path(__file__).resolve().parent


class Failure(Exception):
    """The end of the command, with what its user needs to know."""


def exit_with(main):
    """Exit codes: what `main` returns, 2 where the command line is wrong, 3 where it could not be done."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        say(str(failure))
        sys.exit(3)


def say(text):
    print(f"foredeck: {text}", file=sys.stderr, flush=True)


def run(argv, timeout=30, check=True, input=None, env=None):
    """The command's stdout. A command that fails or exceeds `timeout` seconds is a Failure that holds its last words."""
    argv = [str(word) for word in argv]
    try:
        done = subprocess.run(
            argv, input=input, capture_output=True, text=True, timeout=timeout, env=env or environment()
        )
    except FileNotFoundError:
        raise Failure(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"no answer within {timeout} s: {' '.join(argv)}") from None
    if check and done.returncode != 0:
        raise Failure(f"exit code {done.returncode}: {' '.join(argv)}\n{last_lines(done.stderr or done.stdout)}")
    return done.stdout


def environment(*folders, **more):
    """Nothing of the caller's: a proxy variable of theirs would send the cluster's own traffic away."""
    path = ":".join([*map(str, folders), SYSTEM_PATH])
    return {"PATH": path, "LANG": "C", "HOME": "/nonexistent", **more}


def last_lines(text, count=15):
    return "\n".join("  " + line[:400] for line in text.strip().splitlines()[-count:])


def wait_until(condition, seconds, what, alive=None):
    """Polls until `condition()` is true. `alive()` may raise a Failure: no use to wait for what has ended."""
    end = time.monotonic() + seconds
    while not condition():
        if alive is not None:
            alive()
        if time.monotonic() > end:
            raise Failure(f"not there after {seconds} s: {what}")
        time.sleep(0.05)


def tools(*programs):
    """Paths by program, built where the cache has them not."""
    build = subprocess.run([str(HERE / "build.sh"), *programs], stdout=subprocess.PIPE, text=True)
    if build.returncode != 0:
        raise Failure("the programs could not be built")
    return {pathlib.Path(line).name: pathlib.Path(line) for line in build.stdout.splitlines()}


def built_tools():
    """Paths by program of what the cache has already."""
    lines = run([HERE / "build.sh", "--only-built"], env={**os.environ, "PATH": SYSTEM_PATH}).splitlines()
    return {pathlib.Path(line).name: pathlib.Path(line) for line in lines}


def built_tools_folder():
    home = os.environ.get("XDG_CACHE_HOME") or ("/var/cache" if os.geteuid() == 0 else os.path.expanduser("~/.cache"))
    return pathlib.Path(home) / "foredeck" / "test-cluster"


@contextlib.contextmanager
def only_one(folder):
    """Holds `folder` (made where it is missing) against every other command. It may be removed while it is held."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise Failure(f"another command has held {folder} for 120 s") from None
                    time.sleep(0.1)
            if folder.exists() and os.fstat(held).st_ino == folder.stat().st_ino:
                yield
                return
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing came of it
            os.close(held)


# --- processes -----------------------------------------------------------------------------------------------------------------


def started(pid):
    """When a process began, in ticks since boot: with its pid the name of a process that no other ever gets. None: it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def executable(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def using(folder, programs):
    """Processes whose program lies in the folder `programs` (or is one of them), with the folder `folder` in their command line: ours, whoever started them."""
    programs = [str(program) for program in programs]
    found = []
    for pid in pids():
        exe = executable(pid)
        if any(exe == program or exe.startswith(program + "/") for program in programs):
            if any(str(folder) + "/" in word for word in command_line(pid)):
                found.append(pid)
    return found


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Daemon:
    """A process that outlives the command which starts it: known by its pid and start time, its output in a file."""

    def __init__(self, name, folder, argv, env):
        self.name = name
        self.argv = [str(word) for word in argv]
        self.env = env
        self.folder = folder
        self.record = folder / "run" / f"{name}.pid"
        self.log = folder / "logs" / f"{name}.log"

    def pid(self):
        """None where it does not run."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid, begin = map(int, self.record.read_text().split())
            if started(pid) == begin:
                return pid
        return None

    def since(self):
        """When it was started, in seconds since 1970. None where it does not run."""
        with contextlib.suppress(FileNotFoundError):
            return self.record.stat().st_mtime if self.pid() is not None else None
        return None

    def state(self):
        pid = self.pid()
        return f"{self.name:20} {'not running' if pid is None else f'pid {pid}'}"

    def start(self):
        if self.pid() is not None:
            return
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=self.env, start_new_session=True
            )
        begin = started(child.pid)
        if begin is not None:
            whole = self.record.with_suffix(".new")
            whole.write_text(f"{child.pid} {begin}\n")
            whole.rename(self.record)

    def must_run(self):
        if self.pid() is None:
            raise Failure(f"{self.name} has ended. The end of {self.log}:\n{self.last_words()}")

    def last_words(self):
        with contextlib.suppress(FileNotFoundError):
            with open(self.log, "rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 20_000))
                return last_lines(log.read().decode(errors="replace"))
        return "  (no log)"

    def wait_ready(self, ready, seconds):
        try:
            wait_until(ready, seconds, self.name, self.must_run)
        except Failure as late:
            if self.pid() is None:
                raise
            raise Failure(f"{late}. It runs; the end of {self.log}:\n{self.last_words()}") from None

    def stop(self, grace=10.0):
        """TERM, then KILL after `grace` seconds. Nothing where it does not run."""
        stop_all([self], grace)


def stop_all(daemons, grace):
    running = [(daemon, daemon.pid()) for daemon in daemons]
    running = [(daemon, pid) for daemon, pid in running if pid is not None]
    for _, pid in running:
        send(pid, signal.SIGTERM if grace > 0 else signal.SIGKILL)

    def ended():
        return all(daemon.pid() != pid for daemon, pid in running)

    try:
        wait_until(ended, grace, "the end")
    except Failure:
        for daemon, pid in running:
            if daemon.pid() == pid:
                send(pid, signal.SIGKILL)
        wait_until(ended, 10, "the end of " + ", ".join(daemon.name for daemon, _ in running) + " after SIGKILL")
    for daemon, _ in running:
        daemon.record.unlink(missing_ok=True)


def kill_until_none(find, seconds):
    """KILLs what `find()` returns until it returns nothing. False: some processes do not die."""
    end = time.monotonic() + seconds
    while found := find():
        for pid in found:
            send(pid, signal.SIGKILL)
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# --- mounts, control groups, network -------------------------------------------------------------------------------------------


def mounts(folder):
    """Mount points in and below `folder`, the deepest last."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        # The kernel writes blanks and backslashes as octal escapes.
        point = line.split()[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
        if point == str(folder) or point.startswith(str(folder) + "/"):
            found.append(point)
    return found


def unmount(folder):
    for point in reversed(mounts(folder)):
        # Lazily: whatever held it is dead, and a busy mount point must not keep the rest.
        run(["umount", "-l", point], check=False)


CGROUP = pathlib.Path("/sys/fs/cgroup")
V1_CONTROLLERS = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb", "net_cls", "net_prio", "perf_event"]


def cgroup_v2():
    return (CGROUP / "cgroup.controllers").exists()


def cgroup_hierarchies():
    """The mount point of every hierarchy, each once: the one of version 2, or those of version 1 and the unified one beside them."""
    if cgroup_v2():
        return [CGROUP]
    points = {(CGROUP / name).resolve() for name in [*V1_CONTROLLERS, "unified"] if (CGROUP / name).is_dir()}
    return sorted(points)


def cgroup_folders(name):
    """The control group `name` in every hierarchy that has it, with all below it, the deepest first."""
    found = []
    for hierarchy in cgroup_hierarchies():
        found += [pathlib.Path(at) for at, _, _ in os.walk(hierarchy / name, topdown=False)]
    return found


def cgroup_pids(name):
    found = set()
    for folder in cgroup_folders(name):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split() if pid != "0")
    return sorted(pid for pid in found if started(pid) is not None)


def make_cgroup(name):
    """The control group `name` in every hierarchy, with all controllers that there are."""
    if cgroup_v2():
        wanted = {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"}
        (CGROUP / name).mkdir(exist_ok=True)
        for folder in (CGROUP, CGROUP / name):
            there = set((folder / "cgroup.controllers").read_text().split())
            (folder / "cgroup.subtree_control").write_text(" ".join("+" + one for one in sorted(there & wanted)))
        return
    for hierarchy in cgroup_hierarchies():
        if hierarchy.name == "unified":
            continue
        (hierarchy / name).mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # An empty set of either takes no process.
            if (hierarchy / setting).exists() and not (hierarchy / name / setting).read_text().strip():
                (hierarchy / name / setting).write_text((hierarchy / setting).read_text())


def remove_cgroup(name):
    for folder in cgroup_folders(name):
        with contextlib.suppress(OSError):  # a frozen group of version 1 does not take even SIGKILL
            if (folder / "freezer.state").exists():
                (folder / "freezer.state").write_text("THAWED")
    kill_until_none(lambda: cgroup_pids(name), 10)
    end = time.monotonic() + 5
    while (folders := cgroup_folders(name)) and time.monotonic() < end:
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        time.sleep(0.02)


def interfaces():
    return set(os.listdir("/sys/class/net"))


def networks_in_use(but):
    """Networks that this host has an address or a route of, by interface, without the interfaces in `but` and the default route."""
    found = []
    for entry in json.loads(run(["ip", "-j", "-4", "address"])):
        if entry["ifname"] not in but:
            found += [(f"{one['local']}/{one['prefixlen']}", entry["ifname"]) for one in entry.get("addr_info", [])]
    for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "main"])):
        if route["dst"] != "default" and route.get("dev") not in but:
            found.append((route["dst"], route.get("dev", "a route")))
    return [(ipaddress.ip_network(text, strict=False), where) for text, where in found]


# --- what is found and left ----------------------------------------------------------------------------------------------------


class Before:
    """What the host had before the first `up`, written down before anything is touched, so that `down` leaves it so."""

    def __init__(self, folder):
        self.file = folder / "before.json"

    def note(self, **facts):
        if not self.file.exists():
            whole = self.file.with_suffix(".new")
            whole.write_text(json.dumps(facts))
            whole.rename(self.file)

    def read(self):
        with contextlib.suppress(FileNotFoundError):
            return json.loads(self.file.read_text())
        return None


def listens(path):
    """Whether somebody takes connections on the Unix socket."""
    with socket.socket(socket.AF_UNIX) as there, contextlib.suppress(OSError):
        there.settimeout(2)
        there.connect(str(path))
        return True
    return False


SHIM_SOCKETS = pathlib.Path("/run/containerd/s")


def dead_shim_sockets():
    """Sockets on which nobody listens any more: containerd's shims put them into one folder, whoever's they are, and leave them when killed."""
    for path in SHIM_SOCKETS.glob("*"):
        with socket.socket(socket.AF_UNIX) as there:
            there.settimeout(2)
            try:
                there.connect(str(path))
            except ConnectionRefusedError:
                yield path
            except OSError:
                continue


def remove_empty(folder, levels):
    """`folder` and its parents, `levels` in all, as far as they are empty: who needs them makes them."""
    for path in [folder, *folder.parents][:levels]:
        with contextlib.suppress(OSError):
            path.rmdir()


def remove_tree(folder):
    """Refuses while anything is mounted there: what is mounted may be someone's data."""
    if held := mounts(folder):
        raise Failure(f"still mounted: {', '.join(held)}")
    for _ in range(3):  # a process on its way out may write once more
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise Failure(f"{folder} could not be removed")
