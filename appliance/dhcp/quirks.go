package dhcp

import "github.com/insomniacslk/dhcp/dhcpv4"

// vendorOptions returns option 43 of the answer, or nil for none.
//
// Deviation: the standard lets one answer serve all. BIOS cards load the file of the OFFER only when discovery control
// says so; several UEFI firmwares (tianocore/edk2 issues 6944, 8149) drop an OFFER that has discovery control and ask
// port 4011 themselves when there is none; iPXE reads option 43 as a request for a boot menu.
func vendorOptions(m *dhcpv4.DHCPv4, r Request) []byte {
	switch {
	case r.IPXE || r.HTTP:
		return nil
	case r.Arch == 0:
		return append(bootItem(m), pxeDiscoveryControl, 1, discoveryBypass, 255)
	}
	if item := bootItem(m); item != nil {
		return append(item, 255)
	}
	return nil
}

// bootItem returns the boot item of the question as it goes back in the answer, or nil.
//
// Cards that ask a boot server of their own accord (Intel Boot Agent before 1.3) wait for the item that they named.
func bootItem(m *dhcpv4.DHCPv4) []byte {
	b := m.GetOneOption(dhcpv4.OptionVendorSpecificInformation)
	for len(b) >= 2 && b[0] != 255 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			return nil
		}
		if b[0] == pxeBootItem && n == 4 {
			return append([]byte(nil), b[:6]...)
		}
		b = b[2+n:]
	}
	return nil
}
