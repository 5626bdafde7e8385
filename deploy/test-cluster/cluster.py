"""A real single-node Kubernetes on a bare host: brought up, taken down, broken on purpose.

    ./foredeck cluster up                       brings it up; prints `export KUBECONFIG=...`
    ./foredeck cluster down [--keep-data]       stops it and leaves nothing behind (or only its data, for a warm start)
    ./foredeck cluster status                   what runs; exit code 0 only if all of it does and the node is ready
    ./foredeck cluster load FILE.tar...         imports images (tar in the OCI layout or of `docker save`)
    ./foredeck cluster stop|kill|start NAME     one component, for tests of faults

README.md beside this file says how it is made, and what each part of it needs.
"""

import argparse
import calendar
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import tarfile
import time

import host
import image
from configuration import API_PORT, CGROUP, CLUSTER, ETCD_PORT, KUBELET_PORT, NODE, NODE_BRIDGE, PAUSE, POD_BRIDGE, Configuration, Settings
from host import Daemon, Failure, run, say

NFT_TABLE = CLUSTER

# Written by components outside our folder, whatever they are told.
DEVICE_PLUGINS = pathlib.Path("/var/lib/kubelet/device-plugins")
POD_LOG_LINKS = pathlib.Path("/var/log/containers")
CNI_RESULTS = pathlib.Path("/var/lib/cni/results")


class Api:
    """What the bring-up itself asks the API server."""

    def __init__(self, settings, pki):
        self.settings = settings
        self.pki = pki

    def call(self, method, path, body=None, timeout=5):
        """Status and body (parsed where it is JSON); (None, why) where nothing answers."""
        try:
            context = ssl.create_default_context(cafile=self.pki.file("ca.crt"))
            context.load_cert_chain(self.pki.file("admin.crt"), self.pki.file("admin.key"))
            there = http.client.HTTPSConnection(self.settings.address, API_PORT, timeout=timeout, context=context)
            with contextlib.closing(there):
                there.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
                answer = there.getresponse()
                content = answer.read().decode()
        except (OSError, http.client.HTTPException) as why:
            return None, str(why)
        with contextlib.suppress(ValueError):
            content = json.loads(content)
        return answer.status, content

    def ready(self):
        return self.call("GET", "/readyz")[0] == 200

    def create(self, path, thing):
        status, said = self.call("POST", path, thing)
        if status not in (200, 201, 409):
            raise Failure(f"POST {path}: {status} {said}")

    def node(self):
        status, node = self.call("GET", f"/api/v1/nodes/{NODE}")
        return node if status == 200 else None

    def node_ready(self, since):
        """Whether the node is ready by what a kubelet that began at `since` (seconds since 1970) has said: what one before it said stays in the API."""
        node = self.node()
        if node is None or since is None:
            return False

        def said_since(condition):
            return calendar.timegm(time.strptime(condition["lastHeartbeatTime"], "%Y-%m-%dT%H:%M:%SZ")) + 1 > since  # whole seconds

        conditions = node["status"].get("conditions", [])
        ready = any(one["type"] == "Ready" and one["status"] == "True" and said_since(one) for one in conditions)
        taints = [taint["key"] for taint in node["spec"].get("taints", [])]
        return ready and "node.kubernetes.io/not-ready" not in taints


# --- the cluster ---------------------------------------------------------------------------------------------------------------


def images_of(file):
    """Names and digests of the images in an OCI layout; none where it is of another kind."""
    try:
        with tarfile.open(file) as layout:
            manifests = json.load(layout.extractfile("index.json"))["manifests"]
        return {(entry["annotations"]["io.containerd.image.name"], entry["digest"]) for entry in manifests}
    except (KeyError, ValueError, tarfile.TarError):
        return set()


class Cluster:
    def __init__(self, settings):
        self.settings = settings
        self.folder = settings.folder
        self.configuration = Configuration(settings)
        self.api = Api(settings, self.configuration.pki)
        self.before = host.Before(self.folder)

    def daemons(self, tools=None):
        """By name, in the order in which they start. Without `tools` they can be looked at and stopped, not started."""
        commands = {} if tools is None else self.configuration.commands(tools)
        environment = host.environment(*sorted({path.parent for path in (tools or {}).values()}))
        names = ("etcd", "containerd", "apiserver", "controller-manager", "scheduler", "kubelet")
        return {name: Daemon(name, self.folder, commands.get(name, []), environment) for name in names}

    # --- the host's network -------------------------------------------------------------------------------------------

    def make_network(self):
        settings = self.settings
        if NODE_BRIDGE not in host.interfaces():
            run(["ip", "link", "add", NODE_BRIDGE, "type", "bridge"])
        run(["ip", "address", "replace", f"{settings.address}/32", "dev", NODE_BRIDGE])
        run(["ip", "link", "set", NODE_BRIDGE, "up"])
        # No packet of a pod leaves this machine, and none comes from elsewhere. There is no kube-proxy: the one
        # service that programs in pods look for is the API server's.
        to_api = f"ip daddr {settings.service_address} tcp dport 443 dnat ip to {settings.address}:{API_PORT}"
        rules = f"""
table inet {NFT_TABLE} {{}}
delete table inet {NFT_TABLE}
table inet {NFT_TABLE} {{
  chain forwarded {{ type filter hook forward priority 0; policy accept;
    iifname "{POD_BRIDGE}" oifname != "{POD_BRIDGE}" drop
    oifname "{POD_BRIDGE}" iifname != "{POD_BRIDGE}" drop
  }}
  chain incoming {{ type nat hook prerouting priority -100; {to_api}; }}
  chain outgoing {{ type nat hook output priority -100; {to_api}; }}
}}
"""
        run(["nft", "-f", "-"], input=rules)
        # Where the host has br_netfilter, packets between pods pass its FORWARD chain, which Docker's policy closes.
        if self.forward_closed() and not self.forward_rule("-C") and not self.forward_rule("-I"):
            raise Failure("iptables refuses a rule in the FORWARD chain, whose policy is DROP")

    def forward_closed(self):
        there = shutil.which("iptables", path=host.SYSTEM_PATH) is not None
        return there and "-P FORWARD DROP" in run(["iptables", "-w", "10", "-S", "FORWARD"], check=False)

    def forward_rule(self, verb):
        """Whether iptables took it. -C asks whether it is there, -I inserts, -D deletes."""
        rule = ["-i", POD_BRIDGE, "-o", POD_BRIDGE, "-m", "comment", "--comment", NFT_TABLE, "-j", "ACCEPT"]
        if shutil.which("iptables", path=host.SYSTEM_PATH) is None:
            return False
        return run(["sh", "-c", 'iptables "$@" 2>/dev/null && echo yes || true', "sh", "-w", "10", verb, "FORWARD", *rule]) != ""

    def remove_network(self):
        while self.forward_rule("-C") and self.forward_rule("-D"):
            pass
        if self.has_nft_table():
            run(["nft", "delete", "table", "inet", NFT_TABLE], check=False)
        for name in {NODE_BRIDGE, POD_BRIDGE} & host.interfaces():
            run(["ip", "link", "delete", name], check=False)

    def has_nft_table(self):
        if shutil.which("nft", path=host.SYSTEM_PATH) is None:
            return False
        return f"table inet {NFT_TABLE}" in run(["nft", "list", "tables"], check=False).splitlines()

    # --- up -----------------------------------------------------------------------------------------------------------

    def up(self):
        begin = time.monotonic()
        tools = host.tools()
        self.settings.check_free()
        self.refuse_other_kubelet()
        device_plugins = [str(file) for file in DEVICE_PLUGINS.glob("*")]
        self.before.note(settings=self.settings.addresses(), ip_forward=ip_forward(), device_plugins=device_plugins)
        host.make_cgroup(CGROUP)
        self.make_network()
        self.configuration.pki.make(self.settings)
        self.configuration.write_files(tools)
        daemons = self.daemons(tools)
        for name in ("etcd", "containerd", "apiserver"):
            daemons[name].start()
        self.wait_containerd(daemons["containerd"])
        self.import_pause(tools)
        self.wait_apiserver(daemons)
        for name in ("controller-manager", "scheduler", "kubelet"):
            daemons[name].start()
        for name, handler in (("runc", "runc"), ("gvisor", "runsc")):
            runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler}
            self.api.create("/apis/node.k8s.io/v1/runtimeclasses", runtime)
        kubelet = daemons["kubelet"]
        kubelet.wait_ready(lambda: self.api.node_ready(kubelet.since()), 120)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        daemons["controller-manager"].wait_ready(lambda: self.api.call("GET", account)[0] == 200, 60)
        daemons["scheduler"].must_run()
        say(f"the cluster is up ({time.monotonic() - begin:.1f} s)")
        print(f"export KUBECONFIG={self.configuration.admin}", flush=True)

    def refuse_other_kubelet(self):
        """Two kubelets on a host would share a socket whose path is compiled in."""
        if self.daemons()["kubelet"].pid() is not None:
            return
        if host.listens(DEVICE_PLUGINS / "kubelet.sock"):
            raise Failure("this host is a Kubernetes node already: set KUBECONFIG and use that cluster")

    def wait_containerd(self, containerd):
        containerd.wait_ready(lambda: host.listens(self.configuration.containerd_socket), 30)

    def wait_apiserver(self, daemons):
        def ready():
            daemons["etcd"].must_run()
            return self.api.ready()

        daemons["apiserver"].wait_ready(ready, 120)

    def import_pause(self, tools):
        file = self.folder / "pause.tar"
        image.make_image(PAUSE, file, {"/pause": tools["pause"]}, command=["/pause"])
        self.load(file, tools)

    def load(self, file, tools):
        """What was imported, as ctr says it. An image that is there under its name, with the same content, is not imported again."""
        ctr = [tools["ctr"], "--address", self.configuration.containerd_socket, "--namespace", "k8s.io"]
        there = {tuple(line.split()[0:3:2]) for line in run([*ctr, "--timeout", "20s", "images", "ls"], timeout=30).splitlines()[1:]}
        if (wanted := images_of(file)) and wanted <= there:
            return "".join(f"{name} is there\n" for name, _ in sorted(wanted))
        return run([*ctr, "--timeout", "280s", "images", "import", file], timeout=300)

    # --- down ---------------------------------------------------------------------------------------------------------

    def down(self, keep_data):
        host.stop_all(list(self.daemons().values()), 4)
        host.kill_until_none(self.processes, 15)
        host.unmount(self.folder)
        host.remove_cgroup(CGROUP)
        self.remove_network()
        before = self.before.read()
        self.remove_outside(before)
        if before is not None and before["ip_forward"] == "0" and ip_forward() == "1":
            pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        # Before the folder goes, which knows what the host had: a second `down` goes on from here.
        if left := self.leftovers(before):
            raise Failure("this is left of the cluster:\n" + "\n".join("  " + line for line in left))
        if keep_data:
            for name in ("containerd/state", "containerd/temp", "runc", "runsc", "cni-leases", "run"):  # what a reboot would clear
                shutil.rmtree(self.folder / name, ignore_errors=True)
        else:
            host.remove_tree(self.folder)

    def processes(self):
        """All of ours, recorded or not: pods by their control group, the rest by program and folder."""
        return sorted({*host.using(self.folder, [host.built_tools_folder()]), *host.cgroup_pids(CGROUP)})

    def outside_files(self, before):
        """Ours in folders that we share with whoever else runs Kubernetes or containers here."""
        for link in POD_LOG_LINKS.glob("*"):
            if link.is_symlink() and os.readlink(link).startswith(f"{self.folder}/"):
                yield link
        yield from CNI_RESULTS.glob(f"{POD_BRIDGE}-*")
        yield from host.dead_shim_sockets()
        if before is not None:
            yield from (file for file in DEVICE_PLUGINS.glob("*") if str(file) not in before["device_plugins"])

    def remove_outside(self, before):
        for file in list(self.outside_files(before)):
            file.unlink(missing_ok=True)
        for folder, levels in ((DEVICE_PLUGINS, 2), (POD_LOG_LINKS, 1), (CNI_RESULTS, 2), (host.SHIM_SOCKETS, 2)):
            host.remove_empty(folder, levels)

    def leftovers(self, before):
        left = [f"process {pid}: {' '.join(host.command_line(pid))[:200]}" for pid in self.processes()]
        left += [f"mount {point}" for point in host.mounts(self.folder)]
        left += [f"interface {name}" for name in sorted({NODE_BRIDGE, POD_BRIDGE} & host.interfaces())]
        left += [f"control group {folder}" for folder in host.cgroup_folders(CGROUP)]
        left += [f"nft table inet {NFT_TABLE}"] if self.has_nft_table() else []
        left += ["a rule in iptables' FORWARD chain"] if self.forward_rule("-C") else []
        left += [f"file {file}" for file in self.outside_files(before)]
        return left

    # --- status, faults -----------------------------------------------------------------------------------------------

    def status(self):
        """Whether all of it runs; says what does."""
        whole = True
        for daemon in self.daemons().values():
            whole &= daemon.pid() is not None
            print(daemon.state())
        _, version = self.api.call("GET", "/version")
        node = self.api.node()
        if node is None:
            print(f"{'node':20} {'unknown: the API server does not answer' if whole else 'unknown'}")
            return False
        facts, ready = node["status"]["nodeInfo"], self.api.node_ready(self.daemons()["kubelet"].since())
        print(f"{'node ' + NODE:20} {'ready' if ready else 'not ready'}")
        print(f"{'versions':20} Kubernetes {version['gitVersion']}, kubelet {facts['kubeletVersion']}, {facts['containerRuntimeVersion']}")
        print(f"{'addresses':20} API {self.settings.api}, pods {self.settings.pods}, pods see the host as {self.settings.pod_gateway}")
        print(f"export KUBECONFIG={self.configuration.admin}")
        return whole and ready

    def start(self, name):
        daemons = self.daemons(host.tools())
        daemon = daemons[name]
        daemon.start()
        if name == "containerd":
            self.wait_containerd(daemon)
        elif name == "apiserver":
            self.wait_apiserver(daemons)
        elif name == "etcd":
            port = (self.settings.loopback, ETCD_PORT)
            daemon.wait_ready(lambda: answers(port), 30)
        elif name == "kubelet":
            port = (self.settings.address, KUBELET_PORT)  # the API server may be down: no question of it
            daemon.wait_ready(lambda: answers(port), 120)
        daemon.must_run()


def answers(port):
    with contextlib.suppress(OSError):
        socket.create_connection(port, timeout=2).close()
        return True
    return False


def ip_forward():
    return pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()


def main(words):
    parser = argparse.ArgumentParser(prog="foredeck cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("up")
    verbs.add_parser("down").add_argument("--keep-data", action="store_true")
    verbs.add_parser("status")
    verbs.add_parser("load").add_argument("files", nargs="+", type=pathlib.Path)
    components = list(Cluster(Settings.load()).daemons())
    for verb in ("stop", "kill", "start"):
        verbs.add_parser(verb).add_argument("name", choices=components)
    asked = parser.parse_args(words)
    if os.geteuid() != 0:
        raise Failure("a test cluster needs root")
    settings = Settings.load()
    if asked.verb == "status":
        return 0 if Cluster(settings).status() else 1
    if asked.verb not in ("up", "down") and not settings.folder.exists():
        raise Failure("there is none: ./foredeck cluster up")
    with host.only_one(settings.folder):
        cluster = Cluster(Settings.load())
        if asked.verb == "up":
            cluster.up()
        elif asked.verb == "down":
            cluster.down(asked.keep_data)
        elif asked.verb == "load":
            tools = host.tools("ctr")
            for file in asked.files:
                print(cluster.load(file, tools), end="")
        elif asked.verb == "start":
            cluster.start(asked.name)
        else:
            cluster.daemons()[asked.name].stop(0 if asked.verb == "kill" else 20)
    return 0


if __name__ == "__main__":
    host.exit_with(main)
