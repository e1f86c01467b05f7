#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Inside the root that `cargo xtask tdx-host FOLDER prepare` made:
#   ssh.sh FOLDER
# adds an ssh server and Python to FOLDER/initrd.gz, and writes FOLDER/initrd-ssh.gz. The owner of
# the key FOLDER/key may log in as root.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
cd "$1"

if ! dpkg -s openssh-server python3 > /dev/null 2>&1; then
    apt-get update
    apt-get install -y --no-install-recommends openssh-server python3
fi

rm -rf with-ssh
mkdir -p with-ssh/etc/ssh with-ssh/root
cp -rL --parents /usr/sbin/sshd /usr/lib/openssh /usr/bin/python3 /usr/lib/python3* with-ssh
# The shared libraries of all programs and of Python's own modules. ldd fails for scripts.
{ find with-ssh -type f \( -perm -u+x -o -name '*.so' \) -exec ldd {} + 2> /dev/null || true; } |
    grep -o '/[^ :]*\.so[^ :]*' | sort -u | xargs cp -L --parents -t with-ssh

rm -f key key.pub
ssh-keygen -q -t ed25519 -N '' -f key
ssh-keygen -q -t ed25519 -N '' -f with-ssh/etc/ssh/host_key
cp key.pub with-ssh/etc/ssh/authorized_keys
cat > with-ssh/etc/ssh/sshd_config << 'END'
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
StrictModes no
UsePAM no
END
cat > with-ssh/etc/passwd << 'END'
root:x:0:0:root:/root:/bin/sh
sshd:x:1:1:sshd:/run/sshd:/bin/false
END
cat > with-ssh/start-ssh << 'END'
#!/bin/sh
# Starts the network that QEMU gives its user, and the ssh server.
set -e
mkdir -p /dev/pts /run/sshd
mount -t devpts devpts /dev/pts
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
/usr/sbin/sshd
END
chmod +x with-ssh/start-ssh

(cd with-ssh; find . | cpio -o -H newc --quiet | gzip -1) > with-ssh.gz
cat initrd.gz with-ssh.gz > initrd-ssh.gz
