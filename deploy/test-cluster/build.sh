#!/usr/bin/env bash
# Builds the test cluster's programs from Go modules, each pinned with its own go.sum, and prints the path of each.
#
#   deploy/test-cluster/build.sh             all of them (the first time about eight minutes of two cores)
#   deploy/test-cluster/build.sh runsc       only what is named (and what is built together with it)
#   deploy/test-cluster/build.sh --only-built [NAME...]    builds nothing: prints what is there
#
# They are kept outside the checkout, one folder for each module and content of its build: a second run only prints. A run that is cut
# off leaves nothing that another could take for whole.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
least_go=1.26.6

say() { printf 'test-cluster: %s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

cache_home() {
  if [ -n "${XDG_CACHE_HOME:-}" ]; then echo "$XDG_CACHE_HOME"
  elif [ "$(id -u)" = 0 ]; then echo /var/cache
  else echo "$HOME/.cache"
  fi
}
cache=$(cache_home)/foredeck/test-cluster

# --- what is built from which module -------------------------------------------------------------------------------------------

modules=(kubernetes etcd containerd runc gvisor pause)
programs_of_kubernetes="kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl"
programs_of_etcd="etcd"
programs_of_containerd="containerd containerd-shim-runc-v2 ctr"
programs_of_runc="runc"
programs_of_gvisor="runsc containerd-shim-runsc-v1"
programs_of_pause="pause"

# Each build_MODULE runs in a copy of the module's folder, and puts its programs into the folder $1. The text of the function is part of
# the cache's key.

build_kubernetes() {
  # Without the stamp the server says v0.0.0-master, and clients take it for an ancient one.
  local version major_minor
  version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' go.mod)
  major_minor=${version#v1.}
  local stamp="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/client-go/pkg/version.gitVersion=$version"
  stamp+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${major_minor%%.*}"
  local program packages=()
  for program in $programs_of_kubernetes; do packages+=("k8s.io/kubernetes/cmd/$program"); done
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $stamp" -o "$1/" "${packages[@]}"
}

build_etcd() {
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/etcd" go.etcd.io/etcd/server/v3
}

build_containerd() {
  local package=github.com/containerd/containerd/v2 version
  version=$(sed -n 's/^\tgithub.com\/containerd\/containerd\/v2 \(v[0-9.]*\).*/\1/p' go.mod)
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X $package/version.Version=$version" -o "$1/" \
    $package/cmd/containerd $package/cmd/containerd-shim-runc-v2 $package/cmd/ctr
}

build_runc() {
  local version
  version=$(sed -n 's/^\tgithub.com\/opencontainers\/runc v\([0-9.]*\).*/\1/p' go.mod)
  CGO_ENABLED=1 go build -trimpath -tags "seccomp urfave_cli_no_docs" -ldflags "-s -w -X main.version=$version" \
    -o "$1/runc" github.com/opencontainers/runc
}

build_gvisor() {
  # The shim gives itself an oom_score_adj of -999 and stops when that is refused, as it is to a root without CAP_SYS_RESOURCE.
  local source=vendor/gvisor.dev/gvisor/pkg/shim/v1/manager.go version
  version=$(sed -n 's/^\tgvisor.dev\/gvisor \(v[^ ]*\).*/\1/p' go.mod)
  go mod vendor
  grep -q 'oomScoreMax = -999$' $source || { say "gVisor's $source has changed: look at the edit in build.sh"; return 1; }
  sed -i 's/oomScoreMax = -999$/oomScoreMax = 0/' $source
  local stamp="-s -w -X gvisor.dev/gvisor/runsc/version.version=$version"
  GOFLAGS= CGO_ENABLED=0 go build -mod=vendor -trimpath -buildvcs=false -ldflags "$stamp" -o "$1/runsc" gvisor.dev/gvisor/runsc
  GOFLAGS= CGO_ENABLED=0 go build -mod=vendor -trimpath -buildvcs=false -ldflags "$stamp" -o "$1/containerd-shim-runsc-v1" gvisor.dev/gvisor/shim
}

build_pause() {
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$1/pause" .
}

# --- the cache -----------------------------------------------------------------------------------------------------------------

programs_of() { local name=programs_of_$1; echo "${!name}"; }

key() {
  { (cd "$here/tools/$1" && sha256sum -- *); declare -f "build_$1"; programs_of "$1"; uname -m; } | sha256sum | cut -c1-16
}

find_go() {
  local candidate found='' version
  for candidate in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go/bin/go; do
    [ -n "$candidate" ] && [ -x "$candidate" ] || continue
    version=$(GOTOOLCHAIN=local "$candidate" env GOVERSION 2>/dev/null | sed 's/^go//')
    found="$found $candidate is ${version:-broken}."
    if [ -n "$version" ] && [ "$(printf '%s\n%s\n' $least_go "$version" | sort -V | head -n 1)" = $least_go ]; then
      PATH=$(dirname "$candidate"):$PATH
      return
    fi
  done
  say "Go $least_go or newer is needed to build the test cluster.${found:- No Go is on the PATH or in /usr/local/go.}"
  say "Install it as https://go.dev/doc/install says (unpack go$least_go.linux-*.tar.gz into /usr/local), and run this again."
  exit 2
}

need_compiler() {
  if ! command -v gcc >/dev/null || ! command -v pkg-config >/dev/null || ! pkg-config --exists libseccomp; then
    die "runc is built with gcc, pkg-config and libseccomp's headers (Debian: apt-get install gcc libc6-dev pkg-config libseccomp-dev)"
  fi
}

# The programs are whole when their folder exists: it is renamed into place.
build_module() (
  module=$1
  done=$cache/$module-$(key "$module")
  [ -d "$done" ] && return
  mkdir -p "$cache"
  exec 9>"$cache/.lock-$module"
  flock 9
  [ -d "$done" ] && return
  find_go
  [ "$module" != runc ] || need_compiler
  say "building $(programs_of "$module")"
  rm -rf "$cache/.building-$module-"*   # from a run that was cut off: we hold the lock
  work=$(mktemp -d "$cache/.building-$module-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  cp -r "$here/tools/$module" "$work/source"
  mkdir "$work/bin"
  begin=$SECONDS
  export GOFLAGS='-mod=readonly -buildvcs=false' GOTOOLCHAIN=local GOWORK=off
  # Not within an `if`: bash would switch -e off in the function.
  (cd "$work/source" && "build_$module" "$work/bin" 9>&-) >&2
  for program in $(programs_of "$module"); do
    [ -x "$work/bin/$program" ] || die "$module was built and has no $program"
  done
  chmod 755 "$work/bin"
  mv -T "$work/bin" "$done"
  say "built $(programs_of "$module") in $((SECONDS - begin)) s"
)

module_of() {
  local module program
  for module in "${modules[@]}"; do
    for program in $(programs_of "$module"); do
      [ "$program" != "$1" ] || { echo "$module"; return; }
    done
  done
  die "no program is called $1. There are: $(for module in "${modules[@]}"; do programs_of "$module"; done | tr '\n' ' ')"
}

only_built=
if [ "${1:-}" = --only-built ]; then only_built=yes; shift; fi
wanted=("$@")
[ $# -gt 0 ] || read -ra wanted <<<"$(for module in "${modules[@]}"; do programs_of "$module"; done | tr '\n' ' ')"
declare -A of
for program in "${wanted[@]}"; do of[$program]=$(module_of "$program"); done
for module in "${modules[@]}"; do
  case " ${of[*]} " in *" $module "*) [ -n "$only_built" ] || build_module "$module" ;; esac
done
for program in "${wanted[@]}"; do
  path=$cache/${of[$program]}-$(key "${of[$program]}")/$program
  [ ! -x "$path" ] || echo "$path"
done
