#!/usr/bin/env python3
"""Builds Foredeck's images without Docker and without a registry.

    images/build.py [--out DIR] [--fresh] [--docker] [NAME ...]

Each image becomes one archive, OUT/NAME.tar, that both `ctr images import` (an OCI layout) and `docker load` take. Root file
systems come from Debian's signed archive (mmdebstrap), everything else from this checkout. An archive whose inputs have not
changed is not made again; --fresh makes it again all the same (Debian's security updates are an input that nothing here can
see). --docker loads what was built into the Docker daemon. Prints one line for each image: NAME REFERENCE BYTES PATH.

Standard library only. Needs root (mmdebstrap unpacks as root) and, for `agent` and `control-plane`, what ./foredeck builds.
"""

import argparse
import fcntl
import fnmatch
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HERE = ROOT / "images"
SUITE = "bookworm"
# Files get this time where nothing else says one, so that equal inputs give equal layers.
EPOCH = 1767225600
MMDEBSTRAP_SECONDS = 900
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# What a person or an agent works in. Debian slim: no documentation, no translations, no recommended packages.
SLIM = [
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
]
# The sandbox's user, and every place that a driver mounts something at.
SANDBOX = (
    'echo "sandbox:x:1000:1000::/workspace:/bin/bash" >> "$1/etc/passwd" && '
    'echo "sandbox:x:1000:" >> "$1/etc/group" && '
    'mkdir -p "$1/workspace" "$1/run/foredeck" "$1/opt/foredeck/agent" && chown 1000:1000 "$1/workspace"'
)
BASE = ["bash", "ca-certificates", "curl", "git", "procps", "python3"]


def debian(variant, packages, setup=()):
    """A root file system as the bytes' path: layers of one image are files on disk, never in memory."""
    return {"kind": "debian", "variant": variant, "packages": sorted(packages), "setup": list(setup)}


IMAGES = {
    "agent": {
        "layers": [debian("extract", ["busybox-static"]), {"kind": "folder", "from": "sandbox-agent/agent/target/bundle", "to": ""}],
        "config": {},
        "about": "the sandbox agent's runtime, for an image volume or an init container",
    },
    "firewall": {
        "layers": [
            debian("extract", ["busybox-static", "iptables", "nftables"]),
            {"kind": "file", "from": "images/firewall/foredeck-firewall", "to": "usr/sbin/foredeck-firewall"},
        ],
        "config": {"Entrypoint": ["/bin/busybox", "sh", "/usr/sbin/foredeck-firewall"]},
        "about": "the init container that closes a pod's network",
    },
    "base": {
        "layers": [debian("minbase", BASE, [SANDBOX])],
        "config": {"User": "1000:1000", "WorkingDir": "/workspace", "Cmd": ["/bin/bash"]},
        "about": "Debian slim with git, curl, procps and python3",
    },
    "python": {
        "layers": [debian("minbase", BASE + ["python3-matplotlib", "python3-numpy", "python3-pandas"], [SANDBOX])],
        "config": {"User": "1000:1000", "WorkingDir": "/workspace", "Cmd": ["/bin/bash"], "Env": ["MPLCONFIGDIR=/tmp/matplotlib"]},
        "about": "base with numpy, pandas and matplotlib",
    },
    "control-plane": {
        "layers": [
            debian("minbase", ["ca-certificates"], ['echo "foredeck:x:10001:10001::/nonexistent:/usr/sbin/nologin" >> "$1/etc/passwd"']),
            {"kind": "runtime"},
            {"kind": "folder", "from": "control-plane/app/target/classes", "to": "opt/foredeck/classes"},
            # An image is for an outside PostgreSQL: the embedded one stays out of it.
            {"kind": "folder", "from": "control-plane/app/target/lib", "to": "opt/foredeck/lib",
             "except": ["foredeck-store-embedded-*", "embedded-postgres-binaries-*", "*-tests.jar"]},
        ],
        "config": {
            "User": "10001:10001",
            "Entrypoint": [
                "/opt/foredeck/runtime/bin/java", "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
                "-XX:+UseSerialGC", "-XX:MaxRAMPercentage=60", "-XX:+ExitOnOutOfMemoryError",
                "-cp", "/opt/foredeck/classes:/opt/foredeck/lib/*", "dev.foredeck.app.Main",
            ],
            "Cmd": ["up"],
        },
        "about": "the control plane and the egress gateway (arguments: up, gateway)",
    },
}
# Every module that the control plane or its libraries may load.
RUNTIME_MODULES = "java.se,jdk.crypto.ec,jdk.httpserver,jdk.localedata,jdk.management,jdk.naming.dns,jdk.net,jdk.unsupported,jdk.zipfs"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Fault(Exception):
    """What a person has to change; shown without a stack trace."""


def say(text):
    print("images: " + text, file=sys.stderr, flush=True)


def require_folder(name):
    folder = ROOT / name
    if not folder.is_dir() or not any(folder.iterdir()):
        raise Fault(f"{name} is not built: run ./foredeck images, which builds it first")
    return folder


def jdk():
    home = os.environ.get("JAVA_HOME", "")
    if not home or not os.access(home + "/bin/jlink", os.X_OK):
        raise Fault("JAVA_HOME must name a JDK 25: run ./foredeck images, which looks for it")
    return pathlib.Path(home)


def files_below(folder):
    """Relative paths in one order, whatever the file system says."""
    found = []
    for directory, names, leaves in os.walk(folder):
        names.sort()
        found += [os.path.relpath(os.path.join(directory, leaf), folder) for leaf in names + leaves]
    return sorted(found)


def digest_of(layer):
    """What the layer is made from, so that an image is made again only when it would differ."""
    seen = hashlib.sha256(json.dumps(layer, sort_keys=True).encode())
    kind = layer["kind"]
    if kind == "file":
        seen.update((ROOT / layer["from"]).read_bytes())
    elif kind == "folder":
        folder = require_folder(layer["from"])
        for name in files_below(folder):
            path = folder / name
            seen.update(name.encode())
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as stream:
                    seen.update(hashlib.file_digest(stream, "sha256").digest())
    elif kind == "runtime":
        seen.update((jdk() / "release").read_bytes() + RUNTIME_MODULES.encode())
    return seen.hexdigest()


def run(argv, seconds, **more):
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False, **more)
    except FileNotFoundError:
        raise Fault(f"{argv[0]} is missing: apt-get install {argv[0]}") from None
    except subprocess.TimeoutExpired:
        raise Fault(f"{argv[0]} did not end within {seconds} s") from None
    if done.returncode != 0:
        raise Fault(f"{argv[0]} failed:\n" + "\n".join(done.stdout.decode(errors="replace").splitlines()[-15:]))


def plain(entry):
    """Owned by root, of one time: nothing of the machine that built it stays in a layer."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = EPOCH
    return entry


def add_parents(archive, name, known):
    parts = name.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        parent = "/".join(parts[:end])
        if parent and parent not in known:
            known.add(parent)
            entry = plain(tarfile.TarInfo(parent))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)


def pack(folder, target, prefix, excepted=()):
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        known = set()
        for name in files_below(folder):
            if any(fnmatch.fnmatch(part, pattern) for part in name.split("/") for pattern in excepted):
                continue
            inside = prefix + "/" + name if prefix else name
            add_parents(archive, inside, known)
            known.add(inside)
            archive.add(os.path.join(folder, name), inside, recursive=False, filter=plain)


def make_layer(layer, target, work):
    kind = layer["kind"]
    if kind == "debian":
        hooks = [f"--customize-hook={hook}" for hook in layer["setup"]]
        # Which versions these are, for whoever has to know later.
        hooks.append('--customize-hook=mkdir -p "$1/usr/share/foredeck" && dpkg-query --admindir="$1/var/lib/dpkg" -W '
                     '> "$1/usr/share/foredeck/packages" 2>/dev/null || true')
        mirror = [os.environ["FOREDECK_DEBIAN_MIRROR"]] if os.environ.get("FOREDECK_DEBIAN_MIRROR") else []
        run(["mmdebstrap", "--quiet", "--mode=root", f"--variant={layer['variant']}", "--include=" + ",".join(layer["packages"]),
             *SLIM, *hooks, SUITE, str(target), *mirror],
            MMDEBSTRAP_SECONDS, env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "DEBIAN_FRONTEND": "noninteractive"})
    elif kind == "file":
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
            add_parents(archive, layer["to"], set())
            entry = plain(archive.gettarinfo(ROOT / layer["from"], layer["to"]))
            entry.mode = 0o755
            with open(ROOT / layer["from"], "rb") as stream:
                archive.addfile(entry, stream)
    elif kind == "folder":
        pack(require_folder(layer["from"]), target, layer["to"], layer.get("except", ()))
    elif kind == "runtime":
        image = work / "runtime"
        run([str(jdk() / "bin/jlink"), "--add-modules", RUNTIME_MODULES, "--strip-debug", "--no-header-files", "--no-man-pages",
             "--output", str(image)], 300)
        pack(image, target, "opt/foredeck/runtime")
        shutil.rmtree(image)
    else:
        raise AssertionError(kind)


def layer_archive(name, number, layer, cache, fresh, work):
    """What does not hold this checkout's own files is kept for the next time: it takes the most time and changes the least."""
    if layer["kind"] not in ("debian", "runtime"):
        path = work / f"{number}.tar"
        make_layer(layer, path, work)
        return path
    key = hashlib.sha256((digest_of(layer) + os.uname().machine).encode() + pathlib.Path(__file__).read_bytes()).hexdigest()
    cache.mkdir(exist_ok=True)
    path = cache / f"{name}-{number}-{key}.tar"
    if fresh or not path.exists():
        for stale in cache.glob(f"{name}-{number}-*.tar"):
            stale.unlink()
        aside = work / f"{number}.tar"
        make_layer(layer, aside, work)
        aside.replace(path)
    return path


def assemble(name, spec, reference, target, work, cache, fresh):
    """An archive that is an OCI layout and a `docker save` at once: the blobs are the same, only the indexes differ."""
    architecture = ARCHITECTURES.get(os.uname().machine)
    if architecture is None:
        raise Fault(f"there are no images for {os.uname().machine}: x86_64 and aarch64")
    blobs = []

    def blob(path_or_bytes, media):
        if isinstance(path_or_bytes, bytes):
            digest, size = hashlib.sha256(path_or_bytes).hexdigest(), len(path_or_bytes)
        else:
            with open(path_or_bytes, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = os.path.getsize(path_or_bytes)
        blobs.append((digest, path_or_bytes))
        return {"mediaType": media, "digest": "sha256:" + digest, "size": size}

    layers = []
    for number, layer in enumerate(spec["layers"]):
        layers.append(blob(layer_archive(name, number, layer, cache, fresh, work), "application/vnd.oci.image.layer.v1.tar"))
    config = dict(spec["config"])
    config["Env"] = ["PATH=" + PATH, "LANG=C.UTF-8", *config.get("Env", [])]
    config["Labels"] = {"org.opencontainers.image.title": "foredeck-" + name, "org.opencontainers.image.description": spec["about"]}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
    config_blob = blob(
        json.dumps({
            "created": created, "architecture": architecture, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
            "history": [{"created": created, "created_by": "foredeck images"} for _ in layers],
        }, sort_keys=True).encode(),
        "application/vnd.oci.image.config.v1+json")
    manifest = blob(
        json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config_blob,
                    "layers": layers}, sort_keys=True).encode(),
        "application/vnd.oci.image.manifest.v1+json")
    manifest["annotations"] = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference.rpartition(":")[2]}
    file_of = lambda digest: "blobs/sha256/" + digest.removeprefix("sha256:")
    texts = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]},
        "manifest.json": [{"Config": file_of(config_blob["digest"]), "RepoTags": [reference],
                           "Layers": [file_of(layer["digest"]) for layer in layers]}],
    }
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for text, value in texts.items():
            data = json.dumps(value, sort_keys=True).encode()
            entry = plain(tarfile.TarInfo(text))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for digest, content in dict(blobs).items():
            entry = plain(tarfile.TarInfo("blobs/sha256/" + digest))
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.size = os.path.getsize(content)
                with open(content, "rb") as stream:
                    archive.addfile(entry, stream)


def build(name, out, fresh):
    spec = IMAGES[name]
    key = hashlib.sha256(json.dumps([spec, [digest_of(layer) for layer in spec["layers"]], os.uname().machine, EPOCH],
                                    sort_keys=True).encode())
    key.update(pathlib.Path(__file__).read_bytes())
    key = key.hexdigest()
    # The tag names the content: a cluster that has this image has exactly this one.
    reference = f"localhost/foredeck-{name}:{key[:12]}"
    target, stamp = out / f"{name}.tar", out / f"{name}.key"
    if fresh or not target.exists() or not stamp.exists() or stamp.read_text() != key:
        if os.geteuid() != 0:
            raise Fault("building images needs root: run it with sudo")
        say(f"building {name}: {spec['about']}")
        stamp.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as work:
            aside = pathlib.Path(work) / "image.tar"
            assemble(name, spec, reference, aside, pathlib.Path(work), out / "layers", fresh)
            aside.replace(target)
        stamp.write_text(key)
    return reference, target


def in_docker(reference):
    """Its tag names the content: an image that is there is this one."""
    return subprocess.run(["docker", "image", "inspect", reference], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode == 0


def default_out():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(cache) / "foredeck" / "images"


def main():
    parser = argparse.ArgumentParser(prog="images/build.py", description=__doc__.splitlines()[0],
                                     epilog="images: " + "; ".join(f"{name}: {spec['about']}" for name, spec in IMAGES.items()))
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(IMAGES) + " (default: all)")
    parser.add_argument("--out", type=pathlib.Path, default=default_out(), help="where the archives go (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make them again, with what Debian has today")
    parser.add_argument("--docker", action="store_true", help="load them into the Docker daemon")
    options = parser.parse_args()
    names = options.names or list(IMAGES)
    for name in names:
        if name not in IMAGES:
            parser.error(f"there is no image '{name}'; there are: {', '.join(IMAGES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names:
            reference, target = build(name, options.out, options.fresh)
            if options.docker and not in_docker(reference):
                run(["docker", "load", "--quiet", "--input", str(target)], 600)
            print(name, reference, target.stat().st_size, target, flush=True)


if __name__ == "__main__":
    try:
        main()
    except Fault as fault:
        say(str(fault))
        sys.exit(2)
