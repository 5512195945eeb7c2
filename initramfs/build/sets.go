package main

// suite is the Debian release that all boot files come from.
const suite = "trixie"

// bootPackages hold the files that machines load from the network. The kernel's meta-package is resolved to the real,
// versioned one.
var bootPackages = []string{"ipxe", "shim-signed", "grub-efi-amd64-signed"}

// kernelMeta depends on the newest kernel of the suite.
const kernelMeta = "linux-image-amd64"

// firmwarePackages hold what the modules of moduleSets name by MODULE_FIRMWARE and Debian ships.
var firmwarePackages = []string{
	"firmware-realtek", "firmware-bnx2", "firmware-bnx2x", "firmware-intel-misc", "firmware-misc-nonfree",
}

// bootFiles maps a file of the boot directory to where its package keeps it.
var bootFiles = []struct{ name, pkg, path string }{
	{"undionly.kpxe", "ipxe", "usr/lib/ipxe/undionly.kpxe"},
	{"snponly.efi", "ipxe", "usr/lib/ipxe/snponly.efi"},
	{"ipxe.efi", "ipxe", "usr/lib/ipxe/ipxe-amd64.efi"},
	{"shimx64.efi", "shim-signed", "usr/lib/shim/shimx64.efi.signed"},
	{"grubx64.efi", "grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"},
}

// moduleSets are the modules that the initramfs carries, by purpose; their dependencies and soft dependencies come
// along. Names with underscores. What the kernel has built in may be listed.
var moduleSets = []struct {
	purpose string
	names   string
}{
	{"wired network", `e1000 e1000e igb igc ixgbe i40e ice r8169 tg3 bnxt_en atlantic alx atl1c atl1e mlx4_en mlx5_core
		virtio_net vmxnet3 8139cp 8139too bnx2 bnx2x sky2 be2net ena hv_netvsc igbvf ixgbevf iavf forcedeth jme via_velocity
		realtek broadcom marvell`},
	{"USB network", `r8152 ax88179_178a asix aqc111 cdc_ether cdc_ncm cdc_mbim r8153_ecm smsc75xx smsc95xx lan78xx
		rtl8150 xhci_pci ehci_pci ohci_pci uhci_hcd`},
	{"storage", `ahci ata_piix ata_generic nvme sd_mod virtio_blk virtio_scsi virtio_pci megaraid_sas mpt3sas
		aacraid smartpqi hpsa vmd usb_storage uas mmc_block sdhci_pci sdhci_acpi vmw_pvscsi hv_storvsc mptspi ufshcd_pci`},
	{"firmware's view", `edd efivarfs efi_pstore`},
	{"network queues", `tcp_bbr sch_fq`},
	{"keyboard, random numbers", `usbhid hid_generic atkbd i8042 virtio_console virtio_rng hv_vmbus hyperv_keyboard`},
}
