#!/bin/sh
# enter.sh SYSTEM MOUNT... -- PROGRAM ARGUMENT...: runs a program with SYSTEM as its root, and every MOUNT, an absolute folder,
# at the same place in it. To be run in a mount namespace of its own: the mounts are then seen by this program alone, and go when it
# ends, however it ends.
set -eu

system=$1
shift
mount --rbind /proc "$system/proc"
mount --rbind /dev "$system/dev"
while [ "$1" != -- ]; do
    mkdir -p "$system$1"
    mount --bind "$1" "$system$1"
    shift
done
shift
exec chroot "$system" "$@"
