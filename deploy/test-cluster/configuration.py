"""What the cluster's components are told: addresses, keys, command lines, configuration files."""

import base64
import concurrent.futures
import dataclasses
import ipaddress
import json
import os
import pathlib
import shutil

import host
from host import Failure, run

CLUSTER = "foredeck-test-cluster"
NODE = "test"
NODE_BRIDGE = "foredeck-node"
POD_BRIDGE = "foredeck-pods"
CGROUP = CLUSTER
PAUSE = "localhost/pause:1"
API_PORT, KUBELET_PORT, ETCD_PORT, ETCD_PEER_PORT = 6443, 10250, 2379, 2380


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
            "current-context": CLUSTER,
            "contexts": [{"name": CLUSTER, "context": {"cluster": CLUSTER, "user": name}}],
            "clusters": [{"name": CLUSTER, "cluster": {"server": server, "certificate-authority-data": text("ca.crt")}}],
            "users": [{"name": name, "user": user}],
        }


def cni_plugins():
    needed = ("bridge", "host-local", "loopback", "portmap")
    for folder in ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"):
        if all(os.access(f"{folder}/{name}", os.X_OK) for name in needed):
            return folder
    raise Failure("the CNI plugins are not installed (Debian: containernetworking-plugins)")


# --- the components ------------------------------------------------------------------------------------------------------------


class Configuration:
    def __init__(self, settings):
        self.settings = settings
        self.folder = settings.folder
        self.pki = Pki(self.folder / "pki")
        self.admin = self.folder / "admin.kubeconfig"
        self.containerd_socket = self.folder / "run" / "containerd.sock"

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

    def write_files(self, tools):
        folder, settings = self.folder, self.settings
        for name in ("cni", "logs/pods", "run", "volume-plugins"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # The init of a pod with user namespaces is nobody here, and passes through on its way to the pod's root.
        (folder / "containerd").mkdir(exist_ok=True)
        (folder / "containerd").chmod(0o711)
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
