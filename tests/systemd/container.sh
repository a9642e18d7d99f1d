#!/usr/bin/env bash
# container.sh DIR PROGRAMS: becomes PID 1 of a container, which is a real systemd. Started in namespaces of its own by lab.rs, never by hand.
#
# The root is a tmpfs over DIR, so that systemd's own tmpfiles and what packages install meet nothing of the machine: /usr is the machine's, below a
# layer that takes what is written; /etc, /var, /run and /tmp are new. PROGRAMS is seen as /lab. No unit is started but the target below, so no
# journal and no bus are needed.
set -eu
root=$1 programs=$2
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p etc/systemd/system etc/default var/lib/dpkg/info var/lib/dpkg/updates var/lib/dpkg/triggers var/lib/systemd var/log var/tmp run tmp proc sys dev root lab old usr layer/upper layer/work
for name in bin sbin lib lib64; do
    if [ -L "/$name" ]; then ln -s "usr/$name" "$name"; fi
done

cp /etc/os-release etc/
: >etc/machine-id
printf 'root:x:0:0:root:/root:/bin/sh\nalice:x:2001:2001::/:/bin/sh\nbob:x:2002:2002::/:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n' >etc/passwd
printf 'root:x:0:\nalice:x:2001:\nbob:x:2002:\nfriends:x:2100:\nnogroup:x:65534:\n' >etc/group
printf 'root:*:1::::::\nalice:*:1::::::\nbob:*:1::::::\nnobody:*:1::::::\n' >etc/shadow
printf 'root:*::\nalice:!::\nbob:!::\nfriends:!::\nnogroup:*::\n' >etc/gshadow
printf 'passwd: files\ngroup: files\nshadow: files\n' >etc/nsswitch.conf
cp -r /etc/ld.so.conf /etc/ld.so.conf.d /etc/ld.so.cache etc/ 2>/dev/null || true
if [ -d /etc/alternatives ]; then cp -a /etc/alternatives etc/; fi
printf '[Unit]\nDescription=Nothing but what is tested\nDefaultDependencies=no\n' >etc/systemd/system/lab.target
# Some other package's: dpkg removes directories that are left empty.
: >etc/default/other
# dpkg knows of no package but those that ours depends on.
dpkg-query -s libc6 libgcc-s1 systemd 2>/dev/null >var/lib/dpkg/status || true
for name in libc6 libgcc-s1 systemd; do : >"var/lib/dpkg/info/$name.list"; done

mount -t overlay -o "lowerdir=/usr,upperdir=$root/layer/upper,workdir=$root/layer/work" overlay usr
# Images of containers forbid packages to start services.
rm -f usr/sbin/policy-rc.d
mount --bind "$programs" lab
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<<"$device"
    mknod -m 666 "dev/$name" c "$major" "$minor"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# The machine's settings stay as they are.
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
pivot_root . old
cd /
umount -l /old
rmdir /old
hostname evd-lab
systemd=/usr/lib/systemd/systemd
[ -x "$systemd" ] || systemd=/lib/systemd/systemd
exec env -i container=evd-lab PATH=/usr/sbin:/usr/bin LANG=C.UTF-8 \
    "$systemd" --system --log-target=console --show-status=no --unit=lab.target
