"""A dockerd for tests, beside whatever the host runs: its own socket, data, containerd and control group, and no network at all.

    ./foredeck docker up [--own] [--no-userns]  starts it; prints `export DOCKER_HOST=...`. Where the host's own daemon runs, that one
                                                is named and nothing is started, unless --own
    ./foredeck docker down                      stops it with its containers and leaves nothing behind
    ./foredeck docker status                    exit code 0 only if it answers
    ./foredeck docker stop|kill|start [NAME]    dockerd (or containerd) alone, for tests of faults: its containers live on

The daemon of the host is never touched.
"""

import argparse
import contextlib
import grp
import http.client
import json
import os
import pathlib
import pwd
import shutil
import socket
import time

import host
from host import Daemon, Failure, say

CGROUP = "foredeck-test-docker"
HOST_SOCKET = pathlib.Path("/run/docker.sock")
# Whose subordinate ids are used; some versions of dockerd look for the group's by its own name, some by the user's.
REMAPPED_USER = "nobody"
REMAPPED_GROUP = grp.getgrgid(pwd.getpwnam(REMAPPED_USER).pw_gid).gr_name
SUBORDINATE_IDS = ((pathlib.Path("/etc/subuid"), {REMAPPED_USER}), (pathlib.Path("/etc/subgid"), {REMAPPED_USER, REMAPPED_GROUP}))
# Written by dockerd outside its folders, whatever it is told.
KEY_FILE = pathlib.Path("/etc/docker/key.json")
PLUGINS = pathlib.Path("/run/docker/plugins")

# As the local driver's OciRuntime has them, which says why; the driver's probe refuses a runsc without those that isolation hangs on.
RUNSC_ARGUMENTS = [
    "--platform=systrap",
    "--network=none",
    "--host-uds=open",
    "--overlay2=none",
    "--oci-seccomp=true",
    "--ignore-cgroups=false",
    "--gofer-network-namespace=new",
    "--net-raw=false",
    "--allow-suid=false",
]


class Socket(http.client.HTTPConnection):
    def __init__(self, path, timeout=5):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(path, question):
    """The daemon's answer, parsed; None where none answers."""
    try:
        with contextlib.closing(Socket(path)) as there:
            there.request("GET", question)
            answer = there.getresponse()
            content = answer.read()
        return json.loads(content) if answer.status == 200 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None


def state_folder():
    folder = pathlib.Path(os.environ.get("FOREDECK_DOCKER_DIR", "/var/lib/foredeck-test-docker"))
    if not folder.is_absolute() or len(str(folder)) > 40:
        raise Failure(f"FOREDECK_DOCKER_DIR is '{folder}': an absolute path of at most 40 characters (sockets lie in it)")
    return folder


class Docker:
    def __init__(self, folder):
        self.folder = folder
        self.socket = self.folder / "run" / "docker.sock"
        self.pid_file = self.folder / "run" / "dockerd.lock"
        self.before = host.Before(self.folder)
        environment = host.environment()
        self.containerd_socket = self.folder / "run" / "containerd.sock"
        # Of its own: dockerd would start one too, and not after it was killed itself.
        containerd = Daemon("containerd", self.folder, ["containerd", "--config", self.folder / "containerd.toml"], environment)
        dockerd = Daemon("dockerd", self.folder, ["dockerd", "--config-file", self.folder / "daemon.json"], environment)
        self.daemons = {daemon.name: daemon for daemon in (containerd, dockerd)}

    def info(self):
        return ask(self.socket, "/info")

    def up(self, own, userns):
        if not own and self.daemons["dockerd"].pid() is None and ask(HOST_SOCKET, "/version") is not None:
            say("the host's own dockerd runs: use it (--own starts another one beside it)")
            print(f"export DOCKER_HOST=unix://{HOST_SOCKET}", flush=True)
            return
        begin = time.monotonic()
        self.before.note(userns=userns, key_file=KEY_FILE.exists())
        if self.before.read()["userns"] != userns:
            raise Failure("it was brought up with another choice of user namespaces: ./foredeck docker down first")
        if userns:
            self.add_subordinate_ids()
        self.write_configuration(userns)
        for name in self.daemons:
            self.start(name)
        say(f"the test daemon is up ({time.monotonic() - begin:.1f} s)")
        print(f"export DOCKER_HOST=unix://{self.socket}", flush=True)

    def start(self, name):
        daemon = self.daemons[name]
        if name == "dockerd" and daemon.pid() is None:
            # dockerd takes a killed one for alive as long as nobody has reaped it.
            self.pid_file.unlink(missing_ok=True)
        daemon.start()
        if name == "dockerd":
            daemon.wait_ready(lambda: self.info() is not None, 60)
        else:
            daemon.wait_ready(lambda: host.listens(self.containerd_socket), 30)

    def write_configuration(self, userns):
        folder = self.folder
        (folder / "run").mkdir(parents=True, exist_ok=True)
        content = {
            "hosts": [f"unix://{self.socket}"],
            "data-root": str(folder / "data"),
            "exec-root": str(folder / "exec"),
            "containerd": str(self.containerd_socket),
            "pidfile": str(self.pid_file),
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "ip-forward": False,
            "live-restore": True,
            "cgroup-parent": f"/{CGROUP}",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "oom-score-adjust": 0,  # a root without CAP_SYS_RESOURCE may not lower it
            "log-driver": "local",
            "shutdown-timeout": 5,
        }
        if userns:
            content["userns-remap"] = f"{REMAPPED_USER}:{REMAPPED_GROUP}"
        if runsc := host.built_tools().get("runsc"):
            # A gVisor that opens files itself runs as the container's root, which is the host's where there are no user namespaces.
            arguments = RUNSC_ARGUMENTS if userns else [*RUNSC_ARGUMENTS, "--directfs=false"]
            content["runtimes"] = {"runsc": {"path": str(runsc), "runtimeArgs": arguments}}
        (folder / "daemon.json").write_text(json.dumps(content, indent=1) + "\n")
        (folder / "containerd.toml").write_text(
            f"""version = 2
root = '{folder}/containerd/root'
state = '{folder}/containerd/state'
oom_score = 0
disabled_plugins = ['io.containerd.grpc.v1.cri']
[grpc]
address = '{self.containerd_socket}'
[ttrpc]
address = '{self.containerd_socket}.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
path = '{folder}/containerd/opt'
"""
        )

    # --- user namespaces: dockerd reads its range of ids from two files of the host ------------------------------------

    def add_subordinate_ids(self):
        for file, names in SUBORDINATE_IDS:
            lines = file.read_text().splitlines() if file.exists() else []
            missing = sorted(names - {line.partition(":")[0] for line in lines})
            ranges = [line.split(":") for line in lines if line.count(":") == 2]
            first = max([231072, *(int(begin) + int(count) for _, begin, count in ranges)])
            ours = [f"{name}:{first}:65536\n" for name in missing]
            with open(self.folder / f"{file.name}.lines", "a") as note, open(file, "a") as out:
                note.write("".join(ours))
                note.flush()
                out.write("".join(ours))

    def remove_subordinate_ids(self):
        for file, _ in SUBORDINATE_IDS:
            with contextlib.suppress(FileNotFoundError):
                ours = (self.folder / f"{file.name}.lines").read_text().splitlines()
                lines = file.read_text().splitlines(keepends=True)
                file.write_text("".join(line for line in lines if line.strip() not in ours))

    # --- down ---------------------------------------------------------------------------------------------------------

    def down(self):
        host.stop_all(list(self.daemons.values()), 10)
        host.kill_until_none(self.processes, 15)
        host.unmount(self.folder)
        host.remove_cgroup(CGROUP)
        before = self.before.read()
        for file in list(self.outside_files(before)):
            file.unlink(missing_ok=True)
        for folder, levels in ((host.SHIM_SOCKETS, 2), (PLUGINS, 2), (KEY_FILE.parent, 1)):
            host.remove_empty(folder, levels)
        self.remove_subordinate_ids()
        left = [f"process {pid}: {' '.join(host.command_line(pid))[:200]}" for pid in self.processes()]
        left += [f"mount {point}" for point in host.mounts(self.folder)]
        left += [f"control group {folder}" for folder in host.cgroup_folders(CGROUP)]
        left += [f"file {file}" for file in self.outside_files(before)]
        # Before the folder goes, which knows what the host had: a second `down` goes on from here.
        if left:
            raise Failure("this is left of the daemon:\n" + "\n".join("  " + line for line in left))
        host.remove_tree(self.folder)

    def processes(self):
        """All of ours, recorded or not: containers by their control group, the rest by program and folder."""
        names = ("dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v2", "runc", "docker-init", "docker-proxy")
        found = [shutil.which(name, path=host.SYSTEM_PATH) for name in names]
        programs = [os.path.realpath(path) for path in found if path is not None]
        return sorted({*host.using(self.folder, [*programs, host.built_tools_folder()]), *host.cgroup_pids(CGROUP)})

    def outside_files(self, before):
        yield from host.dead_shim_sockets()
        if before is not None and not before["key_file"] and KEY_FILE.exists():
            yield KEY_FILE

    def status(self):
        for daemon in self.daemons.values():
            print(daemon.state())
        info = self.info()
        if info is None:
            return False
        print(f"{'version':20} {info['ServerVersion']}, {info['Containers']} containers, {info['Images']} images")
        print(f"{'runtimes':20} {', '.join(sorted(info['Runtimes']))}")
        print(f"{'security':20} {', '.join(info['SecurityOptions'])}")
        print(f"export DOCKER_HOST=unix://{self.socket}")
        return True


def main(words):
    docker = Docker(state_folder())
    parser = argparse.ArgumentParser(prog="foredeck docker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up")
    up.add_argument("--own", action="store_true")
    up.add_argument("--no-userns", action="store_true")
    for verb in ("down", "status"):
        verbs.add_parser(verb)
    for verb in ("stop", "kill", "start"):
        verbs.add_parser(verb).add_argument("name", nargs="?", default="dockerd", choices=list(docker.daemons))
    asked = parser.parse_args(words)
    if os.geteuid() != 0:
        raise Failure("a test daemon needs root")
    if asked.verb == "status":
        return 0 if docker.status() else 1
    if asked.verb not in ("up", "down") and not docker.folder.exists():
        raise Failure("there is none: ./foredeck docker up")
    with host.only_one(docker.folder):
        if asked.verb == "up":
            docker.up(asked.own, not asked.no_userns)
        elif asked.verb == "down":
            docker.down()
        elif asked.verb == "start":
            docker.start(asked.name)
        else:
            docker.daemons[asked.name].stop(0 if asked.verb == "kill" else 20)
    return 0


if __name__ == "__main__":
    host.exit_with(main)
