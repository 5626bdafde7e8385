#!/usr/bin/env python3
"""Makes a small image of local files: a tar in the OCI layout, which Docker can load too.

    image.py NAME FILE.tar PATH=LOCALFILE... [PATH->TARGET...] [--command WORD...]

For example `image.py localhost/busybox:1 busybox.tar /bin/busybox=/bin/busybox '/bin/sh->busybox' --command /bin/busybox sleep 1d`.
"""

import hashlib
import io
import json
import pathlib
import platform
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(files, links):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders = {parent for path in [*files, *links] for parent in pathlib.PurePosixPath(path).parents}
        for folder in sorted(folders - {pathlib.PurePosixPath("/")}):
            entry = tarfile.TarInfo(str(folder).lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, local in sorted(files.items()):
            content = pathlib.Path(local).read_bytes()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for path, target in sorted(links.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return out.getvalue()


def make_image(name, out, files, links=None, command=()):
    """Writes `out`: one layer with `files` (path in the image to local path, mode 0755, owner root) and the symbolic `links`. The same input gives the same bytes."""
    blobs = {}

    def blob(content, media):
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    def path(described):
        return "blobs/" + described["digest"].replace(":", "/")

    only = blob(layer(files, links or {}), "application/vnd.oci.image.layer.v1.tar")
    config = blob(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Cmd": list(command), "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [only["digest"]]},
        },
        "application/vnd.oci.image.config.v1+json",
    )
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = blob({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [only]}, manifest_type)
    manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    with tarfile.open(out, "w") as tar:
        # manifest.json is for `docker load`, which reads no OCI layout before version 25.
        saved = [{"Config": path(config), "RepoTags": [name], "Layers": [path(only)]}]
        contents = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index, "manifest.json": saved}
        entries = {path: json.dumps(content).encode() for path, content in contents.items()}
        entries |= {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
        for path, content in entries.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def main(words):
    command = []
    if "--command" in words:
        at = words.index("--command")
        words, command = words[:at], words[at + 1 :]
    if len(words) < 3:
        sys.exit(__doc__.strip())
    name, out, *parts = words
    links = dict(part.split("->", 1) for part in parts if "->" in part)
    files = dict(part.split("=", 1) for part in parts if "->" not in part)
    make_image(name, out, files, links, command)


if __name__ == "__main__":
    main(sys.argv[1:])
