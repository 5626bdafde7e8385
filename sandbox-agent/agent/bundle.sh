#!/bin/sh
# Builds the agent's runtime: bundle.sh <outdir> [<agent classes or jar> <protocol classes or jar>]
#
# <outdir> gets a JDK image that holds java.base and the agent's two modules, an AOT cache made from
# a training run that does what an agent does, and `argv`: the command that starts the agent, one
# word a line, with the folder mounted at /opt/foredeck/agent (FOREDECK_AGENT_HOME overrides).
# A second run with the same classes and the same JDK does nothing. Needs JAVA_HOME (JDK 25).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: bundle.sh <outdir> [<agent> <protocol>]}
agent=${2:-$here/target/classes}
protocol=${3:-$here/../protocol/target/classes}
home=${FOREDECK_AGENT_HOME:-/opt/foredeck/agent}
: "${JAVA_HOME:?is not set: the JDK 25 to build the runtime with}"

for part in "$agent" "$protocol"; do
  [ -e "$part" ] || { echo "bundle.sh: $part is missing: build the agent first" >&2; exit 1; }
done

content() {
  if [ -d "$1" ]; then (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum); else sha256sum < "$1"; fi
}
key=$({ content "$agent"; content "$protocol"; cat "$JAVA_HOME/release"; cat "$0"; echo "$home"; } | sha256sum | cut -d' ' -f1)
if [ -f "$out/key" ] && [ "$(cat "$out/key")" = "$key" ]; then
  exit 0
fi

parent=$(dirname "$out")
mkdir -p "$parent"
work=$(mktemp -d "$parent/.agent-bundle-XXXXXX")
trap 'rm -rf "$work"' EXIT

"$JAVA_HOME/bin/jlink" --module-path "$agent:$protocol" --add-modules dev.foredeck.agent \
  --strip-debug --no-header-files --no-man-pages --output "$work/image"

# What decides on the AOT cache's validity stands in both runs: the flags and the modules. The archive is mapped where it was
# made for: moved to another address, each page of it would become the sandbox's own (8 MB of each sandbox).
flags="-XX:+UnlockDiagnosticVMOptions
-XX:ArchiveRelocationMode=0
-XX:+UseSerialGC
-XX:TieredStopAtLevel=1
-Xms4m
-Xmx48m
-Xss256k
-XX:ReservedCodeCacheSize=16m
-XX:MaxDirectMemorySize=8m
-XX:MaxMetaspaceSize=48m
-XX:-UsePerfData
-XX:+ExitOnOutOfMemoryError
-XX:+DisableAttachMechanism
-Xrs
-Djava.net.preferIPv4Stack=true
-Djdk.virtualThreadScheduler.parallelism=2
--enable-native-access=dev.foredeck.agent"

# The training run: an agent that is its own control plane, in a folder of its own. The certificate
# is what a deployment shows over a network, and is gone with the folder's training.p12.
"$JAVA_HOME/bin/keytool" -genkeypair -alias training -keyalg EC -groupname secp256r1 -dname CN=training \
  -storetype PKCS12 -keystore "$work/training.p12" -storepass training > "$work/training.log" 2>&1 || {
  cat "$work/training.log" >&2
  echo "bundle.sh: no certificate was made" >&2
  exit 1
}
set -- $flags
"$work/image/bin/java" "$@" -XX:AOTCacheOutput="$work/image/agent.aot" -Xlog:aot=off -Xlog:cds=off \
  -m dev.foredeck.agent/dev.foredeck.agent.Training "$work" > "$work/training.log" 2>&1 || {
  cat "$work/training.log" >&2
  echo "bundle.sh: the training run failed" >&2
  exit 1
}
[ -f "$work/image/agent.aot" ] || { cat "$work/training.log" >&2; echo "bundle.sh: no AOT cache was written" >&2; exit 1; }

{
  echo "$home/bin/java"
  echo "$flags"
  echo "-XX:AOTCache=$home/agent.aot"
  echo "-m"
  echo "dev.foredeck.agent/dev.foredeck.agent.Agent"
} > "$work/image/argv"
# The same without the program, for `bin/java @options`: where the command must be known before the bundle is.
tail -n +2 "$work/image/argv" > "$work/image/options"
echo "$key" > "$work/image/key"
# Read by a sandbox's unprivileged user.
chmod -R go+rX "$work/image"

rm -rf "$out"
mv "$work/image" "$out"
