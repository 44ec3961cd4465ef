#!/usr/bin/env bash
# Runs both plugins on this package and looks at what they leave: the command plugin converts once and then leaves the files
# alone, the build-tool plugin makes the artifact a resource, and a missing or failing snapc is an error.
#
# SNAPC names snapc. SWIFT is how swift is called (default: swift). SCRATCH is the folder to build in (default: .build).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
: "${SNAPC:?name the snapc to test}"
export SNAPC
read -ra swift <<< "${SWIFT:-swift}"
scratch=${SCRATCH:-.build}
models=Sources/CommandStep/Models
log=$(mktemp)
# Files that are newer than this one were written behind our back.
mark=$(mktemp)
trap 'rm -f "$log" "$mark"' EXIT

fail() {
    echo "check.sh: $1" >&2
    cat "$log" >&2
    exit 1
}

# The command plugin with flags of its own; the log has all it says.
convert() {
    "${swift[@]}" package --scratch-path "$scratch" --allow-writing-to-package-directory snapc-convert "$@" > "$log" 2>&1
}

says() { grep -qF -- "$1" "$log" || fail "'$1' is not said"; }

written() { find "$@" -newer "$mark"; }

rm -rf "$models"
convert --target CommandStep || fail "the command plugin failed"
says "converting: there is no artifact"
"$SNAPC" verify "$models/Tiny" > "$log" 2>&1 || fail "the artifact is not one"
touch "$mark"
convert --target CommandStep || fail "the command plugin failed at the second time"
says "unchanged"
[ -z "$(written "$models")" ] || fail "files were written though nothing had changed"
convert --target CommandStep --steps 4 || fail "the command plugin failed with flags"
says "another --steps"
convert --target CommandStep || fail "the command plugin failed without the flags"

if convert --target ArtifactCheck; then fail "a target without settings was converted"; fi
says "no snapc.toml"
if SNAPC=/does/not/exist convert --target CommandStep; then fail "there was no snapc"; fi
says "no executable file"
if convert --target CommandStep --attention none; then fail "snapc was given a wrong flag"; fi
says "ended with code 2"

"${swift[@]}" build --scratch-path "$scratch" > "$log" 2>&1 || fail "the build failed"
bin=$("${swift[@]}" build --scratch-path "$scratch" --show-bin-path)
for step in CommandStep PrebuildStep; do
    "$bin/$step" > "$log" 2>&1 || fail "$step failed"
    says "files of the artifact are in the bundle"
done
# The next build finds nothing to convert.
touch "$mark"
"${swift[@]}" build --scratch-path "$scratch" > "$log" 2>&1 || fail "the second build failed"
[ -z "$(written "$bin"/BuildStep_PrebuildStep.*)" ] || fail "the second build converted again"
echo "check.sh: both plugins work"
