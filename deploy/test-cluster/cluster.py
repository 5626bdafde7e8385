"""A real single-node Kubernetes on a bare host: brought up, taken down, broken on purpose.

    ./foredeck cluster up                       brings it up; prints `export KUBECONFIG=...`
    ./foredeck cluster down [--keep-data]       stops it and leaves nothing behind (or only its data, for a warm start)
    ./foredeck cluster status                   what runs; exit code 0 only if all of it does and the node is ready
    ./foredeck cluster load FILE.tar...         imports images (tar in the OCI layout or of `docker save`)
    ./foredeck cluster stop|kill|start NAME     one component, for tests of faults

README.md beside this file says how it is made, and what each part of it needs.
"""

import argparse
import base64
import calendar
import concurrent.futures
import contextlib
import dataclasses
import http.client
import ipaddress
import json
import os
import pathlib
import shutil
import socket
import ssl
import time

import host
import image
from host import Daemon, Failure, run, say

NODE = "test"
NODE_BRIDGE = "foredeck-node"
POD_BRIDGE = "foredeck-pods"
NFT_TABLE = "foredeck-test-cluster"
CGROUP = "foredeck-test-cluster"
PAUSE = "localhost/pause:1"
API_PORT, KUBELET_PORT, ETCD_PORT, ETCD_PEER_PORT = 6443, 10250, 2379, 2380

# Written by components outside our folder, whatever they are told.
DEVICE_PLUGINS = pathlib.Path("/var/lib/kubelet/device-plugins")
POD_LOG_LINKS = pathlib.Path("/var/log/containers")
CNI_RESULTS = pathlib.Path("/var/lib/cni/results")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where the cluster lives, and the addresses that nothing else on the host may have."""

    folder: pathlib.Path
    address: str  # of the API server and the kubelet, on a bridge of their own
    loopback: str  # of what only the host may reach
    pods: str
    services: str

    @staticmethod
    def load():
        """Those of the cluster that is there, else those of the environment."""
        folder = pathlib.Path(os.environ.get("FOREDECK_CLUSTER_DIR", "/var/lib/foredeck-test-cluster"))
        if not folder.is_absolute() or len(str(folder)) > 50:
            raise Failure(f"FOREDECK_CLUSTER_DIR is '{folder}': an absolute path of at most 50 characters (sockets lie in it)")
        wanted = Settings(
            folder,
            address=os.environ.get("FOREDECK_CLUSTER_ADDRESS", "10.99.0.1"),
            loopback=os.environ.get("FOREDECK_CLUSTER_LOOPBACK", "127.99.0.1"),
            pods=os.environ.get("FOREDECK_CLUSTER_PODS", "10.244.0.0/24"),
            services=os.environ.get("FOREDECK_CLUSTER_SERVICES", "10.96.0.0/16"),
        )
        wanted.check()
        before = host.Before(folder).read()
        return wanted if before is None else Settings(folder, **before["settings"])

    def addresses(self):
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "folder"}

    def check(self):
        for name, value in self.addresses().items():
            try:
                network = ipaddress.IPv4Network(value)
            except ValueError as wrong:
                raise Failure(f"FOREDECK_CLUSTER_{name.upper()}: {wrong}") from None
            if name == "loopback" and not network.is_loopback:
                raise Failure(f"FOREDECK_CLUSTER_LOOPBACK is '{value}': an address in 127.0.0.0/8")

    def check_free(self):
        in_use = host.networks_in_use(but={NODE_BRIDGE, POD_BRIDGE, "lo"})
        for name in ("address", "pods", "services"):
            network = ipaddress.IPv4Network(getattr(self, name))
            for other, where in in_use:
                if network.overlaps(other):
                    raise Failure(f"{network} is not free: {where} has {other}. Set FOREDECK_CLUSTER_{name.upper()} to another")

    @property
    def pod_gateway(self):
        return str(ipaddress.IPv4Network(self.pods)[1])

    @property
    def service_address(self):
        """Of the API server, as programs in pods find it."""
        return str(ipaddress.IPv4Network(self.services)[1])

    @property
    def api(self):
        return f"https://{self.address}:{API_PORT}"


# --- keys and client configurations --------------------------------------------------------------------------------------------


class Pki:
    """One authority, and a certificate for each who speaks or is spoken to. RSA keys in PKCS#1: fabric8 reads no others."""

    def __init__(self, folder):
        self.folder = folder

    def file(self, name):
        return self.folder / name

    def make(self, settings):
        if (self.folder / "done").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        server_names = [f"DNS:{name}" for name in names] + [f"IP:{settings.service_address}", f"IP:{settings.address}"]
        leaves = [
            ("apiserver", "/CN=kube-apiserver", server_names),
            ("apiserver-to-kubelet", "/O=system:masters/CN=apiserver-to-kubelet", None),
            ("admin", "/O=system:masters/CN=admin", None),
            ("controller-manager", "/CN=system:kube-controller-manager", None),
            ("scheduler", "/CN=system:kube-scheduler", None),
            ("node", f"/O=system:nodes/CN=system:node:{NODE}", None),
            ("kubelet", f"/CN={NODE}", [f"DNS:{NODE}", f"IP:{settings.address}"]),
        ]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._key, ["ca", "service-account", *[name for name, _, _ in leaves]]))
            self._openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=foredeck-test-cluster", "-days", "365", "-out", "ca.crt")
            self._openssl("rsa", "-in", "service-account.key", "-pubout", "-out", "service-account.pub")
            list(pool.map(lambda leaf: self._sign(*leaf), leaves))
        (self.folder / "done").touch()

    def _key(self, name):
        self._openssl("genrsa", "-traditional", "-out", f"{name}.key", "2048")

    def _sign(self, name, subject, server_names):
        usage = "clientAuth" if server_names is None else "serverAuth"
        extensions = f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage={usage}\n"
        if server_names is not None:
            extensions += f"subjectAltName={','.join(server_names)}\n"
        (self.folder / f"{name}.ext").write_text(extensions)
        self._openssl("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
        serial = "0x" + os.urandom(8).hex()
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", serial),
            *("-days", "365", "-extfile", f"{name}.ext", "-out", f"{name}.crt"),
        )

    def _openssl(self, *words):
        run(["sh", "-c", 'cd "$1" && shift && umask 077 && exec openssl "$@"', "sh", self.folder, *words])

    def kubeconfig(self, name, server):
        """JSON is YAML, and needs no writer of its own."""

        def text(file):
            return base64.b64encode(self.file(file).read_bytes()).decode()

        user = {"client-certificate-data": text(f"{name}.crt"), "client-key-data": text(f"{name}.key")}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": NFT_TABLE,
            "contexts": [{"name": NFT_TABLE, "context": {"cluster": NFT_TABLE, "user": name}}],
            "clusters": [{"name": NFT_TABLE, "cluster": {"server": server, "certificate-authority-data": text("ca.crt")}}],
            "users": [{"name": name, "user": user}],
        }


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


def cni_plugins():
    needed = ("bridge", "host-local", "loopback", "portmap")
    for folder in ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"):
        if all(os.access(f"{folder}/{name}", os.X_OK) for name in needed):
            return folder
    raise Failure("the CNI plugins are not installed (Debian: containernetworking-plugins)")


# --- the cluster ---------------------------------------------------------------------------------------------------------------


class Cluster:
    def __init__(self, settings):
        self.settings = settings
        self.folder = settings.folder
        self.pki = Pki(self.folder / "pki")
        self.api = Api(settings, self.pki)
        self.before = host.Before(self.folder)
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self.containerd_socket = self.folder / "run" / "containerd.sock"

    def daemons(self, tools=None):
        """By name, in the order in which they start. Without `tools` they can be looked at and stopped, not started."""
        commands = {} if tools is None else self.commands(tools)
        environment = host.environment(*sorted({path.parent for path in (tools or {}).values()}))
        names = ("etcd", "containerd", "apiserver", "controller-manager", "scheduler", "kubelet")
        return {name: Daemon(name, self.folder, commands.get(name, []), environment) for name in names}

    def commands(self, tools):
        folder, settings, key = self.folder, self.settings, self.pki.file
        etcd, peer = f"http://{settings.loopback}:{ETCD_PORT}", f"http://{settings.loopback}:{ETCD_PEER_PORT}"
        loopback_only = [f"--bind-address={settings.loopback}", "--leader-elect=false", "--profiling=false"]
        return {
            "etcd": [
                tools["etcd"],
                *("--name", NODE, "--data-dir", folder / "etcd", "--log-level", "warn", "--unsafe-no-fsync"),
                *("--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", peer),
                *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"{NODE}={peer}"),
            ],
            "containerd": [tools["containerd"], "--config", folder / "containerd.toml"],
            "apiserver": [
                tools["kube-apiserver"],
                f"--etcd-servers={etcd}",
                f"--bind-address={settings.address}",
                f"--advertise-address={settings.address}",
                f"--secure-port={API_PORT}",
                f"--service-cluster-ip-range={settings.services}",
                f"--tls-cert-file={key('apiserver.crt')}",
                f"--tls-private-key-file={key('apiserver.key')}",
                f"--client-ca-file={key('ca.crt')}",
                f"--kubelet-certificate-authority={key('ca.crt')}",
                f"--kubelet-client-certificate={key('apiserver-to-kubelet.crt')}",
                f"--kubelet-client-key={key('apiserver-to-kubelet.key')}",
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={key('service-account.pub')}",
                f"--service-account-signing-key-file={key('service-account.key')}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--anonymous-auth=false",
                "--allow-privileged=true",
                "--profiling=false",
                f"--cert-dir={folder / 'apiserver'}",
                f"--audit-policy-file={folder / 'audit-policy.json'}",
                f"--audit-log-path={folder / 'logs' / 'audit.log'}",
                "--audit-log-maxsize=100",
                "--audit-log-maxbackup=1",
            ],
            "controller-manager": [
                tools["kube-controller-manager"],
                *loopback_only,
                f"--kubeconfig={folder / 'controller-manager.kubeconfig'}",
                "--use-service-account-credentials",
                f"--root-ca-file={key('ca.crt')}",
                f"--service-account-private-key-file={key('service-account.key')}",
                f"--cert-dir={folder / 'controller-manager'}",
                f"--flex-volume-plugin-dir={folder / 'volume-plugins'}",
            ],
            "scheduler": [
                tools["kube-scheduler"],
                *loopback_only,
                f"--kubeconfig={folder / 'scheduler.kubeconfig'}",
                f"--cert-dir={folder / 'scheduler'}",
            ],
            "kubelet": [
                tools["kubelet"],
                f"--config={folder / 'kubelet.json'}",
                f"--kubeconfig={folder / 'node.kubeconfig'}",
                f"--root-dir={folder / 'kubelet'}",
                f"--hostname-override={NODE}",
                f"--node-ip={settings.address}",
            ],
        }

    def write_configuration(self, tools):
        folder, settings = self.folder, self.settings
        for name in ("cni", "logs/pods", "run", "volume-plugins"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for user in ("admin", "controller-manager", "scheduler", "node"):
            self.write(f"{user}.kubeconfig", self.pki.kubeconfig(user, settings.api))
        (folder / "resolv.conf").touch()  # pods have no name server
        self.write(
            "audit-policy.json",
            {
                "apiVersion": "audit.k8s.io/v1",
                "kind": "Policy",
                "omitStages": ["RequestReceived"],
                "rules": [{"level": "None", "verbs": ["get", "list", "watch"]}, {"level": "Metadata"}],
            },
        )
        self.write("kubelet.json", self.kubelet_configuration())
        self.write(
            "cni/pods.conflist",
            {
                "cniVersion": "1.0.0",
                "name": POD_BRIDGE,
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": POD_BRIDGE,
                        "isGateway": True,
                        "ipMasq": False,
                        "hairpinMode": True,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": str(folder / "cni-leases"),
                            "ranges": [[{"subnet": settings.pods}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    },
                ],
            },
        )
        (folder / "containerd.toml").write_text(self.containerd_configuration(tools))
        # net-raw: the firewall inside a gVisor pod needs a raw socket.
        (folder / "runsc.toml").write_text(
            f"""binary_name = '{tools["runsc"]}'
root = '{folder}/runsc'
log_path = '{folder}/logs/runsc-%ID%.log'
log_level = 'warning'
[runsc_config]
platform = 'systrap'
net-raw = 'true'
"""
        )

    def kubelet_configuration(self):
        folder, settings, key = self.folder, self.settings, self.pki.file
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": settings.address,
            "port": KUBELET_PORT,
            "healthzBindAddress": settings.loopback,
            "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(key("ca.crt"))},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(key("kubelet.crt")),
            "tlsPrivateKeyFile": str(key("kubelet.key")),
            "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
            "failCgroupV1": False,  # 1.36 refuses version 1 otherwise
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "oomScoreAdj": 0,  # a root without CAP_SYS_RESOURCE may not lower it
            "makeIPTablesUtilChains": False,
            "failSwapOn": False,
            "podLogsDir": str(folder / "logs" / "pods"),
            "volumePluginDir": str(folder / "volume-plugins"),
            "resolvConf": str(folder / "resolv.conf"),
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "maxPods": min(250, ipaddress.IPv4Network(settings.pods).num_addresses - 3),
            "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "evictionPressureTransitionPeriod": "10s",
            # Images are imported by hand: one that is collected does not come back.
            "imageGCHighThresholdPercent": 99,
            "imageGCLowThresholdPercent": 98,
        }

    def containerd_configuration(self, tools):
        folder = self.folder
        return f"""version = 3
root = '{folder}/containerd/root'
state = '{folder}/containerd/state'
temp = '{folder}/containerd/temp'
imports = []
oom_score = 0
[grpc]
address = '{self.containerd_socket}'
[ttrpc]
address = '{self.containerd_socket}.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
path = '{folder}/containerd/opt'
[plugins.'io.containerd.nri.v1.nri']
disable = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.grpc.v1.cri']
stream_server_address = '{self.settings.loopback}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{cni_plugins()}']
conf_dir = '{folder}/cni'
use_internal_loopback = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{tools["runc"]}'
Root = '{folder}/runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc]
runtime_type = 'io.containerd.runsc.v1'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc.options]
TypeUrl = 'io.containerd.runsc.v1.options'
ConfigPath = '{folder}/runsc.toml'
"""

    def write(self, name, content):
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(json.dumps(content, indent=1) + "\n")

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
        if "-P FORWARD DROP" in run(["iptables", "-w", "10", "-S", "FORWARD"], check=False) and not self.forward_rule("-C"):
            if not self.forward_rule("-I"):
                raise Failure("iptables refuses a rule in the FORWARD chain, whose policy is DROP")

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
        self.pki.make(self.settings)
        self.write_configuration(tools)
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
        kubelet.wait_ready(lambda: self.api.node_ready(kubelet.since()), 60)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        daemons["controller-manager"].wait_ready(lambda: self.api.call("GET", account)[0] == 200, 30)
        daemons["scheduler"].must_run()
        say(f"the cluster is up ({time.monotonic() - begin:.1f} s)")
        print(f"export KUBECONFIG={self.kubeconfig}", flush=True)

    def refuse_other_kubelet(self):
        """Two kubelets on a host would share a socket whose path is compiled in."""
        if self.daemons()["kubelet"].pid() is not None:
            return
        if host.listens(DEVICE_PLUGINS / "kubelet.sock"):
            raise Failure("this host is a Kubernetes node already: set KUBECONFIG and use that cluster")

    def wait_containerd(self, containerd):
        containerd.wait_ready(lambda: host.listens(self.containerd_socket), 30)

    def wait_apiserver(self, daemons):
        def alive():
            daemons["etcd"].must_run()
            return self.api.ready()

        daemons["apiserver"].wait_ready(alive, 60)

    def import_pause(self, tools):
        file = self.folder / "pause.tar"
        image.make_image(PAUSE, file, {"/pause": tools["pause"]}, command=["/pause"])
        self.load(file, tools)

    def load(self, file, tools):
        """What was imported, as ctr says it."""
        ctr = [tools["ctr"], "--address", self.containerd_socket, "--namespace", "k8s.io", "--timeout", "10s"]
        return run([*ctr, "images", "import", file], timeout=300)

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
        if keep_data:
            for name in ("containerd/state", "containerd/temp", "runc", "runsc", "cni-leases", "run"):  # what a reboot would clear
                shutil.rmtree(self.folder / name, ignore_errors=True)
        else:
            host.remove_tree(self.folder)
        if left := self.leftovers(before, keep_data):
            raise Failure("this is left of the cluster:\n" + "\n".join("  " + line for line in left))

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

    def leftovers(self, before, keep_data):
        left = [f"process {pid}: {' '.join(host.command_line(pid))[:200]}" for pid in self.processes()]
        left += [f"mount {point}" for point in host.mounts(self.folder)]
        left += [f"interface {name}" for name in sorted({NODE_BRIDGE, POD_BRIDGE} & host.interfaces())]
        left += [f"control group {folder}" for folder in host.cgroup_folders(CGROUP)]
        left += [f"nft table inet {NFT_TABLE}"] if self.has_nft_table() else []
        left += ["a rule in iptables' FORWARD chain"] if self.forward_rule("-C") else []
        left += [f"file {file}" for file in self.outside_files(before)]
        if not keep_data and self.folder.exists():
            left.append(f"folder {self.folder}")
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
        print(f"export KUBECONFIG={self.kubeconfig}")
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
            daemon.wait_ready(lambda: answers(port), 60)
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
