#!/bin/sh
# Runs before the kernel is installed: the initrd holds the drivers of the lab's disks and nothing else.
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\nCOMPRESS=zstd\nRESUME=none\n' > "$1/etc/initramfs-tools/conf.d/golden"
printf '%s\n' virtio_pci virtio_blk virtio_scsi ahci ata_piix sd_mod nvme > "$1/usr/share/initramfs-tools/modules.d/golden"
