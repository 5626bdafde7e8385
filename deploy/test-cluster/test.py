"""The test of the test cluster and the test daemon, on this host: ./foredeck cluster test

Needs root, neither of them running, and nobody who starts one meanwhile. What it looks for at the end is what the host had at the beginning.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import cluster
import configuration
import docker
import host
import image

LAUNCHER = host.HERE.parents[1] / "foredeck"
IMAGE = "localhost/busybox:test"


def launcher(*words, check=True, timeout=1800, **environment):
    """What `./foredeck WORDS` does: its exit code, stdout and stderr."""
    done = subprocess.run(
        [LAUNCHER, *words], capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise AssertionError(f"foredeck {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def exported(said, name):
    [line] = [line for line in said.splitlines() if line.startswith(f"export {name}=")]
    return line.partition("=")[2]


def files(folder):
    return sorted(str(path) for path in pathlib.Path(folder).rglob("*")) if pathlib.Path(folder).exists() else None


def snapshot(folder, cgroup):
    """All that `up` touches on a host, but for the cache of programs."""
    shared = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/etc/docker", "/run/docker")
    return {
        "interfaces": sorted(host.interfaces()),
        "nft tables": host.run(["nft", "list", "tables"]),
        "iptables": host.run(["sh", "-c", "iptables-save 2>/dev/null | grep -v '^#' | sed 's/ \\[.*//' || true"]),
        "control groups": [str(path) for path in host.cgroup_folders(cgroup)],
        "mounts": host.mounts(folder),
        "processes": [host.command_line(pid) for pid in host.using(folder, ["/"])],
        "folders": {path: files(path) for path in (str(folder), *shared)},
        "dead sockets": [str(path) for path in host.dead_shim_sockets()],
        "ip_forward": cluster.ip_forward(),
        "subordinate ids": [pathlib.Path(path).read_text() for path in ("/etc/subuid", "/etc/subgid") if os.path.exists(path)],
    }


def busybox(folder):
    file = pathlib.Path(folder) / "busybox.tar"
    program = "/bin/busybox"
    image.make_image(IMAGE, file, {program: program}, {"/bin/sh": "busybox"}, [program, "sleep", "1d"])
    return file


class FromBeginningToEnd(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.before = snapshot(self.folder, self.cgroup)
        if self.folder.exists():
            raise AssertionError(f"{self.folder} exists: `down` first")
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.image = busybox(temporary.name)

    def assert_nothing_left(self):
        self.assertEqual(self.before, snapshot(self.folder, self.cgroup))


class ClusterTest(FromBeginningToEnd):
    folder, cgroup = configuration.Settings.load().folder, configuration.CGROUP

    def setUp(self):
        super().setUp()
        self.kubectl_program = host.tools("kubectl")["kubectl"]
        self.addCleanup(launcher, "cluster", "down")

    def up(self):
        self.kubeconfig = exported(launcher("cluster", "up").stdout, "KUBECONFIG")

    def kubectl(self, *words, check=True, input=None):
        words = ["--kubeconfig", self.kubeconfig, "--request-timeout=20s", *words]
        return host.run([self.kubectl_program, *words], timeout=60, check=check, input=input)

    def run_pod(self, name, runtime):
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        spec = {"runtimeClassName": runtime, "enableServiceLinks": False, "dnsPolicy": "Default", "containers": [container], "terminationGracePeriodSeconds": 0}
        self.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}))
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=45s")

    def in_pod(self, name, *command):
        return self.kubectl("exec", name, "--", "/bin/busybox", *command).strip()

    def pod_answers(self, name):
        """A kubelet that has just begun says `pod does not exist` until it has read its pods."""

        def answers():
            with contextlib.suppress(host.Failure):
                return self.in_pod(name, "echo", "alive") == "alive"

        host.wait_until(answers, 60, f"{name} answers")

    def test_runs_pods_survives_faults_and_leaves_nothing(self):
        self.up()
        self.assertEqual(0, launcher("cluster", "status").returncode)
        self.assertIn(IMAGE, launcher("cluster", "load", str(self.image)).stdout)
        for runtime in ("runc", "gvisor"):
            self.run_pod(f"in-{runtime}", runtime)
        self.assertEqual(os.uname().release, self.in_pod("in-runc", "uname", "-r"))
        self.assertNotEqual(os.uname().release, self.in_pod("in-gvisor", "uname", "-r"))
        self.assertEqual("10001", self.in_pod("in-gvisor", "id", "-u"))

        with self.subTest("up again changes nothing"):
            pids = launcher("cluster", "status").stdout
            self.up()
            self.assertEqual(pids, launcher("cluster", "status").stdout)

        for name in ("apiserver", "containerd", "kubelet", "etcd", "scheduler", "controller-manager"):
            for verb in ("stop", "kill"):
                with self.subTest(f"{verb} {name}"):
                    launcher("cluster", verb, name)
                    down = launcher("cluster", "status", check=False)
                    self.assertEqual(1, down.returncode)
                    self.assertRegex(down.stdout, rf"(?m)^{name} +not running$")
                    launcher("cluster", "start", name)
                    launcher("cluster", "up")  # waits for the node
                    for pod in ("in-runc", "in-gvisor"):
                        self.pod_answers(pod)
        restarts = self.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}")
        self.assertEqual("0 0", restarts)

        with self.subTest("down, with containerd killed and pods there"):
            launcher("cluster", "kill", "containerd")
            launcher("cluster", "down")
            self.assert_nothing_left()

    def test_down_after_an_up_that_was_cut_off(self):
        host.tools()
        for name in ("containerd", "kubelet"):
            with self.subTest(f"killed as {name} started"):
                up = subprocess.Popen([LAUNCHER, "cluster", "up"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                record = self.folder / "run" / f"{name}.pid"
                host.wait_until(record.exists, 120, f"{name} starts")
                up.send_signal(signal.SIGKILL)
                up.wait(10)
                launcher("cluster", "down")
                self.assert_nothing_left()

    def test_down_after_all_of_it_was_killed(self):
        self.up()
        launcher("cluster", "load", str(self.image))
        self.run_pod("in-gvisor", "gvisor")
        for name in ("kubelet", "containerd", "scheduler", "controller-manager", "apiserver", "etcd"):
            launcher("cluster", "kill", name)
        launcher("cluster", "down")
        self.assert_nothing_left()

    def test_starts_again_on_kept_data(self):
        self.up()
        self.kubectl("create", "configmap", "kept", "--from-literal=a=b")
        launcher("cluster", "down", "--keep-data")
        self.assertEqual(self.before["interfaces"], sorted(host.interfaces()))
        begin = time.monotonic()
        self.up()
        print(f"warm start: {time.monotonic() - begin:.1f} s", file=sys.stderr)
        self.assertEqual("b", self.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}"))
        launcher("cluster", "down")
        self.assert_nothing_left()

    def test_refuses_addresses_that_are_in_use(self):
        host.run(["ip", "link", "add", "foredeck-taken", "type", "bridge"])
        self.addCleanup(host.run, ["ip", "link", "delete", "foredeck-taken"], check=False)
        host.run(["ip", "address", "add", "10.99.0.1/24", "dev", "foredeck-taken"])
        refused = launcher("cluster", "up", check=False)
        self.assertEqual(3, refused.returncode)
        self.assertIn("10.99.0.1/32 is not free: foredeck-taken has 10.99.0.0/24. Set FOREDECK_CLUSTER_ADDRESS", refused.stderr)
        host.run(["ip", "link", "delete", "foredeck-taken"])
        self.assert_nothing_left()

    def test_says_which_component_ended_and_its_last_words(self):
        taken = subprocess.Popen(
            [sys.executable, "-c", "import socket,time; s=socket.create_server(('127.99.0.1', 2379)); print('taken', flush=True); time.sleep(600)"],
            stdout=subprocess.PIPE,
        )
        try:
            taken.stdout.readline()
            failed = launcher("cluster", "up", check=False)
        finally:
            taken.kill()
            taken.wait()
            taken.stdout.close()
        self.assertEqual(3, failed.returncode)
        self.assertIn("etcd has ended", failed.stderr)
        self.assertIn("address already in use", failed.stderr)
        launcher("cluster", "down")
        self.assert_nothing_left()


class DockerTest(FromBeginningToEnd):
    folder, cgroup = docker.state_folder(), docker.CGROUP

    def setUp(self):
        super().setUp()
        self.addCleanup(launcher, "docker", "down")

    def docker(self, *words):
        return host.run(["docker", "-H", self.socket, *words], timeout=60).strip()

    def check(self, *options):
        runtimes = ("runc", "runsc")
        host.tools("runsc")
        self.socket = exported(launcher("docker", "up", "--own", *options).stdout, "DOCKER_HOST")
        self.docker("load", "--input", str(self.image))
        for runtime in runtimes:
            self.docker("run", "--detach", "--name", f"in-{runtime}", "--network=none", f"--runtime={runtime}", IMAGE)
        for verb in ("stop", "kill"):
            for name in ("dockerd", "containerd"):
                with self.subTest(f"{verb} {name}"):
                    launcher("docker", verb, name)
                    self.assertRegex(launcher("docker", "status", check=False).stdout, rf"(?m)^{name} +not running$")
                    launcher("docker", "start", name)
                    for runtime in runtimes:
                        self.docker_answers(f"in-{runtime}")
        launcher("docker", "kill")
        launcher("docker", "down")
        self.assert_nothing_left()

    def docker_answers(self, container):
        """dockerd finds a new containerd within seconds, not at once."""

        def answers():
            with contextlib.suppress(host.Failure):
                return self.docker("exec", container, "/bin/busybox", "echo", "alive") == "alive"

        host.wait_until(answers, 30, f"{container} answers")

    def test_with_user_namespaces(self):
        self.check()

    def test_without_user_namespaces(self):
        self.check("--no-userns")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("needs root")
    unittest.main(verbosity=2)
