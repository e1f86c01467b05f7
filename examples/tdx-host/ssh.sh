#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Inside the root that `cargo xtask tdx-host FOLDER prepare` made:
#   ssh.sh FOLDER
# adds an ssh server and Python to FOLDER/initrd.gz, and writes FOLDER/initrd-ssh.gz. The owner of
# the key FOLDER/key may log in as root.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
cd "$1"

if ! dpkg -s dropbear-bin openssh-client python3 > /dev/null 2>&1; then
    apt-get update
    apt-get install -y --no-install-recommends dropbear-bin openssh-client python3
fi

rm -rf with-ssh
mkdir -p with-ssh/etc/dropbear with-ssh/root/.ssh
cp -rL --parents /usr/sbin/dropbear /usr/bin/python3 /usr/lib/python3* with-ssh
# The shared libraries of all programs and of Python's own modules. ldd fails for scripts.
{ find with-ssh -type f \( -perm -u+x -o -name '*.so' \) -exec ldd {} + 2> /dev/null || true; } |
    grep -o '/[^ :]*\.so[^ :]*' | sort -u | xargs cp -L --parents -t with-ssh

rm -f key key.pub
ssh-keygen -q -t ed25519 -N '' -f key
chmod 700 with-ssh/root/.ssh
cp key.pub with-ssh/root/.ssh/authorized_keys
echo "root:x:0:0:root:/root:/bin/sh" > with-ssh/etc/passwd
cat > with-ssh/start-ssh << 'END'
#!/bin/sh
# Starts the network that QEMU gives its user, and the ssh server.
set -e
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
# The host's key is made now.
/usr/sbin/dropbear -R -s
END
chmod +x with-ssh/start-ssh

(cd with-ssh; find . | cpio -o -H newc --quiet | gzip -1) > with-ssh.gz
cat initrd.gz with-ssh.gz > initrd-ssh.gz
